"""How loud people find a recording: integrated loudness after ITU-R BS.1770-4, in LUFS.

The sound is K-weighted (a shelf for the head, and a high pass), its power is taken in blocks of
400 ms that overlap by three quarters, and blocks that are quiet are left out twice: those below
-70 LUFS, and then those 10 LU below the mean of the rest.

A recursive filter goes from sample to sample, which takes longer than decoding a WAV. So it is
written as a linear system with a state of four numbers (Oppenheim and Schafer, "Discrete-Time
Signal Processing", chapter 6), whose outputs over many steps are products of matrices: over the
samples of a row; with their states as inputs, over the rows of a group; and over the groups of a
piece.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import sgemm, strmm

# Annex 1 has the coefficients at 48 kHz. These are the analogue filters behind them, from which
# those at other rates follow, as libebur128 has it (ebur128.c, `ebur128_init_filter`).
_MAX_RATE_HZ = 1_000_000
_SHELF_HZ, _SHELF_Q = 1681.974450955533, 0.7071752369554196
_SHELF_GAIN = 10 ** (3.999843853973347 / 20)
_SHELF_MIDDLE_GAIN = _SHELF_GAIN**0.4996667741545416
_PASS_HZ, _PASS_Q = 38.13547087602444, 0.5003270373238773
# With it a sine of 997 Hz at full scale in one channel has -3.01 LUFS.
_OFFSET_LU = -0.691
_ABSOLUTE_GATE_LUFS, _RELATIVE_GATE_LU = -70.0, -10.0
# A block is four steps of 100 ms.
_STEPS_PER_S, _STEPS_PER_BLOCK = 10, 4
# By the number of channels: what comes from behind is louder, and the bass of 5.1 is left out.
_WEIGHTS = {5: (1, 1, 1, 1.41, 1.41), 6: (1, 1, 1, 0, 1.41, 1.41)}

# Samples of a row, rows of a group, groups of a piece: the fastest of those tried.
_ROW, _GROUP, _PIECE = 64, 16, 64
_GROUP_SAMPLES = _ROW * _GROUP
_PIECE_SAMPLES = _GROUP_SAMPLES * _PIECE
# Of the filter: so many numbers are its state.
_ORDER = 4

Matrix = NDArray[Any]


_AT_REST = np.zeros((1, _ORDER), np.float32)
_NO_SAMPLES = np.zeros(0, np.float32)


class Frames:
    """Cuts samples that come in blocks into frames of one length."""

    def __init__(self, length: int) -> None:
        self._length = length
        # What does not fill a frame yet.
        self.rest: NDArray[Any] = _NO_SAMPLES

    def add(self, samples: NDArray[Any]) -> NDArray[Any]:
        """The frames, (num_frames, length), that (num_samples,) complete."""
        if self.rest.size:
            samples = np.concatenate([self.rest, samples])
        whole = samples.size - samples.size % self._length
        self.rest = samples[whole:]
        return samples[:whole].reshape(-1, self._length)


class LoudnessMeter:
    """Measures a recording that comes in blocks."""

    def __init__(self, sample_rate_hz: int, num_channels: int) -> None:
        weights = _WEIGHTS.get(num_channels, (1,) * num_channels)
        # A lower rate does not hold what the shelf raises; at one that is far above those of
        # recordings the filters cannot be told from none.
        is_defined = 2 * _SHELF_HZ < sample_rate_hz <= _MAX_RATE_HZ
        self._channels = {
            channel: (weight, _ChannelMeter(sample_rate_hz))
            for channel, weight in enumerate(weights)
            if weight and is_defined
        }

    def add(self, samples: NDArray[Any]) -> None:
        """Adds (num_samples, num_channels), all of them finite."""
        for channel, (_, meter) in self._channels.items():
            meter.add(samples[:, channel])

    def integrated_lufs(self, full_scale: float = 1.0) -> float | None:
        """The loudness of the whole, in LUFS.

        Args:
            full_scale: What full scale is in the units of the samples.

        Returns:
            None where no block of 400 ms is above -70 LUFS, or the rate is under 3.4 kHz.
        """
        channels = self._channels.values()
        steps = np.asarray(sum(weight * meter.finish() for weight, meter in channels))
        if steps.size < _STEPS_PER_BLOCK:
            return None
        # Sums, as NumPy's mean takes several times as long of so few.
        powers = sums_of_neighbours(steps, _STEPS_PER_BLOCK)
        powers /= _STEPS_PER_BLOCK * full_scale**2
        powers = powers[powers > _power(_ABSOLUTE_GATE_LUFS)]
        if not powers.size:
            return None
        # Never empty: the loudest block is above the mean.
        gated = powers[powers > powers.sum() / powers.size * 10 ** (_RELATIVE_GATE_LU / 10)]
        return float(_OFFSET_LU + 10 * np.log10(gated.sum() / gated.size))


def joined(parts: list[NDArray[Any]]) -> NDArray[np.float64]:
    """The parts of a series as one, (num_values,); most often there is one alone."""
    whole = parts[0] if len(parts) == 1 else np.concatenate([*parts, _NO_SAMPLES])
    return whole.astype(np.float64, copy=False)


def sums_of_neighbours(values: NDArray[Any], number: int) -> NDArray[Any]:
    """The sum of each value and the next ones, so many together: (num_values - number + 1,)."""
    # A convolution with ones, in a third of its time.
    last = values.size - number
    sums: NDArray[Any] = values[: last + 1].copy()
    for shift in range(1, number):
        sums += values[shift : last + shift + 1]
    return sums


def _power(loudness_lufs: float) -> float:
    power: float = 10 ** ((loudness_lufs - _OFFSET_LU) / 10)
    return power


class _ChannelMeter:
    """The power of a channel, K-weighted, in steps of 100 ms."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._levels = _levels(sample_rate_hz)
        # Of silence.
        self._state = _AT_REST
        self._pieces = Frames(_PIECE_SAMPLES)
        self._steps = Frames(round(sample_rate_hz / _STEPS_PER_S))
        self._powers: list[NDArray[Any]] = []

    def add(self, samples: NDArray[Any]) -> None:
        for piece in self._pieces.add(samples):
            self._add_weighted(self._weighted(piece))

    def finish(self) -> NDArray[np.float64]:
        """The mean square of every step."""
        rest = self._pieces.rest
        if rest.size:
            self._add_weighted(self._weighted(rest))
        return joined(self._powers)

    def _add_weighted(self, samples: NDArray[np.float32]) -> None:
        steps = self._steps.add(samples)
        self._powers.append(np.vecdot(steps, steps) / steps.shape[1])

    def _weighted(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """Filters (num_samples,), of at most one piece, and of one at least."""
        sample, row, group = self._levels
        # Silence fills up the last group.
        num_groups = -(-samples.size // _GROUP_SAMPLES)
        inputs = np.empty((num_groups * _GROUP, _ROW), np.float32)
        flat = inputs.reshape(-1)
        flat[: samples.size], flat[samples.size :] = samples, 0
        by_rows = (inputs @ sample.inputs_to_state).reshape(num_groups, -1)
        by_groups = (by_rows @ row.inputs_to_state).reshape(1, -1)
        # What rows and groups do to the state are the inputs of the levels above.
        size = by_groups.size
        at_groups = by_groups @ group.inputs_to_outputs[:size, :size]
        at_groups += self._state @ group.state_to_outputs[:, :size]
        at_groups = at_groups.reshape(num_groups, _ORDER)
        at_rows = by_rows @ row.inputs_to_outputs
        at_rows += at_groups @ row.state_to_outputs
        self._state = at_groups[-1:] @ row.state_to_state + by_groups[:, -_ORDER:]
        # No output depends on a later input, which spares half of the products: BLAS knows that of
        # a triangular matrix, and adds in place, where NumPy does neither. Its rows are columns.
        outputs = strmm(1, sample.inputs_to_outputs.T, inputs.T, lower=True, overwrite_b=True)
        states = at_rows.reshape(-1, _ORDER)
        outputs = sgemm(1, sample.state_to_outputs.T, states.T, 1, outputs, overwrite_c=True)
        weighted: NDArray[np.float32] = outputs.T.reshape(-1)[: samples.size]
        return weighted


class _Level(NamedTuple):
    """A linear system over a number of steps, whose inputs and outputs are in one row each."""

    inputs_to_outputs: Matrix
    state_to_outputs: Matrix
    inputs_to_state: Matrix
    state_to_state: Matrix


def _over_steps(system: tuple[Matrix, Matrix, Matrix, Matrix], num_steps: int) -> _Level:
    """The matrices of `s' = s A + x B, y = s C + x D`, for row vectors, over so many steps."""
    a, b, c, d = system
    num_inputs, num_outputs = d.shape
    powers = [np.eye(len(a))]
    for _ in range(num_steps):
        powers.append(powers[-1] @ a)
    through = np.zeros((num_steps, num_inputs, num_steps, num_outputs))
    for start in range(num_steps):
        through[start, :, start] = d
        for end in range(start + 1, num_steps):
            through[start, :, end] = b @ powers[end - start - 1] @ c
    return _Level(
        through.reshape(num_steps * num_inputs, num_steps * num_outputs).astype(np.float32),
        np.concatenate([power @ c for power in powers[:-1]], axis=1).astype(np.float32),
        np.concatenate([b @ power for power in powers[-2::-1]]).astype(np.float32),
        powers[-1].astype(np.float32),
    )


@cache
def _levels(sample_rate_hz: int) -> tuple[_Level, _Level, _Level]:
    """K-weighting over the samples of a row, the rows of a group, and the groups of a piece."""
    system = _balanced(_in_series(_shelf(sample_rate_hz), _high_pass(sample_rate_hz)))
    levels = [_over_steps(system, _ROW)]
    for num_steps, num_within in ((_GROUP, _ROW), (_PIECE, _ROW * _GROUP)):
        over = np.linalg.matrix_power(system[0], num_within)
        same, nothing = np.eye(_ORDER), np.zeros((_ORDER, _ORDER))
        levels.append(_over_steps((over, same, same, nothing), num_steps))
    return levels[0], levels[1], levels[2]


def _shelf(sample_rate_hz: int) -> tuple[Matrix, Matrix]:
    """The first filter: its numerator and denominator."""
    k = np.tan(np.pi * _SHELF_HZ / sample_rate_hz)
    middle = _SHELF_MIDDLE_GAIN * k / _SHELF_Q
    gain = _SHELF_GAIN
    numerator = np.array([gain + middle + k * k, 2 * (k * k - gain), gain - middle + k * k])
    denominator = np.array([1 + k / _SHELF_Q + k * k, 2 * (k * k - 1), 1 - k / _SHELF_Q + k * k])
    return numerator / denominator[0], denominator / denominator[0]


def _high_pass(sample_rate_hz: int) -> tuple[Matrix, Matrix]:
    """The second filter; its numerator is not normalised, in Annex 1 neither."""
    k = np.tan(np.pi * _PASS_HZ / sample_rate_hz)
    denominator = np.array([1 + k / _PASS_Q + k * k, 2 * (k * k - 1), 1 - k / _PASS_Q + k * k])
    return np.array([1.0, -2.0, 1.0]), denominator / denominator[0]


def _in_series(
    first: tuple[Matrix, Matrix], second: tuple[Matrix, Matrix]
) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Two biquads one after the other, as one system of row vectors; see `_over_steps`."""
    a1, b1, c1, d1 = _system(*first)
    a2, b2, c2, d2 = _system(*second)
    a = np.block([[a1, c1 @ b2], [np.zeros((2, 2)), a2]])
    return a, np.hstack([b1, d1 @ b2]), np.vstack([c1 @ d2, c2]), d1 @ d2


def _balanced(
    system: tuple[Matrix, Matrix, Matrix, Matrix],
) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """The same system with other states: white noise makes them alike, and independent.

    Those of a biquad are large differences of each other, for which float32 is too coarse.
    """
    a, b, c, d = system
    # The covariance of the states of white noise: w = a.T w a + b.T b, solved for w.
    w = np.linalg.solve(np.eye(a.size) - np.kron(a.T, a.T), (b.T @ b).reshape(-1)).reshape(a.shape)
    back = np.linalg.cholesky(w).T
    there = np.linalg.inv(back)
    return back @ a @ there, b @ there, back @ c, d


def _system(numerator: Matrix, denominator: Matrix) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """A biquad in the transposed direct form II."""
    a = np.array([[-denominator[1], -denominator[2]], [1.0, 0.0]])
    b = (numerator[1:] - denominator[1:] * numerator[0])[None]
    return a, b, np.array([[1.0], [0.0]]), numerator[:1, None]
