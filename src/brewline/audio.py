"""Decode recordings by their content, whatever their suffix says, and bring them to 16 kHz mono."""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.typing import NDArray

# Whisper's input (openai-whisper, whisper/audio.py): everything recognised is at this rate.
SAMPLE_RATE_HZ = 16_000

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


def decode(content: bytes) -> Audio:
    """Decodes a whole file of WAV, FLAC, OGG (Vorbis, Opus) or MP3.

    Raises:
        AudioError: `empty_file`, `not_audio`, `truncated` or `damaged`, with the detail.
    """
    if not content:
        raise AudioError("empty_file", "the file has 0 bytes")
    # First, because libsndfile skips damaged pages and plays what is left without a word.
    has_end = _check_ogg(content) if content.startswith(b"OggS") else True
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            samples = file.read(dtype="float32", always_2d=True)
            sample_rate_hz, promised = file.samplerate, file.frames / file.samplerate
    except soundfile.LibsndfileError as error:
        if content.startswith((b"OggS", b"RIFF", b"fLaC", b"ID3")):
            raise AudioError("damaged", f"the decoder says: {error.error_string}") from None
        start = content[:16].decode("ascii", "backslashreplace")
        raise AudioError("not_audio", f"no known audio format; starts with {start!r}") from None
    if content.startswith(b"RIFF"):
        promised = _promised_by_wav(content, promised)
    return Audio(samples, sample_rate_hz, promised, has_end)


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


def _promised_by_wav(content: bytes, decoded_s: float) -> float:
    """The duration that the `data` chunk's size promises; libsndfile believes the file's size."""
    position = 12
    bytes_per_s = 0
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        if name == b"fmt " and size >= 12:
            bytes_per_s = struct.unpack_from("<I", content, position + 16)[0]
        if name == b"data":
            # Streaming writers leave the size open: all ones.
            known = bytes_per_s and size != 0xFFFFFFFF
            return size / bytes_per_s if known else decoded_s
        position += 8 + size + size % 2
    return decoded_s


def to_mono_16k(audio: Audio) -> NDArray[np.float32]:
    """Returns (num_samples,) float32 at 16 kHz: the mean of the channels, resampled by soxr."""
    mono = audio.samples.mean(axis=1)
    if audio.sample_rate_hz != SAMPLE_RATE_HZ:
        import soxr

        mono = soxr.resample(mono, audio.sample_rate_hz, SAMPLE_RATE_HZ)
    return np.ascontiguousarray(mono, dtype=np.float32)
