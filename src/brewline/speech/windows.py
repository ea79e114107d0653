"""Recordings of any length, cut into windows that Whisper's encoder can see."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from brewline.media.audio import SAMPLE_RATE_HZ

# Whisper's encoder halves the rate of a mel spectrogram with a hop of 10 ms.
FRAMES_PER_SECOND = 50
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAMES_PER_SECOND
# What published models see at once.
WINDOW_S = 30
# A long recording is cut where it is quietest within this time before the window is full.
CUT_SEARCH_S = 5
_CUT_BLOCK_S = 0.1


def split_windows(waveform: NDArray[np.float32], max_samples: int) -> Iterator[NDArray[np.float32]]:
    """Cuts a waveform into windows of at most `max_samples`, at the quietest places.

    Nothing is left out: the windows joined are the waveform.
    """
    block = round(_CUT_BLOCK_S * SAMPLE_RATE_HZ)
    while len(waveform) > max_samples:
        search = waveform[max(0, max_samples - CUT_SEARCH_S * SAMPLE_RATE_HZ) : max_samples]
        usable = len(search) // block * block
        energy = np.square(search[:usable]).reshape(-1, block).sum(axis=1)
        start = max_samples - len(search)
        cut = start + int(energy.argmin()) * block + block // 2
        # Between two frames, so that the windows have as many as the whole.
        cut -= cut % SAMPLES_PER_FRAME
        yield waveform[:cut]
        waveform = waveform[cut:]
    yield waveform


def fewest_windows(duration_s: float) -> int:
    """How many windows of Whisper's 30 s a recording takes, if it can be cut where it likes."""
    return max(1, math.ceil(duration_s / WINDOW_S))


def num_frames(num_samples: int) -> int:
    """The encoder frames that a window's own samples take; the rest of its window is padding."""
    return -(-num_samples // SAMPLES_PER_FRAME)
