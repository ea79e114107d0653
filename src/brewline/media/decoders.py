"""The two decoders: libsndfile for what it reads well, PyAV (FFmpeg) for everything else.

Samples that lie in a file as they are need neither.
"""

import io
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any, Literal, Protocol

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from brewline.media.recording import AudioError, Samples, Sound

SampleType = Literal["int16", "float32"]

# Decoded at a time: 17 minutes of mono at 16 kHz, 64 MiB as float32.
_BLOCK_SAMPLES = 1 << 24
# What may follow all that was promised is looked for in smaller steps: most often it is nothing.
_REST_SAMPLES = 1 << 14
# A FLAC stream need not say how long it is; libsndfile then says 2**63 - 1.
_UNKNOWN_FRAMES = 1 << 62
# How FFmpeg stores samples, by the name of its format, and full scale of integers; `u8` is about
# 128.
_DTYPES = {
    "u8": "uint8",
    "s16": "int16",
    "s32": "int32",
    "s64": "int64",
    "flt": "float32",
    "dbl": "float64",
}
_FULL_SCALE = {"s16": 1 << 15, "s32": 1 << 31, "s64": 1 << 63, "u8": 1 << 7}
# These hold their duration; that of others is an estimate.
_SAY_DURATION = ("mov", "matroska", "flv")
# In these a time that is left out was lost; in others times are estimates too.
_EXACT_TIMES = ("mov", "matroska")


class Stream(Protocol):
    """A sound that is being decoded.

    `promised_duration_s` is None where the container leaves it open, and final once all blocks
    were decoded.
    """

    sample_rate_hz: int
    num_channels: int
    # The samples are stored as 16-bit integers, and are read fastest as such.
    is_int16: bool

    @property
    def promised_duration_s(self) -> float | None: ...

    def blocks(self, dtype: SampleType) -> Iterator[NDArray[Any]]:
        """Decodes to the end, a bounded number of samples at a time, whatever the header says.

        Yields:
            (num_samples, num_channels) of `dtype`; at least one block, which may be empty.
        """

    def close(self) -> None: ...


def open_stream(sound: Sound) -> Stream:
    """Opens a sound.

    Raises:
        AudioError: `damaged`, `no_audio_track` or `unsupported_codec`.
    """
    if sound.samples:
        return _StoredSamples(sound, sound.samples)
    if not sound.by_libsndfile:
        return _AvStream(sound)
    try:
        return _SoundFileStream(sound)
    except soundfile.LibsndfileError as error:
        if sound.share > 1:
            raise AudioError(
                "truncated", "the file promises more bytes of sound than it has"
            ) from None
        # A codec that it does not know, or a head that it does not bear.
        with suppress(AudioError):
            return _AvStream(sound)
        raise AudioError("damaged", f"the decoder says: {error.error_string}") from None


class _StoredSamples:
    is_int16 = True

    def __init__(self, sound: Sound, samples: Samples) -> None:
        # The file may be found to be over before the samples that its header counts.
        content = memoryview(sound.content)[samples.start :]
        self._num_frames = min(samples.num_frames, len(content) // (2 * samples.num_channels))
        self._content = content
        self.sample_rate_hz, self.num_channels = samples.sample_rate_hz, samples.num_channels
        self.promised_duration_s = self._num_frames / samples.sample_rate_hz * sound.share

    def blocks(self, dtype: SampleType) -> Iterator[NDArray[Any]]:
        channels, left = self.num_channels, self._num_frames * self.num_channels
        array = np.frombuffer(self._content[: 2 * left], "<i2")
        most = _BLOCK_SAMPLES // channels * channels
        for start in range(0, max(left, 1), most):
            block = array[start : start + most].reshape(-1, channels)
            yield block if dtype == "int16" else _converted(block, "s16", dtype)

    def close(self) -> None:
        pass


class _ReadOnce(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read once from its start to its end.

    Where `seekable`, soundfile seeks after every read to where it is already: lossy decoders pay
    for that, and it fails on a FLAC stream that does not say how long it is.
    """

    def seekable(self) -> bool:
        return False


class _SoundFileStream:
    def __init__(self, sound: Sound) -> None:
        self._file = _ReadOnce(io.BytesIO(sound.content))
        self.sample_rate_hz: int = self._file.samplerate
        self.num_channels: int = self._file.channels
        self.is_int16 = self._file.subtype == "PCM_16"
        frames = self._file.frames
        self._promised_s = sound.promised_s
        if self._promised_s is None and frames < _UNKNOWN_FRAMES and not sound.is_open:
            self._promised_s = frames / self.sample_rate_hz * sound.share

    @property
    def promised_duration_s(self) -> float | None:
        return self._promised_s

    def blocks(self, dtype: SampleType) -> Iterator[NDArray[Any]]:
        most = _BLOCK_SAMPLES // self.num_channels
        left = self._file.frames
        promised = round((self._promised_s or 0) * self.sample_rate_hz)
        # Of an open stream first what is promised, and then whatever else there is.
        expected = promised if left >= _UNKNOWN_FRAMES else left
        beyond = _REST_SAMPLES // self.num_channels if expected else most
        num_decoded = 0
        while True:
            due = expected - num_decoded if expected > num_decoded else beyond
            num_frames = min(most, left, due)
            try:
                block = self._file.read(num_frames, dtype=dtype, always_2d=True)
            except soundfile.LibsndfileError as error:
                if expected and num_decoded == expected:
                    # All that was promised is there: what follows is no sound, but a tag.
                    return
                raise AudioError("damaged", f"the decoder says: {error.error_string}") from None
            yield block
            num_decoded += len(block)
            left -= num_frames
            if len(block) < num_frames or not left:
                return

    def close(self) -> None:
        self._file.close()


class _AvStream:
    """The sound track of a container; what decoding finds out completes what it promises."""

    def __init__(self, sound: Sound) -> None:
        self._sound = sound
        try:
            self._container = av.open(
                io.BytesIO(sound.content), "r", format=sound.demuxer, metadata_errors="ignore"
            )
        except Exception as error:  # noqa: BLE001 - PyAV raises whatever it stumbles over
            raise _damaged(error) from None
        self._duration_s = (self._container.duration or 0) / av.time_base
        self._num_samples = 0
        # Where each of its streams ends, in units of its own, and those units in seconds.
        self._ends: dict[int, int] = {}
        self._units_s: dict[int, float] = {}
        self._first: av.AudioFrame | None = None
        self._last: av.AudioFrame | None = None
        try:
            self._begin()
        except AudioError:
            self._container.close()
            raise

    def _begin(self) -> None:
        track = self._container.streams.best("audio")
        if track is None:
            raise AudioError("no_audio_track", "the file holds no sound")
        if not isinstance(track, av.AudioStream):
            raise AudioError("unsupported_codec", "nothing here decodes the codec of its sound")
        self._track_index = track.index
        frames = self._frames()
        first = next(frames, None)
        # The first frame knows better: AAC need not say that it doubles its rate.
        known = first or track.codec_context
        self.sample_rate_hz: int = known.sample_rate or 0
        self.num_channels: int = known.layout.nb_channels
        if not self.sample_rate_hz or not self.num_channels:
            raise AudioError("damaged", "no sound of it can be decoded")
        self.is_int16 = first is not None and first.format.name.startswith("s16")
        self._waiting = chain([] if first is None else [first], frames)

    def _frames(self) -> Iterator[av.AudioFrame]:
        # Python's fractions, in which PyAV gives times, cost more than decoding.
        says_duration = self._sound.demuxer in _SAY_DURATION
        track = self._track_index
        try:
            for packet in self._container.demux():
                if says_duration:
                    self._note_end(packet)
                if packet.stream_index != track:
                    continue
                for frame in packet.decode():
                    assert isinstance(frame, av.AudioFrame)
                    self._num_samples += frame.samples
                    self._first = self._first or frame
                    self._last = frame
                    yield frame
        except Exception as error:  # noqa: BLE001 - PyAV raises whatever it stumbles over
            raise _damaged(error) from None

    def _note_end(self, packet: "av.Packet[Any]") -> None:
        if packet.pts is None:
            return
        stream = packet.stream_index
        if stream not in self._units_s:
            self._units_s[stream] = float(packet.time_base)
        end = packet.pts + (packet.duration or 0)
        self._ends[stream] = max(end, self._ends.get(stream, 0))

    @property
    def promised_duration_s(self) -> float | None:
        decoded_s = self._num_samples / self.sample_rate_hz
        promised = [self._sound.promised_s or 0.0, decoded_s * self._sound.share]
        if self._duration_s and self._sound.demuxer in _SAY_DURATION:
            # Pictures may go on after the sound: something is missing where they do not either.
            ends_s = [end * self._units_s[stream] for stream, end in self._ends.items()]
            promised.append(decoded_s + max(self._duration_s - max(ends_s, default=0.0), 0.0))
        if self._sound.demuxer in _EXACT_TIMES and self._first and self._last:
            start, end = self._first.time, self._last.time
            if start is not None and end is not None:
                promised.append(end - start + self._last.samples / self.sample_rate_hz)
        return max(promised)

    def blocks(self, dtype: SampleType) -> Iterator[NDArray[Any]]:
        most = _BLOCK_SAMPLES // self.num_channels
        parts: list[NDArray[Any]] = [np.empty((0, self.num_channels), dtype)]
        num_samples = 0
        rate_hz, channels = self.sample_rate_hz, self.num_channels
        for frame in self._waiting:
            if frame.sample_rate != rate_hz or frame.layout.nb_channels != channels:
                check_same((frame.sample_rate, frame.layout.nb_channels), (rate_hz, channels))
            parts.append(_samples(frame, dtype, channels))
            num_samples += frame.samples
            if num_samples >= most:
                yield np.concatenate(parts)
                parts, num_samples = parts[:1], 0
        yield np.concatenate(parts)

    def close(self) -> None:
        self._container.close()


def check_same(found: tuple[int, int], expected: tuple[int, int]) -> None:
    """Compares rate and channels of a part of a recording with those of its beginning.

    Raises:
        AudioError: `mixed_formats`.
    """
    if found != expected:
        rate_hz, channels = found
        raise AudioError(
            "mixed_formats",
            f"it goes on with {rate_hz} Hz and {channels} channels after {expected[0]} Hz and "
            f"{expected[1]} channels",
        )


def _damaged(error: Exception) -> AudioError:
    # FFmpeg says that there is no memory where a damaged header asks for too much of it.
    if isinstance(error, MemoryError) and not isinstance(error, av.FFmpegError):
        raise error
    # Its own text names files, and lines of a log that other threads may have written.
    words = error.strerror if isinstance(error, av.FFmpegError) else None
    return AudioError("damaged", f"the decoder says: {words or type(error).__name__}")


def _samples(frame: av.AudioFrame, dtype: SampleType, channels: int) -> NDArray[Any]:
    """The samples of a frame, (num_samples, num_channels), of the type asked for."""
    name = frame.format.name
    kind = name.removesuffix("p")
    stored = np.dtype(_DTYPES[kind])
    planes: list[Any] = list(frame.planes)
    # PyAV's own arrays take several times as long to make.
    if kind == name:
        packed = np.frombuffer(planes[0], stored, frame.samples * channels)
        array: NDArray[Any] = packed.reshape(-1, channels)
    elif channels == 1:
        array = np.frombuffer(planes[0], stored, frame.samples)[:, None]
    else:
        rows = [np.frombuffer(plane, stored, frame.samples) for plane in planes]
        array = np.stack(rows, axis=1)
    return array if stored == dtype else _converted(array, kind, dtype)


def _converted(array: NDArray[Any], kind: str, dtype: SampleType) -> NDArray[Any]:
    floats: NDArray[Any] = array.astype(np.float32)
    if kind in _FULL_SCALE:
        floats = (floats - (128 if kind == "u8" else 0)) / _FULL_SCALE[kind]
    if dtype == "float32":
        return floats
    integers: NDArray[Any] = (floats * (1 << 15)).round().clip(-(1 << 15), (1 << 15) - 1)
    return integers.astype(np.int16)
