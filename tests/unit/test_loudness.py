"""Integrated loudness: what the standard says of it, and a slow oracle."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter
from world import encode_audio

from brewline.quality.loudness import LoudnessMeter
from brewline.quality.recording_facts import read_recording_facts

# ITU-R BS.1770-4, annex 1, tables 1 and 2: the filters at 48 kHz.
SHELF = ([1.53512485958697, -2.69169618940638, 1.19839281085285],
         [1.0, -1.69065929318241, 0.73248077421585])  # fmt: skip
HIGH_PASS = ([1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621])


def loudness(samples: NDArray[np.float64], rate_hz: int = 48_000, cuts: int = 1) -> float | None:
    """Of (num_samples, num_channels), which come in so many blocks."""
    meter = LoudnessMeter(rate_hz, samples.shape[1])
    for block in np.array_split(samples.astype(np.float32), cuts):
        meter.add(block)
    return meter.integrated_lufs()


def sine(level_dbfs: float, seconds: float = 5.0, rate_hz: int = 48_000) -> NDArray[np.float64]:
    """997 Hz in one channel."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * 997 * time_s)[:, None]


def slow_loudness(channel: NDArray[np.float64]) -> float:
    """The standard word by word, of one channel at 48 kHz."""
    weighted = lfilter(*HIGH_PASS, lfilter(*SHELF, channel))
    blocks = [
        np.mean(weighted[start : start + 19_200] ** 2)
        for start in range(0, len(weighted) - 19_200 + 1, 4_800)
    ]
    levels = [-0.691 + 10 * np.log10(block) for block in blocks]
    loud = [block for block, level in zip(blocks, levels, strict=True) if level > -70]
    gate = -0.691 + 10 * np.log10(np.mean(loud)) - 10
    kept = [
        block for block, level in zip(blocks, levels, strict=True) if level > -70 and level > gate
    ]
    return float(-0.691 + 10 * np.log10(np.mean(kept)))


def test_a_sine_at_full_scale_in_one_channel() -> None:
    assert loudness(sine(0.0)) == pytest.approx(-3.01, abs=0.005)
    nothing = np.zeros_like(sine(0.0))
    assert loudness(np.hstack([nothing, sine(0.0)])) == pytest.approx(-3.01, abs=0.005)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_the_first_signals_of_ebu_tech_3341(rate_hz: int) -> None:
    # Two channels of the level have the loudness, to a tenth.
    for level in (-23.0, -33.0):
        stereo = np.repeat(sine(level, 20.0, rate_hz), 2, axis=1)
        assert loudness(stereo, rate_hz) == pytest.approx(level, abs=0.1)


def test_both_gates_leave_out_what_is_quiet() -> None:
    # Cases 3 and 4 of the same paper: the quiet parts do not count.
    def levels(*parts: tuple[float, float]) -> NDArray[np.float64]:
        return np.repeat(np.concatenate([sine(level, s) for level, s in parts]), 2, axis=1)

    assert loudness(levels((-36, 10), (-23, 60), (-36, 10))) == pytest.approx(-23.0, abs=0.1)
    assert loudness(levels((-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10))) == pytest.approx(
        -23.0, abs=0.1
    )


def test_what_is_behind_counts_more_and_the_bass_of_5_1_not() -> None:
    six = np.zeros((5 * 48_000, 6))
    for channel, expected in ((0, -3.01), (2, -3.01), (3, None), (4, -1.52), (5, -1.52)):
        one = six.copy()
        one[:, channel] = sine(0.0)[:, 0]
        found = loudness(one)
        assert found == (expected if expected is None else pytest.approx(expected, abs=0.01))


@pytest.mark.parametrize("num_samples", [19_200, 65_536, 65_537, 200_003])
@pytest.mark.parametrize("cuts", [1, 2, 7])
def test_against_the_standard_word_by_word(num_samples: int, cuts: int) -> None:
    rng = np.random.default_rng(num_samples)
    swell = np.repeat(10 ** rng.uniform(-3.5, 0, num_samples // 4_800 + 1), 4_800)[:num_samples]
    # The offset is what the high pass is for, and what float32 bears badly.
    channel = 0.3 + 0.1 * swell * rng.normal(size=num_samples)
    assert loudness(channel[:, None], cuts=cuts) == pytest.approx(slow_loudness(channel), abs=1e-3)


def test_what_has_no_loudness() -> None:
    assert loudness(sine(0.0, 0.3999)) is None
    assert loudness(sine(0.0, 0.4)) is not None
    assert loudness(sine(-75.0)) is None
    assert loudness(np.zeros((48_000, 2))) is None
    assert loudness(np.zeros((0, 1))) is None
    # What the shelf raises is above what such a rate holds.
    assert loudness(sine(0.0, 5.0, 3_000), 3_000) is None


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_the_fact_of_a_file(subtype: str) -> None:
    samples = np.repeat(sine(-23.0), 2, axis=1)
    facts = read_recording_facts(encode_audio(samples, "WAV", subtype, rate=48_000))
    assert facts.loudness_lufs == pytest.approx(-23.0, abs=0.05)
    broken = samples.copy()
    broken[1000] = np.nan
    facts = read_recording_facts(encode_audio(broken, "WAV", "FLOAT", rate=48_000))
    assert facts.loudness_lufs == pytest.approx(-23.0, abs=0.05)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_samples_beyond_all_measure_are_no_crash() -> None:
    samples = np.full((48_000, 1), 3e38, np.float32) * np.sign(sine(0.0, 1.0))
    facts = read_recording_facts(encode_audio(samples, "WAV", "FLOAT", rate=48_000))
    assert facts.loudness_lufs is None or facts.loudness_lufs > 100


@pytest.mark.parametrize("rate_hz", [8, 3_000, 1_000_001, 100_000_000, 2**31 - 1])
def test_at_a_rate_that_no_recording_has_there_is_none(rate_hz: int) -> None:
    """A damaged header claims any."""
    assert loudness(sine(0.0), rate_hz) is None
