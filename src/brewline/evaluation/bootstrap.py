"""How uncertain a mean over queries is: intervals from images that are drawn again.

Pure functions of arrays and ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brewline.evaluation.ranks import Ints


@dataclass(frozen=True)
class ByImage:
    """A mean over queries, kept as sums by image so that images can be drawn again.

    `image_ids` are sorted; `sums` and `counts` are over the queries that belong to an image.
    """

    image_ids: tuple[str, ...]
    sums: NDArray[np.float64]
    counts: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """The mean over all queries."""
        return float(self.sums.sum() / self.counts.sum())


def sum_by_image(values_Q: NDArray[np.float64], image_ids: Sequence[str]) -> ByImage:
    """Sums one value for each query by the image that the query belongs to."""
    ids, image_Q = np.unique(np.asarray(image_ids, dtype=str), return_inverse=True)
    sums = np.bincount(image_Q, values_Q, len(ids)).astype(np.float64)
    return ByImage(tuple(ids.tolist()), sums, np.bincount(image_Q).astype(np.float64))


def average(tables: Sequence[ByImage]) -> ByImage:
    """The mean over several models (seeds) of the same queries."""
    _require_same_images(tables)
    sums = np.mean([table.sums for table in tables], axis=0)
    return ByImage(tables[0].image_ids, sums, tables[0].counts)


@dataclass(frozen=True)
class Bootstrap:
    """How an interval is estimated: number of samples, seed, and the share that it covers."""

    samples: int
    seed: int
    confidence: float

    def weights(self, num_images: int) -> Ints:
        """How often each image is drawn in each sample, (samples, num_images)."""
        rng = np.random.default_rng(self.seed)
        shares = np.full(num_images, 1 / num_images)
        return rng.multinomial(num_images, shares, size=self.samples)

    def interval(self, values: NDArray[np.float64]) -> tuple[float, float]:
        """The middle `confidence` of the values."""
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(values, [tail, 1 - tail])
        return float(low), float(high)


def bootstrap_mean(table: ByImage, bootstrap: Bootstrap) -> tuple[float, float]:
    """An interval for the mean: images are drawn with replacement, with all their queries.

    The galleries stay as they are, so the interval is about which images were asked for.
    """
    weights = bootstrap.weights(len(table.image_ids))
    return bootstrap.interval(_resampled(table, weights))


def bootstrap_difference(
    table: ByImage, baseline: ByImage, bootstrap: Bootstrap
) -> tuple[float, float, float]:
    """The difference of two means, and an interval for it; both see the same drawn images.

    Returns:
        (difference, low, high).

    Raises:
        ValueError: the two were measured on different images.
    """
    return bootstrap_mean_difference([(table, baseline)], bootstrap)


def bootstrap_mean_difference(
    pairs: Sequence[tuple[ByImage, ByImage]], bootstrap: Bootstrap
) -> tuple[float, float, float]:
    """The mean of several differences, such as one for each direction, and an interval for it.

    All of them see the same drawn images; see `bootstrap_difference`.
    """
    if len({table.image_ids for table, _ in pairs}) != 1:
        raise ValueError("the means are over different images")
    for table, baseline in pairs:
        _require_same_images([table, baseline])
    weights = bootstrap.weights(len(pairs[0][0].image_ids))
    drawn = [
        _resampled(table, weights) - _resampled(baseline, weights) for table, baseline in pairs
    ]
    low, high = bootstrap.interval(np.mean(drawn, axis=0))
    differences = [table.mean - baseline.mean for table, baseline in pairs]
    return float(np.mean(differences)), low, high


def _resampled(table: ByImage, weights: Ints) -> NDArray[np.float64]:
    means: NDArray[np.float64] = (weights @ table.sums) / (weights @ table.counts)
    return means


def _require_same_images(tables: Sequence[ByImage]) -> None:
    first = tables[0]
    for table in tables[1:]:
        if table.image_ids != first.image_ids or not np.array_equal(table.counts, first.counts):
            raise ValueError("the models were measured on different images or utterances")
