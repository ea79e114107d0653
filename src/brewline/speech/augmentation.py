"""Recordings changed a little, as BrewCLIP does when it learns emotions (its code; section 4.5).

Pure functions of waveforms (num_samples,) at 16 kHz.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from brewline.media.audio import SAMPLE_RATE_HZ
from brewline.samples.augmented import AUGMENTATIONS

Waveform = NDArray[np.float32]

# Of the peak, at most.
_NOISE = 0.035
# Four fifths of the speed.
_STRETCH = 0.8
_SEMITONES = 0.7
# Of the vocoder: 64 ms, a quarter of it further each time.
_WINDOW, _HOP = 1024, 256


def augmented(waveform: Waveform, seed: int) -> Iterator[Waveform]:
    """Every way in which a recording is changed, in the order of `AUGMENTATIONS`.

    Args:
        waveform: As it is.
        seed: Draws the noise.
    """
    ways = {
        "noise": lambda: add_noise(waveform, np.random.default_rng(seed)),
        "stretch": lambda: stretch(waveform, _STRETCH),
        "pitch": lambda: shift_pitch(waveform, _SEMITONES),
    }
    for name in AUGMENTATIONS:
        yield ways[name]()


def add_noise(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """White noise whose deviation is drawn between nothing and 3.5 % of the peak."""
    peak = float(np.abs(waveform).max(initial=0.0))
    noise = rng.standard_normal(len(waveform)) * (rng.uniform(0, _NOISE) * peak)
    return (waveform + noise).astype(np.float32)


def stretch(waveform: Waveform, rate: float) -> Waveform:
    """Changes the speed and keeps the pitch, by a phase vocoder (Flanagan and Golden, 1966).

    Args:
        waveform: Of any length.
        rate: 2 is twice as fast.

    Returns:
        (round(num_samples / rate),).
    """
    spectra = _spectra(waveform)
    places = np.arange(0, len(spectra) - 1, rate)
    before = places.astype(int)
    share = (places - before)[:, None]
    sizes = (1 - share) * np.abs(spectra[before]) + share * np.abs(spectra[before + 1])
    # From frame to frame each bin turns on as it does there.
    turns = np.angle(spectra[before + 1]) - np.angle(spectra[before])
    phases = np.angle(spectra[0]) + np.cumsum(np.vstack([np.zeros_like(turns[:1]), turns[:-1]]), 0)
    return _joined(sizes * np.exp(1j * phases), round(len(waveform) / rate))


def shift_pitch(waveform: Waveform, semitones: float) -> Waveform:
    """Changes the pitch and keeps the length: stretched, and played faster or slower."""
    import soxr

    ratio = 2 ** (semitones / 12)
    longer = stretch(waveform, 1 / ratio)
    played = soxr.resample(longer, SAMPLE_RATE_HZ * ratio, SAMPLE_RATE_HZ)[: len(waveform)]
    # Rounded, it may lack a sample.
    return np.pad(played, (0, len(waveform) - len(played)))


def _window() -> NDArray[np.float64]:
    # Periodic, so that the squares of windows that overlap add up to the same everywhere.
    return np.hanning(_WINDOW + 1)[:-1]


def _spectra(waveform: Waveform) -> NDArray[np.complex128]:
    """Spectra (T, B) of windows whose middles lie at multiples of the hop, and one behind them."""
    count = len(waveform) // _HOP + 2
    padded = np.zeros((count - 1) * _HOP + _WINDOW)
    padded[_WINDOW // 2 : _WINDOW // 2 + len(waveform)] = waveform
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    return np.fft.rfft(windows * _window(), axis=1)


def _joined(spectra: NDArray[np.complex128], num_samples: int) -> Waveform:
    """The waveform of overlapping spectra, with as many samples as are wanted."""
    window = _window()
    whole = np.zeros((len(spectra) - 1) * _HOP + _WINDOW + num_samples)
    weight = np.zeros_like(whole)
    for number, part in enumerate(np.fft.irfft(spectra, _WINDOW, axis=1)):
        place = slice(number * _HOP, number * _HOP + _WINDOW)
        whole[place] += part * window
        weight[place] += window**2
    start = _WINDOW // 2
    kept = slice(start, start + num_samples)
    return (whole[kept] / np.maximum(weight[kept], 1e-3)).astype(np.float32)
