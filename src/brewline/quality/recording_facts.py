"""A recording in numbers, gathered in one pass over its samples."""

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brewline.media.audio import Recording, open_recording
from brewline.quality.loudness import Frames, LoudnessMeter, joined, sums_of_neighbours
from brewline.tables.facts import RecordingFacts, dbfs

# A sample this close to full scale is counted as clipped.
_CLIPPED = 0.999
_INT16_FULL_SCALE = 32_768
# Levels are taken of frames this long: a syllable has several, a click is over within one.
_FRAME_S = 0.02
# A burst is what sounds in this many frames in a row.
_BURST_FRAMES = 3
# Of the levels of frames: what a speaker reaches, and what is left in pauses.
_LOUD, _QUIET = 0.95, 0.1
# Looked at together: few enough to stay in the cache of a processor.
_PART_SAMPLES = 1 << 16


class RecordingMeter:
    """Listens to an open recording once, and sums it up; memory does not grow with its length."""

    def __init__(self, recording: Recording, most_kept: int = 0) -> None:
        """Begins.

        Args:
            recording: One of which nothing was decoded yet.
            most_kept: Of how many samples at most the mean of the channels is kept; see `mono`.
        """
        rate_hz, num_channels = recording.sample_rate_hz, recording.num_channels
        self._recording, self._most_kept = recording, most_kept
        # 16-bit files without the detour over floats: reading them takes a quarter of the time.
        self._blocks = recording.blocks("int16" if recording.is_int16 else "float32")
        # Sums and extremes are in units of the samples' type.
        self._full_scale = _INT16_FULL_SCALE if recording.is_int16 else 1
        self._loudness = LoudnessMeter(rate_hz, num_channels)
        self._frame_length = max(1, round(_FRAME_S * rate_hz))
        # Of the mean of the channels.
        self._frames = Frames(self._frame_length)
        self._powers: list[NDArray[Any]] = []
        self._kept: list[NDArray[np.float32]] = []
        # Of each channel, so far.
        self._num_frames = self._num_non_finite = self._num_clipped = 0
        self._low, self._high = math.inf, -math.inf
        self._energy = self._total = self._mono_peak = 0.0

    def listen(self) -> Iterator[int]:
        """Decodes what is left.

        Yields:
            How many samples of each channel were heard so far.

        Raises:
            AudioError: see `brewline.media.audio.Recording.blocks`.
        """
        length = max(1, _PART_SAMPLES // self._recording.num_channels)
        for block in self._blocks:
            self._num_frames += len(block)
            for start in range(0, len(block), length):
                self._add(block[start : start + length])
            yield self._num_frames

    def mono(self) -> NDArray[np.float32] | None:
        """The mean of the channels, (num_samples,), if no more than is kept; finite throughout."""
        if self._num_frames > self._most_kept:
            return None
        return np.concatenate([*self._kept, np.zeros(0, np.float32)])

    def facts(self, content: bytes) -> RecordingFacts:
        """Decodes what is left, and sums up the whole.

        Args:
            content: The file.

        Raises:
            AudioError: see `brewline.media.audio.Recording.blocks`.
        """
        for _ in self.listen():
            pass
        recording, scale, rest = self._recording, self._full_scale, self._frames.rest
        rate_hz, num_channels = recording.sample_rate_hz, recording.num_channels
        duration_s, promised_s = self._num_frames / rate_hz, recording.promised_duration_s
        num_samples = self._num_frames * num_channels
        num_finite = max(num_samples - self._num_non_finite, 1)
        is_finite = math.isfinite(self._low)
        low, high = (self._low / scale, self._high / scale) if is_finite else (0.0, 0.0)
        powers, total, left = joined(self._powers), self._total, 0.0
        if rest.size:
            # What fills no frame counts too.
            left = float(np.vecdot(rest, rest))
            total += float(rest.sum(dtype=np.float64))
        of_frames = float(powers.sum(dtype=np.float64))
        energy = of_frames * self._frame_length + left if num_channels == 1 else self._energy
        if not powers.size and rest.size:
            # A recording may be shorter than a frame.
            of_frames = left / rest.size
            powers = np.array([of_frames])
        loud, quiet, burst_share = _amplitudes(powers, of_frames)
        # All at once, as a call takes longer than what it does.
        amplitudes = np.array((loud, quiet, math.sqrt(energy / num_finite))) / scale
        level_dbfs, noise_dbfs, rms_dbfs = dbfs(amplitudes).tolist()
        # Of the levels of all frames: a hash of the samples would take as long as decoding them.
        form = (rate_hz, num_channels, num_samples, low, high, total / scale)
        heard = repr(form).encode() + (powers / scale**2).tobytes()
        return RecordingFacts(
            sha256=hashlib.sha256(content).hexdigest(),
            content=hashlib.sha256(heard).hexdigest()[:32],
            duration_s=duration_s,
            promised_duration_s=duration_s if promised_s is None else promised_s,
            has_end=recording.has_end,
            sample_rate_hz=rate_hz,
            num_channels=num_channels,
            num_samples=num_samples,
            num_non_finite=self._num_non_finite,
            num_clipped=self._num_clipped,
            low=low,
            high=high,
            mean=total * num_channels / num_finite / scale,
            rms_dbfs=rms_dbfs,
            mono_peak=self._mono_peak / scale if num_channels > 1 else max(high, -low),
            level_dbfs=level_dbfs,
            noise_dbfs=noise_dbfs,
            burst_share=burst_share,
            loudness_lufs=self._loudness.integrated_lufs(scale),
        )

    def _add(self, samples: NDArray[Any]) -> None:
        """Adds (num_samples, num_channels) of int16 or float32."""
        if not self._add_extremes(samples.reshape(-1)):
            samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
        self._loudness.add(samples)
        # Sums of integers are exact so, on every processor.
        exact = samples.astype(np.float64 if samples.dtype == np.int16 else np.float32, copy=False)
        num_channels = samples.shape[1]
        mono: NDArray[Any]
        if num_channels == 1:
            mono = exact.reshape(-1)
        else:
            flat = exact.reshape(-1).astype(np.float64, copy=False)
            self._energy += float(flat @ flat)
            # Along the short axis NumPy's mean takes several times as long.
            mono = np.asarray(sum(exact.T)) / exact.dtype.type(num_channels)
            self._mono_peak = max(self._mono_peak, float(mono.max()), -float(mono.min()))
        self._add_frames(self._frames.add(mono))
        if self._num_frames <= self._most_kept:
            self._kept.append(np.divide(mono, self._full_scale).astype(np.float32))

    def _add_extremes(self, samples: NDArray[Any]) -> bool:
        """Adds (num_samples,); returns whether all of them are finite."""
        low, high = float(samples.min()), float(samples.max())
        # A float that is not finite shows in one of the extremes, so that most files need no pass
        # to look for them, nor one to count what is clipped.
        if not (math.isfinite(low) and math.isfinite(high)):
            finite = samples[np.isfinite(samples)]
            self._num_non_finite += samples.size - finite.size
            if finite.size:
                self._add_extremes(finite)
            return False
        clipped = _CLIPPED * self._full_scale
        if high >= clipped or low <= -clipped:
            self._num_clipped += int(np.count_nonzero((samples >= clipped) | (samples <= -clipped)))
        self._low, self._high = min(self._low, low), max(self._high, high)
        return True

    def _add_frames(self, frames: NDArray[Any]) -> None:
        self._powers.append(np.vecdot(frames, frames) / self._frame_length)
        # A product with ones is several times as fast as a sum.
        sums = frames @ np.ones(self._frame_length, frames.dtype)
        self._total += float(sums.sum(dtype=np.float64))


def read_recording_facts(content: bytes) -> RecordingFacts:
    """Decodes a whole file to its end and sums it up.

    Raises:
        AudioError: it cannot be decoded; see `brewline.media.audio.open_recording`.
    """
    with open_recording(content) as recording:
        return RecordingMeter(recording).facts(content)


def _amplitudes(powers: NDArray[Any], total: float) -> tuple[float, float, float]:
    """The loud and the quiet amplitude of frames, and the share of the loudest burst.

    Args:
        powers: Of the frames.
        total: Their sum.
    """
    if not powers.size:
        return 0.0, 0.0, 0.0
    in_order = np.sort(powers)
    quiet, loud = (math.sqrt(in_order[int(share * (powers.size - 1))]) for share in (_QUIET, _LOUD))
    bursts = sums_of_neighbours(powers, min(_BURST_FRAMES, powers.size))
    return loud, quiet, float(bursts.max()) / total if total else 0.0
