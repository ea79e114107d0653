"""The two decoders: libsndfile for what it reads well, PyAV (FFmpeg) for everything else."""

import io
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any, Literal, Protocol

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from brewline.media.recording import AudioError, Sound

SampleType = Literal["int16", "float32"]

# Decoded at a time: 17 minutes of mono at 16 kHz, 64 MiB as float32.
_BLOCK_SAMPLES = 1 << 24
# A FLAC stream need not say how long it is; libsndfile then says 2**63 - 1.
_UNKNOWN_FRAMES = 1 << 62
# Full scale of FFmpeg's integers, by the name of the sample format; `u8` is about 128.
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
        num_decoded = 0
        while True:
            num_frames = min(most, left, expected - num_decoded if expected > num_decoded else most)
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
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - PyAV raises whatever it stumbles over
            raise _damaged(error) from None
        self._duration_s = (self._container.duration or 0) / av.time_base
        # Of all streams and of the samples, in seconds.
        self._last_s = 0.0
        self._first_sample_s: float | None = None
        self._last_sample_s = 0.0
        self._num_samples = 0
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
        try:
            for packet in self._container.demux():
                if packet.pts is not None and packet.time_base:
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base
                    self._last_s = max(self._last_s, float(end))
                if packet.stream_index == self._track_index:
                    for frame in packet.decode():
                        assert isinstance(frame, av.AudioFrame)
                        self._time(frame)
                        yield frame
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - PyAV raises whatever it stumbles over
            raise _damaged(error) from None

    def _time(self, frame: av.AudioFrame) -> None:
        self._num_samples += frame.samples
        if frame.pts is not None and frame.time_base:
            start_s = float(frame.pts * frame.time_base)
            self._last_sample_s = start_s + frame.samples / frame.sample_rate
            if self._first_sample_s is None:
                self._first_sample_s = start_s

    @property
    def promised_duration_s(self) -> float | None:
        decoded_s = self._num_samples / self.sample_rate_hz
        promised = [self._sound.promised_s or 0.0, decoded_s * self._sound.share]
        if self._duration_s and self._sound.demuxer in _SAY_DURATION:
            # Pictures may go on after the sound: something is missing where they do not either.
            missing_s = self._duration_s - self._last_s
            promised.append(decoded_s + max(missing_s, 0.0))
        if self._sound.demuxer in _EXACT_TIMES and self._first_sample_s is not None:
            promised.append(self._last_sample_s - self._first_sample_s)
        return max(promised)

    def blocks(self, dtype: SampleType) -> Iterator[NDArray[Any]]:
        most = _BLOCK_SAMPLES // self.num_channels
        parts: list[NDArray[Any]] = [np.empty((0, self.num_channels), dtype)]
        num_samples = 0
        for frame in self._waiting:
            check_same(
                (frame.sample_rate, frame.layout.nb_channels),
                (self.sample_rate_hz, self.num_channels),
            )
            parts.append(_samples(frame, dtype))
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
    # Its own text names files, and lines of a log that other threads may have written.
    words = error.strerror if isinstance(error, av.FFmpegError) else None
    return AudioError("damaged", f"the decoder says: {words or type(error).__name__}")


def _samples(frame: av.AudioFrame, dtype: SampleType) -> NDArray[Any]:
    """The samples of a frame, (num_samples, num_channels), of the type asked for."""
    array: NDArray[Any] = frame.to_ndarray()
    array = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
    if array.dtype == dtype:
        return array
    name = frame.format.name.removesuffix("p")
    floats: NDArray[Any] = array.astype(np.float32)
    if name in _FULL_SCALE:
        floats = (floats - (128 if name == "u8" else 0)) / _FULL_SCALE[name]
    if dtype == "float32":
        return floats
    integers: NDArray[np.int16] = (floats * (1 << 15)).round().clip(-(1 << 15), (1 << 15) - 1)
    return integers.astype(np.int16)
