"""Logistic regression of hits on one number, of many samples at a time.

A query hits or misses, and the log-odds of a hit are `intercept + slope * value`. Unpenalised: the
slope is the one of the largest likelihood. Pure functions of arrays. Suffixes: S samples, X
different values.
"""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

# Where one value parts hits from misses the slope has no end. It is a number all the same, so that
# means and orders of samples can be taken; `has_end` tells.
_ENDLESS = 1e12
# Odds that change e^100 times over ten points are as good as that.
_LONGEST = 1e3
_MAX_STEPS = 100
# Log-odds that one step may change, so that it does not shoot over.
_LONGEST_STEP = 3.0
_CONVERGED = 1e-9


def fit_logistic(
    hits_SX: Numbers, counts_SX: Numbers, values_X: Numbers
) -> tuple[Numbers, Numbers]:
    """Fits every sample by Newton's method.

    Args:
        hits_SX: How many queries of each value hit.
        counts_SX: How many there are; at least as many.
        values_X: The values, rising, from 0 to 1.

    Returns:
        Intercepts and slopes, (S,) each. Of a sample that one value parts the slope has no end, and
        there is no intercept; both are NaN where nothing can be said: nobody or everybody hits, or
        all have one value.
    """
    misses_SX = counts_SX - hits_SX
    # The range of values among hits and among misses.
    lowest_hit, highest_hit = _range(hits_SX, values_X)
    lowest_miss, highest_miss = _range(misses_SX, values_X)
    says_something = np.isfinite(lowest_hit) & np.isfinite(lowest_miss)
    falls, rises = highest_hit <= lowest_miss, highest_miss <= lowest_hit
    intercepts, slopes = np.full((2, len(hits_SX)), np.nan)
    slopes[says_something & falls & ~rises] = -_ENDLESS
    slopes[says_something & rises & ~falls] = _ENDLESS
    fitted = says_something & ~falls & ~rises
    intercepts[fitted], slopes[fitted] = _newton(hits_SX[fitted], counts_SX[fitted], values_X)
    return intercepts, slopes


def has_end(slopes: Numbers) -> NDArray[np.bool_]:
    """Whether slopes, means or differences of them are numbers and not without an end."""
    ended: NDArray[np.bool_] = np.abs(slopes) < _LONGEST
    return ended


def _range(weights_SX: Numbers, values_X: Numbers) -> tuple[Numbers, Numbers]:
    """The lowest and the highest value that has a weight; infinite where none has."""
    has_SX = weights_SX > 0
    lowest: Numbers = np.where(has_SX, values_X, np.inf).min(axis=1)
    highest: Numbers = np.where(has_SX, values_X, -np.inf).max(axis=1)
    return lowest, highest


def _newton(hits_SX: Numbers, counts_SX: Numbers, values_X: Numbers) -> tuple[Numbers, Numbers]:
    intercept_S, slope_S = np.zeros((2, len(hits_SX)))
    most = max(1.0, float(np.abs(values_X).max(initial=0)))
    for _ in range(_MAX_STEPS):
        odds_SX = intercept_S[:, None] + slope_S[:, None] * values_X
        share_SX = 1 / (1 + np.exp(-odds_SX))
        error_SX = hits_SX - counts_SX * share_SX
        weight_SX = counts_SX * share_SX * (1 - share_SX)
        first, second = error_SX.sum(axis=1), error_SX @ values_X
        a, b, c = (weight_SX @ values_X**power for power in (0, 1, 2))
        # The inverse of the two by two matrix of second derivatives, times the gradient.
        determinant = a * c - b * b
        steps = np.array([c * first - b * second, a * second - b * first]) / determinant
        longest = np.abs(steps[0]) + most * np.abs(steps[1])
        steps *= np.minimum(1, _LONGEST_STEP / np.maximum(longest, _LONGEST_STEP))
        intercept_S += steps[0]
        slope_S += steps[1]
        if (longest < _CONVERGED).all():
            break
    return intercept_S, slope_S
