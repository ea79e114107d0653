"""Containers that PyAV reads, video among them: MP4, Matroska, ASF, AVI, FLV, MPEG-TS.

PyAV plays a file that was cut up to the cut, and says nothing. Each of these is a row of parts that
say how long they are; what the last one promises is compared with what there is.

A format is named to PyAV by the first bytes and never guessed: among those that it knows are
playlists, which name other files and addresses.
"""

from collections.abc import Iterator

from brewline.media.recording import TAGS, AudioError, Parts, Sound, check_joined, is_harmless

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT, _CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
_MP4_FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp")
_TS_PACKET, _TS_SYNC = 188, 0x47
_TS_SURE = 4


def multimedia_sounds(content: bytes) -> list[Sound] | None:
    """The sound tracks of a file of one of these formats; None where it is of another one.

    Raises:
        AudioError: `truncated`: a part of it promises more bytes than there are.
    """
    if content[4:8] in _MP4_FIRST:
        return _mp4(content)
    if content.startswith(_EBML):
        return _matroska(content)
    if content.startswith(_ASF):
        return _asf(content)
    if content.startswith(b"RIFF") and content[8:12] == b"AVI ":
        return _avi(content)
    if content.startswith(b"FLV\x01"):
        return _flv(content)
    if len(content) >= _TS_PACKET and all(
        byte == _TS_SYNC for byte in content[: _TS_SURE * _TS_PACKET : _TS_PACKET]
    ):
        return _mpegts(content)
    return None


def _cut(what: str, missing: int) -> AudioError:
    return AudioError("truncated", f"{what} needs {missing} bytes more")


def _mp4(content: bytes) -> list[Sound]:
    """ISO/IEC 14496-12, section 4.2: boxes; a second `ftyp` begins a file that was joined."""
    starts = [0]
    names: set[bytes] = set()
    for name, at, end in _boxes(content):
        if end > len(content):
            raise _cut(f"the box {name.decode('ascii')!r} of the MP4", end - len(content))
        if name == b"ftyp" and names:
            starts.append(at)
        names.add(name)
    if b"moov" not in names:
        raise AudioError("truncated", "the index of the MP4 is missing")
    return _parts(content, starts, "mov")


def _boxes(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The name of each box, and where it begins and ends."""
    at, parts = 0, Parts()
    while at + 8 <= len(content):
        parts.add_one()
        size, name = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        if not name.isalnum() or content.startswith(TAGS, at):
            # What the index does not name is no sound.
            return
        if size == 1:
            size = int.from_bytes(content[at + 8 : at + 16], "big")
        end = at + size if size else len(content)
        if end < at + 8:
            return
        yield name, at, end
        at = end


def _matroska(content: bytes) -> list[Sound]:
    """RFC 9559; a stream that was written as it came leaves the sizes of its parts open."""
    starts, at, has_end, parts = [0], 0, True, Parts()
    while at < len(content):
        parts.add_one()
        head = None if content.startswith(TAGS, at) else _ebml_head(content, at)
        if head is None:
            # Padding or a tag after the last part, or a part of a head.
            has_end = is_harmless(content[at:])
            break
        name, body, size = head
        if at and name == _EBML:
            starts.append(at)
        if size is None and name in (_SEGMENT, _CLUSTER):
            # Its parts follow.
            at = body
            continue
        if size is None:
            raise AudioError("damaged", f"a part of the Matroska file at byte {at} has no size")
        at = body + size
        if at > len(content) and name in (_SEGMENT, _CLUSTER):
            raise _cut("a part of the Matroska file", at - len(content))
        has_end = at <= len(content)
    return _parts(content, starts, "matroska", has_end)


def _ebml_head(content: bytes, at: int) -> tuple[bytes, int, int | None] | None:
    """The id of an element, where its body begins, and its size; None where none begins."""
    id_bytes = 9 - content[at].bit_length()
    size_at = at + id_bytes
    if id_bytes > 4 or size_at >= len(content) or not content[size_at]:
        return None
    size_bytes = 9 - content[size_at].bit_length()
    body = size_at + size_bytes
    if body > len(content):
        return None
    size = int.from_bytes(content[size_at:body], "big") - (1 << 7 * size_bytes)
    is_unknown = size == (1 << 7 * size_bytes) - 1
    return content[at:size_at], body, None if is_unknown else size


def _asf(content: bytes) -> list[Sound]:
    """Microsoft, "Advanced Systems Format", section 3: objects of a GUID and a 64-bit size."""
    starts, at, parts = [0], 0, Parts()
    while at + 24 <= len(content) and not content.startswith(TAGS, at):
        parts.add_one()
        if at and content.startswith(_ASF, at):
            starts.append(at)
        size = int.from_bytes(content[at + 16 : at + 24], "little")
        if size < 24:
            # The data of a broadcast, of which nobody knew how long it would be.
            break
        at += size
    if at > len(content):
        raise _cut("an object of the ASF file", at - len(content))
    return _parts(content, starts, "asf")


def _avi(content: bytes) -> list[Sound]:
    """Microsoft, "AVI RIFF File Reference"; several `RIFF` follow each other in OpenDML."""
    at, parts = 0, Parts()
    while content.startswith(b"RIFF", at):
        parts.add_one()
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    if at > len(content) + 1:
        raise _cut("a part of the AVI file", at - len(content))
    return [Sound(content, "avi")]


def _flv(content: bytes) -> list[Sound]:
    """Adobe, "Flash Video File Format 10.1", annex E: tags, each followed by its size."""
    starts, at, parts = [0], int.from_bytes(content[5:9], "big") + 4, Parts()
    while at + 11 <= len(content):
        parts.add_one()
        if content.startswith(b"FLV\x01", at):
            starts.append(at)
            at += int.from_bytes(content[at + 5 : at + 9], "big") + 4
            continue
        end = at + 11 + int.from_bytes(content[at + 1 : at + 4], "big") + 4
        if end > len(content):
            break
        at = end
    # A tag that is cut would be decoded as if it were whole.
    return _parts(content[:at], starts, "flv", is_harmless(content[at:]))


def _mpegts(content: bytes) -> list[Sound]:
    """ISO/IEC 13818-1, section 2.4.3: packets of 188 bytes."""
    whole = len(content) - len(content) % _TS_PACKET
    while content[whole - _TS_PACKET] != _TS_SYNC:
        whole -= _TS_PACKET
    return [Sound(content[:whole], "mpegts", has_end=is_harmless(content[whole:]))]


def _parts(content: bytes, starts: list[int], demuxer: str, has_end: bool = True) -> list[Sound]:
    """The files that begin at `starts`, one after another."""
    check_joined(len(starts))
    ends = [*starts[1:], len(content)]
    return [
        Sound(content[start:end], demuxer, has_end=has_end)
        for start, end in zip(starts, ends, strict=True)
    ]
