"""Decode recordings by their content, whatever their suffix says, and bring them to 16 kHz mono.

A recording is heard whole, or it is said what is wrong with it. What a container promises is found
by walking it (`ogg`, `chunks`, `frames`, `multimedia`), and compared with what a decoder makes of
it (`decoders`). docs/guide.md has the table of formats.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brewline.media.chunks import chunk_sounds
from brewline.media.decoders import SampleType, Stream, check_same, open_stream
from brewline.media.frames import amr_sounds, frame_sounds
from brewline.media.multimedia import multimedia_sounds
from brewline.media.ogg import ogg_sounds
from brewline.media.recording import AudioError as AudioError
from brewline.media.recording import Sound, check_joined, size_of_id3

# Whisper's input (openai-whisper, whisper/audio.py): everything recognised is at this rate.
SAMPLE_RATE_HZ = 16_000

# A FLAC stream: its magic, and the head of the block that always comes first (RFC 9639, 8.1).
_FLAC_START = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")


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


class Recording:
    """An open recording: what its container says, and its samples block by block.

    A file may hold several sounds one after another, which are one recording.
    """

    def __init__(self, first: Stream, sounds: list[Sound]) -> None:
        self.sample_rate_hz = first.sample_rate_hz
        self.num_channels = first.num_channels
        # The samples are stored as 16-bit integers, and are read fastest as such.
        self.is_int16 = first.is_int16
        # For what it means see `Audio`.
        self.has_end = all(sound.has_end for sound in sounds)
        self._first, self._sounds = first, sounds
        self._promised_s: list[float | None] = []

    @property
    def promised_duration_s(self) -> float | None:
        """None where the container leaves it open; final once all blocks were decoded."""
        if len(self._sounds) == 1:
            return self._first.promised_duration_s
        known = [promised for promised in self._promised_s if promised is not None]
        return sum(known) if len(known) == len(self._sounds) else None

    def blocks(self, dtype: SampleType) -> Iterator[NDArray[Any]]:
        """Decodes to the end, a bounded number of samples at a time, whatever the header says.

        Yields:
            (num_samples, num_channels) of `dtype`; at least one block, which may be empty.

        Raises:
            AudioError: see `open_recording`; `mixed_formats`: a later sound has another rate, or
                other channels.
        """
        yield from self._heard(self._first, dtype)
        for sound in self._sounds[1:]:
            stream = open_stream(sound)
            try:
                check_same(
                    (stream.sample_rate_hz, stream.num_channels),
                    (self.sample_rate_hz, self.num_channels),
                )
                yield from self._heard(stream, dtype)
            finally:
                stream.close()

    def _heard(self, stream: Stream, dtype: SampleType) -> Iterator[NDArray[Any]]:
        num_samples = 0
        for block in stream.blocks(dtype):
            num_samples += len(block)
            yield block
        promised = stream.promised_duration_s
        self._promised_s.append(num_samples / self.sample_rate_hz if promised is None else promised)


@contextmanager
def open_recording(content: bytes) -> Iterator[Recording]:
    """Opens a whole file that holds sound: audio, or a video with a sound track.

    Raises:
        AudioError: `empty_file`, `not_audio`, `no_audio_track`, `unsupported_codec`, `truncated`
            or `damaged`, with the detail; from the block too, if decoding fails there.
    """
    if not content:
        raise AudioError("empty_file", "the file has 0 bytes")
    sounds = _find_sounds(content)
    first = open_stream(sounds[0])
    try:
        yield Recording(first, sounds)
    finally:
        first.close()


def _find_sounds(content: bytes) -> list[Sound]:
    """Tells the format by its first bytes, and walks it."""
    tag = size_of_id3(content)
    body = content[tag:] if tag else content
    if body.startswith(b"OggS"):
        return ogg_sounds(body)
    if body.startswith(b"fLaC"):
        return _flac_sounds(body)
    if body.startswith(b"#!AMR"):
        return amr_sounds(body)
    for find in (chunk_sounds, multimedia_sounds, frame_sounds):
        sounds = find(body)
        if sounds:
            return sounds
    if tag:
        raise AudioError("damaged", "no MP3 frames follow its tag")
    start = content[:16].decode("ascii", "backslashreplace")
    raise AudioError("not_audio", f"no known audio format; starts with {start!r}")


def _flac_sounds(content: bytes) -> list[Sound]:
    """The sounds of FLAC streams that follow each other (RFC 9639)."""
    starts = [0]
    for later in _FLAC_START.finditer(content, 4):
        starts.append(later.start())
        check_joined(len(starts))
    whole, sounds = memoryview(content), []
    for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
        head = bytearray(whole[start : min(start + 26, end)])
        # STREAMINFO: 20 bits of sample rate, and, after 8 others, 36 of the number of samples.
        rate_hz = int.from_bytes(head[18:21], "big") >> 4
        num_samples = int.from_bytes(head[21:26], "big") & 0xF_FFFF_FFFF
        if len(head) == 26 and rate_hz:
            # libsndfile stops there; where it is 0, which is to say unknown, it goes on to the end.
            head[21] &= 0xF0
            head[22:26] = bytes(4)
        part = b"".join((head, whole[start + len(head) : end]))
        promised = num_samples / rate_hz if rate_hz and num_samples else None
        sounds.append(Sound(part, "flac", by_libsndfile=True, promised_s=promised, is_open=True))
    return sounds


def decode(content: bytes) -> Audio:
    """Decodes a whole file that holds sound.

    Raises:
        AudioError: see `open_recording` and `Recording.blocks`.
    """
    with open_recording(content) as recording:
        blocks = list(recording.blocks("float32"))
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    promised = recording.promised_duration_s
    if promised is None:
        promised = len(samples) / recording.sample_rate_hz
    return Audio(samples, recording.sample_rate_hz, promised, recording.has_end)


def to_mono_16k(audio: Audio) -> NDArray[np.float32]:
    """Returns (num_samples,) float32 at 16 kHz: the mean of the channels, resampled by soxr."""
    return to_16k(audio.samples.mean(axis=1), audio.sample_rate_hz)


def waveform(content: bytes) -> NDArray[np.float32]:
    """A whole file as Whisper hears it, (num_samples,) at 16 kHz.

    Raises:
        AudioError: see `decode`.
    """
    return to_mono_16k(decode(content))


def to_16k(mono: NDArray[np.float32], sample_rate_hz: int) -> NDArray[np.float32]:
    """Returns (num_samples,) resampled to 16 kHz by soxr."""
    if sample_rate_hz != SAMPLE_RATE_HZ:
        import soxr

        mono = soxr.resample(mono, sample_rate_hz, SAMPLE_RATE_HZ)
    return np.ascontiguousarray(mono, dtype=np.float32)
