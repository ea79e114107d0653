"""What predictions are worth, from how often each class was taken for each other one.

Pure functions of arrays. Shapes: G groups (speakers, or folds), K classes; the axis before the last
is the truth, the last one what was said.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from brewline.evaluation.bootstrap import Bootstrap

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def confusions(
    truth: Ints, predicted: Ints, group: Ints, num_groups: int, num_classes: int
) -> Ints:
    """Counts for each group, (G, K, K)."""
    counts = np.zeros((num_groups, num_classes, num_classes), np.int64)
    np.add.at(counts, (group, truth, predicted), 1)
    return counts


def accuracy(counts: NDArray[np.number]) -> Floats:
    """The share of recordings that were told right (WA)."""
    right = np.trace(counts, axis1=-2, axis2=-1)
    return np.asarray(right / counts.sum(axis=(-2, -1)), np.float64)


def balanced_accuracy(counts: NDArray[np.number]) -> Floats:
    """The mean recall over the classes that occur (UAR, UA)."""
    right, occurring = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1)
    return _mean_over_occurring(right, occurring, occurring)


def macro_f1(counts: NDArray[np.number]) -> Floats:
    """The mean F1 over the classes that occur."""
    right, occurring = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1)
    return _mean_over_occurring(2 * right, occurring + counts.sum(axis=-2), occurring)


def _mean_over_occurring(
    above: NDArray[np.number], below: NDArray[np.number], occurring: NDArray[np.number]
) -> Floats:
    shares = np.divide(above, below, out=np.zeros(above.shape), where=below > 0)
    occurs = occurring > 0
    return np.asarray((shares * occurs).sum(axis=-1) / occurs.sum(axis=-1), np.float64)


METRICS: dict[str, Callable[[NDArray[np.number]], Floats]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
}


def interval(
    counts_RGKK: NDArray[np.number],
    metric: Callable[[NDArray[np.number]], Floats],
    bootstrap: Bootstrap,
) -> tuple[float, float]:
    """An interval for the mean of a metric over R runs: speakers and runs are drawn.

    The recordings of a speaker are alike, so speakers are what there is a number of. All runs see
    the same drawn speakers; they differ by their seeds, and where these differ much, so may the
    next one.
    """
    weights_SG = bootstrap.weights(counts_RGKK.shape[1])
    drawn_RSKK = np.einsum("sg,rgkj->rskj", weights_SG, counts_RGKK)
    return bootstrap.interval(bootstrap.over_seeds(list(metric(drawn_RSKK))))


def majority(truth: Ints, trained_on: Sequence[Ints], asked: Sequence[Ints]) -> Ints:
    """What somebody says who knows only the commonest class of each training part.

    Args:
        truth: The classes of all rows.
        trained_on: The rows of each fold's training.
        asked: Those of its test.

    Returns:
        What is said, of all rows; -1 of those that are not asked.
    """
    said = np.full(len(truth), -1)
    for known, rows in zip(trained_on, asked, strict=True):
        said[rows] = np.bincount(truth[known]).argmax()
    return said
