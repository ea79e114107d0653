"""How much of recall word errors cost each row of a table, and which rows make up for them.

Of each row: the odds of a hit over the word error rate of a recording (BrewCLIP, section 4.4), with
a rate for recordings of about one error rate beside them, since nothing says that odds are a line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brewline.analysis.logistic import Numbers, fit_logistic, has_end
from brewline.analysis.rates import RowRanks, recall_between
from brewline.evaluation.bootstrap import Bootstrap

# Upper ends of the error rates that are taken together.
_ENDS = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
_CURVE = np.linspace(0, 1, 21)
# Ten points of word error rate.
_TEN_POINTS = 0.1


@dataclass(frozen=True)
class HeardQueries:
    """Recordings of test with their word error rates, from 0 to 1, and the image of each.

    `num_without_caption` have none to be held against; of `num_beyond` it is over 1, which the
    paper leaves out: a transcript that repeats itself would outweigh all others.
    """

    wer_of: Mapping[str, float]
    image_of: Mapping[str, str]
    num_without_caption: int
    num_beyond: int

    @property
    def images(self) -> list[str]:
        """The image of each recording, in the order of the error rates."""
        return [self.image_of[name] for name in self.wer_of]


def select_queries(wer_of: Mapping[str, float], image_of: Mapping[str, str]) -> HeardQueries:
    """Takes the recordings whose word error rate is known, and 1 at most.

    Args:
        wer_of: By utterance id, of all that have a caption.
        image_of: The image of each recording of test.
    """
    known = {name: wer_of[name] for name in image_of if name in wer_of}
    within = {name: rate for name, rate in known.items() if rate <= 1}
    return HeardQueries(within, image_of, len(image_of) - len(known), len(known) - len(within))


@dataclass(frozen=True)
class _Fit:
    """A row's fit over the models of several seeds; `drawn` are their slopes in each sample."""

    intercepts: Numbers
    slopes: Numbers
    drawn: Sequence[Numbers]


def recall_over_wer(
    ranks: RowRanks,
    queries: HeardQueries,
    pairs: Sequence[tuple[str, str]],
    k: int,
    min_images: int,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """How hits depend on word errors, for each row, and how rows differ in it.

    Slopes are means over seeds; intervals are over images, which are drawn with all their
    recordings, and seeds, and those of differences are of the same images for both rows.

    Args:
        ranks: Of each row.
        queries: The recordings.
        pairs: Rows: the first of each is compared with the second.
        k: How many ranks are a hit.
        min_images: Of fewer, no rate is given.
        bootstrap: How intervals are estimated.

    Returns:
        The content of `word_errors.json`; what cannot be said is None.
    """
    # Where nobody wrote captions, there is nothing to fit.
    fits = {
        row: _fit_row(of_row, queries, k, bootstrap)
        for row, of_row in ranks.items()
        if queries.wer_of
    }
    return {
        "k": k,
        "num_queries": len(queries.wer_of),
        "num_images": len(set(queries.images)),
        "num_without_caption": queries.num_without_caption,
        "num_beyond": queries.num_beyond,
        "fits": [{"row": row} | _said(fit, bootstrap) for row, fit in fits.items()],
        "curves": {row: _curve(fit) for row, fit in fits.items()},
        "rates": list(
            recall_between(_ENDS, queries.wer_of, ranks, queries.image_of, k, min_images, bootstrap)
        ),
        "differences": [
            {"row": row, "baseline": baseline, **_difference(fits[row], fits[baseline], bootstrap)}
            for row, baseline in pairs
            if fits
        ],
    }


def _fit_row(
    models: Sequence[Mapping[str, int]], queries: HeardQueries, k: int, bootstrap: Bootstrap
) -> _Fit:
    names = list(queries.wer_of)
    values, value_Q = np.unique(np.array(list(queries.wer_of.values())), return_inverse=True)
    images, image_Q = np.unique(queries.images, return_inverse=True)
    # There are few different rates, so how often each occurs and hits is all that has to be drawn.
    shape = len(images), len(values)
    counts_IX = np.zeros(shape)
    np.add.at(counts_IX, (image_Q, value_Q), 1)
    weights_SI = bootstrap.weights(len(images))
    counts_SX = weights_SI @ counts_IX
    found, drawn = [], []
    for rank_of in models:
        hits_IX = np.zeros(shape)
        np.add.at(hits_IX, (image_Q, value_Q), [rank_of[name] <= k for name in names])
        found.append(fit_logistic(hits_IX.sum(0)[None], counts_IX.sum(0)[None], values))
        drawn.append(fit_logistic(weights_SI @ hits_IX, counts_SX, values)[1])
    intercepts, slopes = np.array(found)[:, :, 0].T
    return _Fit(intercepts, slopes, drawn)


def _said(fit: _Fit, bootstrap: Bootstrap) -> dict[str, float | None]:
    """The slope for a rate of 1, and what ten points more do to the odds."""
    slope = _number(fit.slopes.mean())
    low, high = _interval(bootstrap.over_seeds(fit.drawn), bootstrap)
    return {
        "slope": slope,
        "low": low,
        "high": high,
        "odds_ratio": _odds_ratio(slope),
        "odds_ratio_low": _odds_ratio(low),
        "odds_ratio_high": _odds_ratio(high),
        "num_models": len(fit.slopes),
    }


def _number(slope: float) -> float | None:
    return float(slope) if has_end(np.array(slope)) else None


def _odds_ratio(slope: float | None) -> float | None:
    return None if slope is None else float(np.exp(_TEN_POINTS * slope))


def _interval(drawn: Numbers, bootstrap: Bootstrap) -> tuple[float | None, float | None]:
    """Of samples that say something, if most do; an end that is endless is none."""
    known = drawn[~np.isnan(drawn)]
    if len(known) <= len(drawn) / 2:
        return None, None
    low, high = bootstrap.interval(known)
    return _number(low), _number(high)


def _curve(fit: _Fit) -> list[float]:
    """The chance of a hit at each rate of `_CURVE`, the mean over seeds; none without a slope."""
    if not has_end(fit.slopes).all():
        return []
    odds = fit.intercepts[:, None] + fit.slopes[:, None] * _CURVE
    shares: list[float] = (1 / (1 + np.exp(-odds))).mean(axis=0).tolist()
    return shares


def curve_points(curve: Sequence[float]) -> list[tuple[float, float]]:
    """A curve of `word_errors.json` as points (rate, chance of a hit)."""
    return list(zip(_CURVE.tolist(), curve, strict=True)) if curve else []


def _difference(ours: _Fit, theirs: _Fit, bootstrap: Bootstrap) -> dict[str, float | None]:
    # Of the same images, and of seeds that are drawn for each row apart.
    drawn = [bootstrap.over_seeds(fit.drawn, stream) for stream, fit in enumerate((ours, theirs))]
    # Nobody knows how far two slopes lie apart that both have no end.
    difference = np.where(has_end(drawn[0]) | has_end(drawn[1]), drawn[0] - drawn[1], np.nan)
    low, high = _interval(difference, bootstrap)
    return {
        "difference": _number(ours.slopes.mean() - theirs.slopes.mean()),
        "low": low,
        "high": high,
    }


@dataclass(frozen=True)
class Repairs:
    """Recordings that one model finds and another misses, and the other way round.

    Both are by falling word error rate.
    """

    repaired: list[str]
    broken: list[str]


def find_repairs(
    ours: Mapping[str, int], theirs: Mapping[str, int], queries: HeardQueries, k: int
) -> Repairs:
    """Compares the hits of two models on recordings in which a word was heard otherwise.

    Args:
        ours: Ranks of the right image by utterance id.
        theirs: The same of the other model.
        queries: The recordings.
        k: How many ranks are a hit.
    """
    wrong = [name for name, rate in queries.wer_of.items() if rate > 0]

    def only(one: Mapping[str, int], other: Mapping[str, int]) -> list[str]:
        found = [name for name in wrong if one[name] <= k < other[name]]
        # Of equal rates, where the other is farther off.
        return sorted(found, key=lambda name: (-queries.wer_of[name], -other[name], name))

    return Repairs(only(ours, theirs), only(theirs, ours))
