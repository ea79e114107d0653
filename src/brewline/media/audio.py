"""Decode recordings by their content, whatever their suffix says, and bring them to 16 kHz mono."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

# Whisper's input (openai-whisper, whisper/audio.py): everything recognised is at this rate.
SAMPLE_RATE_HZ = 16_000

# Decoded at a time: 17 minutes of mono at 16 kHz, 64 MiB as float32.
_BLOCK_SAMPLES = 1 << 24
# A FLAC stream need not say how long it is; libsndfile then says 2**63 - 1.
_UNKNOWN_FRAMES = 1 << 62
# Files that begin so are meant to be audio.
_MAGIC = (
    *(b"OggS", b"RIFF", b"RF64", b"fLaC", b"ID3"),
    # Layer III of MPEG 1 and 2, without and with checksum.
    *(b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2"),
)
# Integer PCM, float, and the extensible format, which is one of the two in practice.
_WAV_UNCOMPRESSED = (1, 3, 0xFFFE)
# All ones in the 32-bit size: RF64 has it in the chunk `ds64`. Writers of streams leave all ones,
# or the largest size that they take to be safe, a little under 2 GiB.
_WAV_SIZE_ELSEWHERE = 0xFFFFFFFF
_WAV_SIZE_UNKNOWN = 0x7FFFF000
# Layer III: bit rates by index from 1 (MPEG 1; MPEG 2 and 2.5), sample rates of MPEG 1.
_MPEG_1_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG_2_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MP3_RATES_HZ = (44_100, 48_000, 32_000)
_OGG_HEADER = struct.Struct("<4sBBqIIIB")
_OGG_END_OF_STREAM = 4
# Ogg's checksum runs over the bits of a byte from the highest; zlib's from the lowest.
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class AudioError(Exception):
    """These bytes are not a recording that can be decoded; `reason` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Audio:
    """A decoded recording: `samples` is (num_samples, num_channels) float32 in [-1, 1]."""

    samples: NDArray[np.float32]
    sample_rate_hz: int
    # What the container's header says, where it says anything that decoding does not.
    promised_duration_s: float
    # False where the container has an end mark and it is missing: cut off, or never closed.
    has_end: bool

    @property
    def duration_s(self) -> float:
        """The decoded length in seconds."""
        return len(self.samples) / self.sample_rate_hz


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read once from its start to its end.

    Where `seekable`, soundfile seeks after every read to where it is already: lossy decoders pay
    for that, and it fails on a FLAC stream that does not say how long it is.
    """

    def seekable(self) -> bool:
        return False


@dataclass(frozen=True)
class Recording:
    """An open recording: what its container says, and its samples block by block.

    `promised_duration_s` is None where the container leaves it open; for `has_end` see `Audio`.
    """

    sample_rate_hz: int
    num_channels: int
    promised_duration_s: float | None
    has_end: bool
    # The samples are stored as 16-bit integers, and are read fastest as such.
    is_int16: bool
    _file: Any

    def blocks(self, dtype: Literal["int16", "float32"]) -> Iterator[NDArray[Any]]:
        """Decodes to the end, a bounded number of samples at a time, whatever the header says.

        Yields:
            (num_samples, num_channels) of `dtype`; at least one block, which may be empty.
        """
        most = _BLOCK_SAMPLES // self.num_channels
        left = self._file.frames
        while True:
            num_frames = min(most, left)
            block = self._file.read(num_frames, dtype=dtype, always_2d=True)
            yield block
            left -= num_frames
            if len(block) < num_frames or not left:
                return


@contextmanager
def open_recording(content: bytes) -> Iterator[Recording]:
    """Opens a whole file of WAV, FLAC, OGG (Vorbis, Opus) or MP3.

    Raises:
        AudioError: `empty_file`, `not_audio`, `truncated` or `damaged`, with the detail; from the
            block too, if decoding fails there.
    """
    if not content:
        raise AudioError("empty_file", "the file has 0 bytes")
    # First, because libsndfile skips damaged pages and plays what is left without a word.
    has_end = _check_ogg(content) if content.startswith(b"OggS") else True
    try:
        with _Stream(io.BytesIO(content)) as file:
            promised = file.frames / file.samplerate if file.frames < _UNKNOWN_FRAMES else None
            if content.startswith((b"RIFF", b"RF64")):
                promised = _promised_by_wav(content)
            elif file.format == "MP3":
                promised = _promised_by_mp3(content) or promised
            yield Recording(
                sample_rate_hz=file.samplerate,
                num_channels=file.channels,
                promised_duration_s=promised,
                has_end=has_end,
                is_int16=file.subtype == "PCM_16",
                _file=file,
            )
    except soundfile.LibsndfileError as error:
        if content.startswith(_MAGIC):
            raise AudioError("damaged", f"the decoder says: {error.error_string}") from None
        start = content[:16].decode("ascii", "backslashreplace")
        raise AudioError("not_audio", f"no known audio format; starts with {start!r}") from None


def decode(content: bytes) -> Audio:
    """Decodes a whole file of WAV, FLAC, OGG (Vorbis, Opus) or MP3.

    Raises:
        AudioError: `empty_file`, `not_audio`, `truncated` or `damaged`, with the detail.
    """
    with open_recording(content) as recording:
        blocks = list(recording.blocks("float32"))
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    promised = recording.promised_duration_s
    if promised is None:
        promised = len(samples) / recording.sample_rate_hz
    return Audio(samples, recording.sample_rate_hz, promised, recording.has_end)


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 of an Ogg page whose checksum field is zero (RFC 3533, section 6)."""
    # zlib starts from all ones and inverts the result; both are undone here.
    reversed_crc = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reversed_crc:032b}"[::-1], 2)


def _check_ogg(content: bytes) -> bool:
    """Walks the pages, and tells whether the last one ends the stream (RFC 3533, section 6)."""
    position = number = 0
    ended = False
    while position < len(content):
        if content[position : position + 4] != b"OggS":
            raise AudioError("damaged", f"no Ogg page where page {number} should begin")
        head = content[position : position + _OGG_HEADER.size]
        if len(head) < _OGG_HEADER.size:
            raise AudioError("truncated", f"the file ends inside the head of Ogg page {number}")
        *_, flags, _, _, _, checksum, num_segments = _OGG_HEADER.unpack(head)
        body = position + _OGG_HEADER.size + num_segments
        end = body + sum(content[position + _OGG_HEADER.size : body])
        if end > len(content):
            raise AudioError(
                "truncated", f"Ogg page {number} needs {end - len(content)} bytes more"
            )
        page = content[position : position + 22] + bytes(4) + content[position + 26 : end]
        if _ogg_checksum(page) != checksum:
            raise AudioError("damaged", f"Ogg page {number} fails its checksum")
        ended = bool(flags & _OGG_END_OF_STREAM)
        position, number = end, number + 1
    return ended


def _promised_by_wav(content: bytes) -> float | None:
    """The duration that the `data` chunk's size promises; libsndfile believes the file's size.

    Returns:
        None where the header leaves it open, or makes no sense.
    """
    position, bytes_per_s, size_64 = 12, 0, 0
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        body = position + 8
        if name == b"fmt " and body + 14 <= len(content):
            tag, _, rate_hz, bytes_per_s, bytes_per_frame = struct.unpack_from(
                "<HHIIH", content, body
            )
            if tag in _WAV_UNCOMPRESSED:
                # Some writers get the other field wrong, which nobody needs for these.
                bytes_per_s = rate_hz * bytes_per_frame
        if name == b"ds64" and body + 16 <= len(content):
            size_64 = struct.unpack_from("<Q", content, body + 8)[0]
        if name == b"data":
            if content.startswith(b"RF64") and size == _WAV_SIZE_ELSEWHERE:
                size = size_64
            elif size >= _WAV_SIZE_UNKNOWN:
                return None
            return size / bytes_per_s if bytes_per_s else None
        position = body + size + size % 2
    return None


def _mp3_frame(content: bytes, position: int) -> tuple[int, float] | None:
    """The bytes and the seconds of the frame of layer III at `position`, if it is whole."""
    head = content[position : position + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, bitrate, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return None
    is_mpeg_1 = version == 3
    rate_hz = _MP3_RATES_HZ[rate] >> (0 if is_mpeg_1 else 1 if version == 2 else 2)
    num_samples = 1152 if is_mpeg_1 else 576
    bits_per_s = 1000 * (_MPEG_1_KBPS if is_mpeg_1 else _MPEG_2_KBPS)[bitrate - 1]
    length = num_samples // 8 * bits_per_s // rate_hz + (head[2] >> 1 & 1)
    return (length, num_samples / rate_hz) if position + length <= len(content) else None


def _promised_by_mp3(content: bytes) -> float | None:
    """The duration of the frames of an MP3 that does not say how long it is.

    libsndfile takes the bit rate of the first frame for that of all, and stops where it then
    expects the end: of a file with a varying bit rate it leaves out a part without a word.

    Returns:
        None where the file says it, or where something else stands between the frames.
    """
    position = 0
    if content.startswith(b"ID3") and len(content) >= 10:
        # Seven bits of each byte count.
        position = 10 + sum(byte << 7 * (3 - n) for n, byte in enumerate(content[6:10]))
    if any(tag in content[position : position + 64] for tag in (b"Xing", b"Info", b"VBRI")):
        return None
    duration_s = 0.0
    while frame := _mp3_frame(content, position):
        position += frame[0]
        duration_s += frame[1]
    is_whole = position == len(content) or content.startswith((b"TAG", b"APETAGEX"), position)
    return duration_s if is_whole else None


def to_mono_16k(audio: Audio) -> NDArray[np.float32]:
    """Returns (num_samples,) float32 at 16 kHz: the mean of the channels, resampled by soxr."""
    mono = audio.samples.mean(axis=1)
    if audio.sample_rate_hz != SAMPLE_RATE_HZ:
        import soxr

        mono = soxr.resample(mono, audio.sample_rate_hz, SAMPLE_RATE_HZ)
    return np.ascontiguousarray(mono, dtype=np.float32)
