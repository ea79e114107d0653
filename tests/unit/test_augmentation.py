"""Recordings that are changed a little before emotions are learned from them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from brewline.samples.augmented import AUGMENTATIONS
from brewline.speech.augmentation import add_noise, augmented, shift_pitch, stretch

RATE_HZ = 16_000
# Neighbouring bins turn apart where a sound begins, which costs a vocoder some of it.
LOSS = 0.1


def tone(hertz: float, num_samples: int = RATE_HZ) -> NDArray[np.float32]:
    time_s = np.arange(num_samples) / RATE_HZ
    return (0.4 * np.sin(2 * np.pi * hertz * time_s)).astype(np.float32)


def pitch_of(waveform: NDArray[np.float32]) -> float:
    """The strongest frequency, in hertz."""
    sizes = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(sizes.argmax() * RATE_HZ / len(waveform))


def loudness_of(waveform: NDArray[np.float32]) -> float:
    """Of its middle, without what fades at the ends."""
    quarter = len(waveform) // 4
    return float(np.sqrt(np.mean(np.square(waveform[quarter:-quarter]))))


@pytest.mark.parametrize("rate", [0.8, 1.0, 1.25])
@pytest.mark.parametrize("hertz", [220.0, 1000.0])
def test_stretched_speech_keeps_its_pitch_and_loudness(hertz: float, rate: float) -> None:
    found = stretch(tone(hertz), rate)
    assert len(found) == round(RATE_HZ / rate) and found.dtype == np.float32
    assert pitch_of(found) == pytest.approx(hertz, abs=1.5)
    assert loudness_of(found) == pytest.approx(loudness_of(tone(hertz)), rel=LOSS)


def test_at_its_own_speed_nothing_changes() -> None:
    waveform = np.random.default_rng(0).normal(0, 0.1, 5000).astype(np.float32)
    # But for the last windows, behind which there is nothing to go on to.
    assert np.allclose(stretch(waveform, 1.0)[:4500], waveform[:4500], atol=1e-5)


@pytest.mark.parametrize("semitones", [0.7, -3.0])
def test_a_shifted_pitch_keeps_its_length(semitones: float) -> None:
    found = shift_pitch(tone(440), semitones)
    assert len(found) == RATE_HZ and found.dtype == np.float32
    assert pitch_of(found) == pytest.approx(440 * 2 ** (semitones / 12), abs=1.5)
    assert loudness_of(found) == pytest.approx(loudness_of(tone(440)), rel=LOSS)


def test_noise_is_at_most_a_thirtieth_of_the_peak() -> None:
    waveform = tone(300)
    shares = []
    for seed in range(40):
        noise = add_noise(waveform, np.random.default_rng(seed)) - waveform
        shares.append(noise.std() / np.abs(waveform).max())
    assert max(shares) < 0.036
    # Drawn evenly between nothing and that.
    assert min(shares) < 0.004 and np.mean(shares) == pytest.approx(0.035 / 2, abs=0.004)


@pytest.mark.parametrize("num_samples", [0, 1, 100, 1023, 20_001])
def test_every_recording_can_be_changed_and_is_in_the_same_way_again(num_samples: int) -> None:
    waveform = tone(200, num_samples)
    first, again = (list(augmented(waveform, 5)) for _ in range(2))
    assert len(first) == len(AUGMENTATIONS)
    noise, slow, high = first
    assert (len(noise), len(slow), len(high)) == (
        num_samples,
        round(num_samples / 0.8),
        num_samples,
    )
    assert all(np.isfinite(one).all() for one in first)
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    if num_samples > 1:
        assert not np.array_equal(noise, next(augmented(waveform, 6)))
