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
# Shorter ones are within a word, as before the "t" of "cat".
_PAUSE_S = 0.2
# A longer one is a window of its own, but for what its neighbours keep of it. Each window costs the
# encoder its full length with `audio_context: full`, so shorter ones stay where they are.
_LONG_PAUSE_S = 3.0
_MARGIN_S = 0.4


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


def split_at_pauses(
    waveform: NDArray[np.float32],
    is_speech: NDArray[np.bool_],
    samples_per_decision: int,
    max_samples: int,
) -> Iterator[tuple[NDArray[np.float32], bool]]:
    """Cuts a waveform into windows of at most `max_samples`, in the middle of pauses.

    Long pauses are windows of their own. Nothing is left out: the windows joined are the waveform.

    Args:
        waveform: (num_samples,) at 16 kHz.
        is_speech: Whether somebody speaks in each part of it.
        samples_per_decision: Length of such a part.
        max_samples: Of a window, whole frames of the encoder.

    Yields:
        The window, and whether somebody speaks in it.
    """
    start = cut = 0
    for end, is_spoken in _pieces(_spans(is_speech, samples_per_decision), len(waveform)):
        # Between two frames, so that the windows have as many as the whole.
        stop = end if end == len(waveform) else end - end % SAMPLES_PER_FRAME
        if is_spoken and stop - start <= max_samples:
            cut = stop
            continue
        if start < cut:
            yield waveform[start:cut], True
            start = cut
        if is_spoken:
            # If it is too long even alone, it has no pause.
            *full, rest = split_windows(waveform[start:stop], max_samples)
            yield from ((window, True) for window in full)
            start = stop - len(rest)
        else:
            for first in range(start, stop, max_samples):
                yield waveform[first : min(first + max_samples, stop)], False
            start = stop
        cut = stop
    if start < cut:
        yield waveform[start:cut], True


def _spans(is_speech: NDArray[np.bool_], samples_per_decision: int) -> list[tuple[int, int]]:
    """Where somebody speaks without a pause: the samples from which on, and up to which."""
    edges = np.flatnonzero(np.diff(np.pad(is_speech.astype(np.int8), 1))) * samples_per_decision
    spans: list[tuple[int, int]] = []
    for begin, end in edges.reshape(-1, 2).tolist():
        if spans and begin - spans[-1][1] < _PAUSE_S * SAMPLE_RATE_HZ:
            begin = spans.pop()[0]
        spans.append((begin, end))
    return spans


def _pieces(spans: list[tuple[int, int]], num_samples: int) -> Iterator[tuple[int, bool]]:
    """Cuts a recording wherever it may be cut: the end of each piece, and whether it is spoken."""
    long, margin = round(_LONG_PAUSE_S * SAMPLE_RATE_HZ), round(_MARGIN_S * SAMPLE_RATE_HZ)
    # What is no speech: before, between and after. Of the last one the end may lie in a frame.
    edges = [0, *(edge for span in spans for edge in span), num_samples]
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        is_last = end == num_samples
        if end - begin >= long or not spans:
            if begin:
                yield begin + margin, True
            yield (end if is_last else end - margin), False
        elif is_last:
            yield end, True
        elif begin:
            yield (begin + end) // 2, True


def fewest_windows(duration_s: float) -> int:
    """How many windows of Whisper's 30 s a recording takes, if it can be cut where it likes."""
    return max(1, math.ceil(duration_s / WINDOW_S))


def num_frames(num_samples: int) -> int:
    """The encoder frames that a window's own samples take; the rest of its window is padding."""
    return -(-num_samples // SAMPLES_PER_FRAME)
