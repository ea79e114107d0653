"""Containers that say in bytes how much sound they hold: WAV, RF64, AIFF, W64, AU, CAF, NIST.

libsndfile believes the size of the file instead, or stops at the size in the header, so that half
of a file is decoded without a word. What a header promises is compared with what there is.
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from brewline.media.frames import frame_sounds
from brewline.media.recording import (
    AudioError,
    Parts,
    Samples,
    Sound,
    check_joined,
    is_harmless,
)

# All ones in the 32-bit size: RF64 has it in the chunk `ds64`. Writers of streams leave all ones,
# zero, or the largest size that they take to be safe, a little under 2 GiB.
_SIZE_ELSEWHERE = 0xFFFFFFFF
_SIZE_UNKNOWN = 0x7FFFF000
# MPEG audio and MP3 in a WAV, of which libsndfile takes the first bit rate for that of all.
_WAV_MPEG = (0x50, 0x55)
# Its head: format tag, channels, sample rate, bytes a second, bytes of a sample of all channels,
# and bits. What lies there as 16-bit integers in the usual way needs no decoder, which would take
# several times as long; libsndfile has its own opinion of the rest.
_WAV_FORMAT, _PCM = "HHIIHH", 1
_MAX_CHANNELS, _MAX_RATE_HZ = 256, 655_350
# Sony's Wave64: names are GUIDs, sizes include the head and are padded to eight bytes.
_W64_FILE = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_NIST_MAGIC = b"NIST_1A"
_NIST_FIELD = re.compile(rb"^(\w+) -(?:i|s\d+) (\S+)\s*$", re.MULTILINE)
# The name of a chunk is printable; samples seldom are.
_NAME = re.compile(rb"[ -~]{4}")


# Name, place and size.
_Chunk = tuple[bytes, int, int]


class _Data(NamedTuple):
    """Where the sound of a file lies, how many bytes are promised, and where the file ends.

    `claimed` is None where the header leaves it open. A next file may begin at `end`.
    """

    start: int
    claimed: int | None
    end: int
    # Bytes after that, which are no part of it and no tag.
    lost: int = 0
    # Where the 32-bit size stands that libsndfile would believe, and its byte order.
    size_at: int | None = None
    order: str = "<"
    # The format tag of a WAV, and its samples if they need no decoder.
    tag: int = 0
    samples: Samples | None = None


def chunk_sounds(content: bytes) -> list[Sound] | None:
    """The sounds of a file of one of these formats; None where it is of another one.

    Files that follow each other are taken apart.

    Raises:
        AudioError: `damaged` or `truncated`.
    """
    sounds: list[Sound] = []
    position = 0
    while kind := _kind_at(content, position):
        demuxer, read = kind
        part = content[position:] if position else content
        data = read(part)
        sounds += _sounds(part, data, demuxer)
        check_joined(len(sounds))
        if data.end >= len(part):
            break
        position += data.end
    return sounds or None


def _kind_at(content: bytes, at: int) -> tuple[str, Callable[[bytes], _Data]] | None:
    magic, form = content[at : at + 4], content[at + 8 : at + 12]
    if magic in (b"RIFF", b"RF64", b"RIFX") and form == b"WAVE":
        return "wav", _wav
    if magic == b"FORM" and form in (b"AIFF", b"AIFC"):
        return "aiff", _aiff
    if magic == b".snd":
        return "au", _au
    if magic == b"caff":
        return "caf", _caf
    if content.startswith(_W64_FILE, at):
        return "w64", _w64
    return ("nistsphere", _nist) if content.startswith(_NIST_MAGIC, at) else None


def _sounds(content: bytes, data: _Data, demuxer: str) -> list[Sound]:
    present = min(data.end, len(content)) - data.start
    if data.claimed is None:
        if data.size_at is not None:
            unknown = struct.pack(f"{data.order}I", _SIZE_ELSEWHERE)
            content = content[: data.size_at] + unknown + content[data.size_at + 4 :]
            if content.startswith(b"RF64"):
                # Then no other chunk is asked for the size.
                content = b"RIFF" + content[4:]
        sound = Sound(content, demuxer, by_libsndfile=True, is_open=True)
    elif data.claimed and present <= 0:
        raise AudioError("truncated", "the file ends where the sound should begin")
    else:
        whole = data.claimed + data.lost
        share = whole / min(data.claimed, present) if data.claimed else 1.0
        part = content[: data.end] if data.end < len(content) else content
        sound = Sound(part, demuxer, by_libsndfile=True, samples=data.samples, share=share)
    if data.tag not in _WAV_MPEG:
        return [sound]
    size = present if data.claimed is None else min(data.claimed, present)
    frames = frame_sounds(content[data.start : data.start + size])
    if frames is None:
        raise AudioError("damaged", "the WAV says that it holds MP3, and there are no frames of it")
    # What the frames promise, and more where the data are cut.
    return [
        replace(one, promised_s=one.promised_s and one.promised_s * sound.share, share=sound.share)
        for one in frames
    ]


def _with_tail(content: bytes, data: _Data, end: int) -> _Data:
    """The sound of a file that is over at `end`, where nothing begins that is known."""
    tail = content[end:]
    # Samples that the header does not count: they will be missing from what is decoded.
    return data._replace(end=end, lost=0 if is_harmless(tail) else len(tail))


def _wav(content: bytes) -> _Data:
    """Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0"."""
    order = ">" if content.startswith(b"RIFX") else "<"
    head, tag, size_64 = b"", 0, None
    for name, at, size in _chunks(content, 12, f"{order}4sI", 1):
        body = at + 8
        if name == b"fmt " and body + 2 <= len(content):
            (tag,) = struct.unpack_from(f"{order}H", content, body)
            # A second one would have to be weighed against the first.
            head = b"" if head else content[body : body + min(size, 16)]
        elif name == b"ds64" and body + 16 <= len(content):
            (size_64,) = struct.unpack_from("<Q", content, body + 8)
        elif name == b"data":
            if size == _SIZE_ELSEWHERE and size_64:
                size = size_64
            elif size >= _SIZE_UNKNOWN or (size == 0 and not _is_chunk(content, body, order)):
                return _Data(body, None, len(content), 0, at + 4, order, tag)
            samples = _samples(head, body, min(size, len(content) - body))
            is_plain = content.startswith(b"RIFF")
            data = _Data(body, size, len(content), tag=tag, samples=samples if is_plain else None)
            rest = _chunks(content, body + size + size % 2, f"{order}4sI", 1)
            return _look_after(content, data, rest, (b"RIFF", b"RF64", b"RIFX"))
    raise _no_sound()


def _samples(head: bytes, start: int, num_bytes: int) -> Samples | None:
    """The samples of a little-endian WAV, if they are 16-bit integers."""
    if len(head) < struct.calcsize(_WAV_FORMAT):
        return None
    tag, num_channels, rate_hz, _, width, bits = struct.unpack(f"<{_WAV_FORMAT}", head)
    is_plain = tag == _PCM and bits == 16 and width == 2 * num_channels
    if not (is_plain and 0 < num_channels <= _MAX_CHANNELS and 0 < rate_hz <= _MAX_RATE_HZ):
        return None
    return Samples(start, max(num_bytes, 0) // width, num_channels, rate_hz)


def _no_sound() -> AudioError:
    return AudioError("truncated", "the file ends before its sound begins")


def _look_after(
    content: bytes, data: _Data, rest: Iterator[_Chunk], next_file: tuple[bytes, ...]
) -> _Data:
    """What follows the sound: chunks, another file, or something else."""
    for name, at, size in rest:
        if name in next_file:
            return data._replace(end=at)
        # Another format's name is printable too, but what follows it is no size.
        if not name or at + 8 + size > len(content):
            return _with_tail(content, data, at)
    return data


def _is_chunk(content: bytes, at: int, order: str) -> bool:
    """Whether the file ends at `at`, or a whole chunk begins there."""
    if at + 8 > len(content):
        return at == len(content)
    name, size = struct.unpack_from(f"{order}4sI", content, at)
    return bool(_NAME.fullmatch(name)) and at + 8 + size <= len(content)


def _chunks(content: bytes, at: int, head: str, padding: int) -> Iterator[_Chunk]:
    """The name, place and size of each chunk; an empty name where something else begins."""
    head_bytes, parts = struct.calcsize(head), Parts()
    while at + head_bytes <= len(content):
        parts.add_one()
        name, size = struct.unpack_from(head, content, at)
        if not _NAME.fullmatch(name) and padding and _NAME.fullmatch(content[at - 1 : at + 3]):
            # A writer that forgets the byte that makes a size even.
            at -= 1
            name, size = struct.unpack_from(head, content, at)
        if not _NAME.fullmatch(name):
            yield b"", at, 0
            return
        yield name, at, size
        at += head_bytes + size + (size % 2 if padding else 0)


def _aiff(content: bytes) -> _Data:
    """Apple, "Audio Interchange File Format 1.3"; sizes of `SSND` count eight bytes of head."""
    chunks = _chunks(content, 12, ">4sI", 1)
    for name, at, size in chunks:
        if name == b"SSND":
            if size == 0 or size >= _SIZE_UNKNOWN:
                return _Data(at + 16, None, len(content))
            data = _Data(at + 16, max(size - 8, 0), len(content))
            return _look_after(content, data, chunks, (b"FORM",))
    raise _no_sound()


def _w64(content: bytes) -> _Data:
    """Sony, "Wave64 file format"."""
    at = 40
    data: _Data | None = None
    parts = Parts()
    while at + 24 <= len(content):
        parts.add_one()
        name, size = content[at : at + 16], int.from_bytes(content[at + 16 : at + 24], "little")
        if data and name == _W64_FILE:
            return data._replace(end=at)
        if size < 24 or (data and at + size > len(content)):
            break
        if name == _W64_DATA:
            data = _Data(at + 24, size - 24, len(content))
        at += -(-size // 8) * 8
    if data is None:
        raise _no_sound()
    return _with_tail(content, data, at) if at < len(content) else data


def _au(content: bytes) -> _Data:
    """Sun's AU: 24 bytes of head, of which the size may be all ones."""
    if len(content) < 24:
        raise _no_sound()
    start, size = struct.unpack_from(">II", content, 4)
    if size == _SIZE_ELSEWHERE or (size == 0 and len(content) > start):
        return _Data(start, None, len(content), 0, 8, ">")
    return _of_size(content, start, size, b".snd")


def _of_size(content: bytes, start: int, size: int, magic: bytes) -> _Data:
    """Sound that ends with its file; another file may follow."""
    end = start + size
    data = _Data(start, size, max(end, len(content)))
    if end >= len(content):
        return data
    return (
        data._replace(end=end) if content.startswith(magic, end) else _with_tail(content, data, end)
    )


def _caf(content: bytes) -> _Data:
    """Apple, "Core Audio Format Specification"; the size of `data` may be -1, and counts four."""
    chunks = _chunks(content, 8, ">4sq", 0)
    for name, at, size in chunks:
        if name == b"data" and size < 0:
            return _Data(at + 16, None, len(content))
        if name == b"data":
            data = _Data(at + 16, max(size - 4, 0), len(content))
            missing = at + 12 + size - len(content)
            # Of packets that differ in size, nobody knows how long those are that are missing.
            if missing > 0 and content[28:32] != b"lpcm":
                raise AudioError("truncated", f"the sound of the CAF needs {missing} bytes more")
            return _look_after(content, data, chunks, (b"caff",))
        if size < 0:
            break
    raise _no_sound()


def _nist(content: bytes) -> _Data:
    """NIST SPHERE: a head in text, whose own size is its second line."""
    head = content[:4096]
    fields = dict(_NIST_FIELD.findall(head.partition(b"end_head")[0]))
    coding = fields.get(b"sample_coding", b"pcm").decode("ascii", "backslashreplace")
    if "," in coding:
        raise AudioError("unsupported_codec", f"its NIST head names the coding {coding!r}")
    try:
        start = int(head[8:16])
        names = (b"sample_count", b"channel_count", b"sample_n_bytes")
        count, channels, width = (int(fields[name]) for name in names)
    except (KeyError, ValueError):
        raise AudioError("damaged", "its NIST head says not how long it is") from None
    return _of_size(content, start, count * channels * width, _NIST_MAGIC)
