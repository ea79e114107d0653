"""A recording in numbers, gathered in one pass over its samples."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brewline.media.audio import open_recording

# A sample this close to full scale is counted as clipped.
_CLIPPED = 0.999
_INT16_FULL_SCALE = 32_768


@dataclass(frozen=True, slots=True)
class Signal:
    """A recording in numbers; levels are shares of full scale, over all channels.

    `low`, `high`, `mean` and `num_clipped` are over the finite samples, and 0 where there are none.
    """

    duration_s: float
    promised_duration_s: float
    # False where the container has an end mark and it is missing: cut off, or never closed.
    has_end: bool
    sample_rate_hz: int
    num_channels: int
    num_samples: int
    num_non_finite: int
    num_clipped: int
    low: float
    high: float
    mean: float


@dataclass
class _Totals:
    """Sums and extremes over the blocks of a recording, in units of the samples' type."""

    full_scale: int
    num_samples: int = 0
    num_non_finite: int = 0
    num_clipped: int = 0
    total: float = 0.0
    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)

    def add(self, samples: NDArray[Any]) -> None:
        """Adds (num_samples,) of int16 or float32."""
        if not samples.size:
            return
        self.num_samples += samples.size
        low, high = samples.min(), samples.max()
        # A float that is not finite shows in one of the extremes, so that most files need no pass
        # to look for them, nor one to count what is clipped.
        if not (math.isfinite(low) and math.isfinite(high)):
            finite = samples[np.isfinite(samples)]
            self.num_non_finite += samples.size - finite.size
            self.num_samples -= finite.size
            self.add(finite)
            return
        clipped = _CLIPPED * self.full_scale
        if high >= clipped or low <= -clipped:
            self.num_clipped += int(np.count_nonzero((samples >= clipped) | (samples <= -clipped)))
        self.total += float(samples.sum(dtype=np.int64 if samples.dtype == np.int16 else float))
        self.lows.append(float(low))
        self.highs.append(float(high))


def read_signal(content: bytes) -> Signal:
    """Decodes a whole file to its end and sums it up; memory does not grow with its length.

    Raises:
        AudioError: it cannot be decoded; see `brewline.media.audio.open_recording`.
    """
    with open_recording(content) as recording:
        # 16-bit files without the detour over floats: reading them takes a quarter of the time.
        is_int16 = recording.is_int16
        totals = _Totals(_INT16_FULL_SCALE if is_int16 else 1)
        for block in recording.blocks("int16" if is_int16 else "float32"):
            totals.add(block.reshape(-1))
    num_frames = totals.num_samples // recording.num_channels
    duration_s = num_frames / recording.sample_rate_hz
    promised_s = recording.promised_duration_s
    scale = totals.full_scale
    return Signal(
        duration_s=duration_s,
        promised_duration_s=duration_s if promised_s is None else promised_s,
        has_end=recording.has_end,
        sample_rate_hz=recording.sample_rate_hz,
        num_channels=recording.num_channels,
        num_samples=totals.num_samples,
        num_non_finite=totals.num_non_finite,
        num_clipped=totals.num_clipped,
        low=min(totals.lows, default=0.0) / scale,
        high=max(totals.highs, default=0.0) / scale,
        mean=totals.total / max(totals.num_samples, 1) / scale,
    )
