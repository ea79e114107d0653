"""A recording as a picture: how loud each frequency is at each time."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from brewline.media.audio import SAMPLE_RATE_HZ

# As Whisper's: windows of 25 ms, and what is 80 dB below the loudest is silence.
_WINDOW = SAMPLE_RATE_HZ // 40
_FLOOR = 8.0
# Above it speech has little.
_MAX_HZ = 4000


def spectrogram(waveform: NDArray[np.float32], num_columns: int) -> NDArray[np.float64]:
    """How loud each frequency is, from 0 (silence) to 1 (the loudest), low frequencies last.

    Args:
        waveform: Mono, at 16 kHz.
        num_columns: About so many columns come back; no more than the recording has windows.

    Returns:
        (frequencies, times), a row for each 40 Hz up to 4 kHz.
    """
    padded = np.pad(waveform, (0, max(0, _WINDOW - len(waveform))))
    step = max(1, (len(padded) - _WINDOW) // num_columns)
    windows = sliding_window_view(padded, _WINDOW)[::step] * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(windows))[:, : _MAX_HZ * _WINDOW // SAMPLE_RATE_HZ] ** 2
    levels = np.log10(np.maximum(power, 1e-10))
    loudest = levels.max()
    shares: NDArray[np.float64] = (np.maximum(levels, loudest - _FLOOR) - loudest) / _FLOOR + 1
    return shares.T[::-1]
