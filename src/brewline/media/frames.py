"""Formats without a container: a row of frames, each with a head of its own (MP3, ADTS, AMR).

Every frame is found and counted, because decoders believe a header that speaks for another file,
take the bit rate of the first frame for that of all, or stop at what they do not expect.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from brewline.media.recording import (
    TAGS,
    AudioError,
    Parts,
    Sound,
    check_joined,
    end_without_padding,
    is_harmless,
    size_of_id3,
)

# Where the first frame is looked for; what comes before it is junk.
_MAX_JUNK_BYTES = 1 << 17
# So many frames in a row are no accident.
_SURE = 3
# ISO/IEC 11172-3, 13818-3: bit rates by index from 1, for layers I, II, III of MPEG 1, and for
# layer I and layers II and III of MPEG 2 and 2.5; sample rates of MPEG 1.
_MPEG_1_KBPS = {
    1: (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_MPEG_2_KBPS = {
    1: (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    3: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG_RATES_HZ = (44_100, 48_000, 32_000)
# ISO/IEC 14496-3, table 1.18.
_AAC_RATES_HZ = (
    *(96_000, 88_200, 64_000, 48_000, 44_100, 32_000),
    *(24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350),
)
# RFC 4867, section 5.3: the bytes of a frame by its type, without its head, in narrow-band and
# wide-band files; 20 ms each.
_AMR_BYTES = {
    b"#!AMR\n": dict(zip((*range(9), 15), (12, 13, 15, 17, 19, 20, 26, 31, 5, 0), strict=True)),
    b"#!AMR-WB\n": dict(
        zip((*range(10), 14, 15), (17, 23, 32, 36, 40, 46, 50, 58, 60, 5, 0, 0), strict=True)
    ),
}
_AMR_FRAME_S = 0.02


class Frame(NamedTuple):
    """A frame: bytes, seconds, and what all frames of a stream have in common."""

    num_bytes: int
    duration_s: float
    kind: tuple[int, ...]


FrameAt = Callable[[bytes, int], Frame | None]


@dataclass
class _Row:
    """The frames of a stream: where each run of them lies, and what is between the runs."""

    runs: list[tuple[int, int]] = field(default_factory=list)
    duration_s: float = 0.0
    num_frames: int = 0
    num_bytes: int = 0
    junk_bytes: int = 0
    has_end: bool = True
    # Frames, and places where one was looked for.
    parts: Parts = field(default_factory=Parts)

    def frames(self, content: bytes) -> bytes:
        """The frames alone; the content itself where there is nothing else."""
        if self.runs == [(0, len(content))]:
            return content
        return b"".join(content[start:end] for start, end in self.runs)

    @property
    def promised_s(self) -> float:
        """The duration of the frames, and what the bytes that are none would have lasted."""
        return self.duration_s * (1 + self.junk_bytes / max(self.num_bytes, 1))


def mpeg_frame(content: bytes, position: int) -> Frame | None:
    """What the head of an MPEG audio frame says, of layers I to III."""
    head = content[position : position + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    is_mpeg_1 = version == 3
    rate_hz = _MPEG_RATES_HZ[rate] >> (0 if is_mpeg_1 else 1 if version == 2 else 2)
    num_samples = 384 if layer == 1 else 1152 if layer == 2 or is_mpeg_1 else 576
    bits_per_s = 1000 * (_MPEG_1_KBPS if is_mpeg_1 else _MPEG_2_KBPS)[layer][bitrate - 1]
    slot_bytes = 4 if layer == 1 else 1
    padding = head[2] >> 1 & 1
    length = (num_samples // 8 * bits_per_s // rate_hz // slot_bytes + padding) * slot_bytes
    return Frame(length, num_samples / rate_hz, (version, layer, rate))


def adts_frame(content: bytes, position: int) -> Frame | None:
    """What the head of an ADTS frame says (ISO/IEC 13818-7, section 6.2)."""
    head = content[position : position + 7]
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return None
    rate, length = head[2] >> 2 & 15, (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    if rate >= len(_AAC_RATES_HZ) or length < 7:
        return None
    num_samples = 1024 * (1 + (head[6] & 3))
    channels = (head[2] & 1) << 2 | head[3] >> 6
    return Frame(length, num_samples / _AAC_RATES_HZ[rate], (head[1], head[2] >> 6, rate, channels))


def frame_sounds(content: bytes) -> list[Sound] | None:
    """The sound of a file that is a row of MPEG audio or ADTS frames; None where it is none."""
    kinds: tuple[FrameAt, ...] = (mpeg_frame, adts_frame)
    # Most begin with a frame, and need not be searched.
    at_once = [frame_at for frame_at in kinds if _is_row(content, 0, frame_at, _SURE)]
    for frame_at in at_once or kinds:
        end = min(_MAX_JUNK_BYTES, len(content))
        start = _find(content, (0, end), frame_at, _SURE, Parts())
        if start is None:
            continue
        row = _walk(content, start, frame_at)
        if frame_at is mpeg_frame:
            return [_mpeg_sound(content, start, row)]
        frames = row.frames(content)
        return [Sound(frames, "aac", promised_s=row.promised_s, has_end=row.has_end)]
    return None


def amr_sounds(content: bytes) -> list[Sound]:
    """The sounds of AMR files that follow each other (RFC 4867, section 5).

    Raises:
        AudioError: `not_audio` or `damaged`: what should be a frame is none.
    """
    sounds: list[Sound] = []
    position, parts = 0, Parts()
    while magic := next((one for one in _AMR_BYTES if content.startswith(one, position)), b""):
        sound, size = _amr_sound(content[position:], magic, parts)
        sounds.append(sound)
        check_joined(len(sounds))
        position += size
    if not sounds:
        raise AudioError("not_audio", f"an AMR of another kind: {content[:12]!r}")
    if not is_harmless(content[position:]) and sounds[-1].has_end:
        raise AudioError("damaged", f"no AMR frame at byte {position}")
    return sounds


def _amr_sound(content: bytes, magic: bytes, parts: Parts) -> tuple[Sound, int]:
    """The sound at the beginning, and its bytes."""
    position, num_frames, has_end = len(magic), 0, True
    # Zeros could be frames as well.
    padding = end_without_padding(content)
    while position < padding:
        parts.add_one()
        size = _AMR_BYTES[magic].get(content[position] >> 3 & 15)
        # The other bits of a head are zero, but for one.
        if size is None or content[position] & 0x83 or content.startswith(TAGS, position):
            break
        end = position + 1 + size
        if end > len(content):
            has_end = False
            break
        position, num_frames = end, num_frames + 1
    duration_s = num_frames * _AMR_FRAME_S
    return Sound(content[:position], "amr", promised_s=duration_s, has_end=has_end), position


def _mpeg_sound(content: bytes, start: int, row: _Row) -> Sound:
    """The sound of an MP3: of its frames, whatever a header among them says of their number.

    The first frame may hold no sound but the number of those that follow (Xing, Info, VBRI).
    Where files were joined, one stands before each of them, and speaks for that one alone.
    """
    headers = [
        (at, frame) for at, frame in _frames_in(content, row) if _is_header(content, at, frame)
    ]
    promised = sum(_promised_frames(content, at, frame) for at, frame in headers)
    num_frames = row.num_frames - len(headers)
    is_clean = len(row.runs) == 1 and not row.junk_bytes
    if is_clean and [at for at, _ in headers] == [start] and promised == num_frames:
        # libsndfile plays what the header says, without the silence of the encoder.
        return Sound(content[start:], "mp3", by_libsndfile=True, has_end=row.has_end)
    frame_s = row.duration_s / row.num_frames
    heard = _without(row, headers)
    return Sound(
        heard.frames(content),
        "mp3",
        promised_s=max(heard.promised_s, promised * frame_s),
        has_end=row.has_end,
    )


def _without(row: _Row, headers: list[tuple[int, Frame]]) -> _Row:
    """The row without some of its frames, which are in its order."""
    rest = replace(
        row,
        runs=[],
        num_frames=row.num_frames - len(headers),
        num_bytes=row.num_bytes - sum(frame.num_bytes for _, frame in headers),
        duration_s=row.duration_s - sum(frame.duration_s for _, frame in headers),
    )
    left = iter(headers)
    at, frame = next(left, (None, None))
    for start, end in row.runs:
        position = start
        while at is not None and frame is not None and at < end:
            rest.runs.append((position, at))
            position = at + frame.num_bytes
            at, frame = next(left, (None, None))
        rest.runs.append((position, end))
    return rest


def _is_header(content: bytes, at: int, frame: Frame) -> bool:
    body = content[at + 4 : at + min(frame.num_bytes, 48)]
    return any(tag in body for tag in (b"Xing", b"Info", b"VBRI"))


def _promised_frames(content: bytes, at: int, frame: Frame) -> int:
    """How many frames a header promises after it; 0 where it does not say."""
    body = content[at : at + frame.num_bytes]
    if (place := body.find(b"VBRI")) > 0:
        return int.from_bytes(body[place + 14 : place + 18], "big")
    place = max(body.find(b"Xing"), body.find(b"Info"))
    has_count = len(body) >= place + 12 and body[place + 7] & 1
    return int.from_bytes(body[place + 8 : place + 12], "big") if has_count else 0


def _frames_in(content: bytes, row: _Row) -> Iterator[tuple[int, Frame]]:
    for start, end in row.runs:
        position = start
        while position < end:
            frame = mpeg_frame(content, position)
            assert frame
            yield position, frame
            position += frame.num_bytes


def _find(
    content: bytes, within: tuple[int, int], frame_at: FrameAt, sure: int, parts: Parts
) -> int | None:
    """Where the first of `sure` frames of a kind begins, or the last ones of the file."""
    start, stop = within
    position = content.find(b"\xff", start, stop)
    while position >= 0:
        parts.add_one()
        if _is_row(content, position, frame_at, sure):
            return position
        position = content.find(b"\xff", position + 1, stop)
    return None


def _is_row(content: bytes, position: int, frame_at: FrameAt, sure: int) -> bool:
    first = frame = frame_at(content, position)
    for _ in range(sure):
        if frame is None or first is None or frame.kind != first.kind:
            return False
        position += frame.num_bytes
        if position >= len(content):
            return position == len(content)
        frame = frame_at(content, position)
    return True


def _walk(content: bytes, start: int, frame_at: FrameAt) -> _Row:
    """Goes from frame to frame to the end of the file, over tags and what is damaged."""
    row = _Row()
    position = run = start
    kind: tuple[int, ...] = ()
    while position < len(content):
        row.parts.add_one()
        frame = frame_at(content, position)
        if frame and frame.kind != kind and not _is_row(content, position, frame_at, 2):
            frame = None
        if frame and position + frame.num_bytes <= len(content):
            kind = frame.kind
            position += frame.num_bytes
            row.num_frames += 1
            row.num_bytes += frame.num_bytes
            row.duration_s += frame.duration_s
            continue
        if run < position:
            row.runs.append((run, position))
        if frame:
            row.has_end = False
            return row
        run = position = _skip(content, position, frame_at, row)
    if run < position:
        row.runs.append((run, position))
    return row


def _skip(content: bytes, position: int, frame_at: FrameAt, row: _Row) -> int:
    """Where frames go on after `position`, where none is; counts what is lost there."""
    tag = size_of_id3(content, position)
    if tag:
        return min(position + tag, len(content))
    found = _find(content, (position + 1, len(content)), frame_at, 2, row.parts)
    if found is None:
        if not is_harmless(content[position:]):
            row.junk_bytes += len(content) - position
        return len(content)
    between = content[position:found]
    if not between.startswith((b"TAG", b"APETAGEX", b"LYRICSBEGIN")):
        row.junk_bytes += len(between)
    return found
