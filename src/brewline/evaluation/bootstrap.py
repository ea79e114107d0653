"""How uncertain a number over queries is: intervals from images and seeds that are drawn again.

Pure functions of arrays and ids. Suffixes: S samples of the bootstrap, I images, Q queries.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brewline.evaluation.ranks import Floats, Ints

# Weights of queries in memory at a time, in samples times queries.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class ByImage:
    """A mean over queries, kept as sums by image so that images can be drawn again.

    `image_ids` are sorted; `sums` and `counts` are over the queries that belong to an image.
    """

    image_ids: tuple[str, ...]
    sums: NDArray[np.float64]
    counts: NDArray[np.float64]

    @property
    def value(self) -> float:
        """The mean over all queries."""
        return float(self.sums.sum() / self.counts.sum())

    def resampled(self, weights_SI: Floats) -> NDArray[np.float64]:
        """The mean where each image counts as often as it was drawn; (S,)."""
        means: NDArray[np.float64] = (weights_SI @ self.sums) / (weights_SI @ self.counts)
        return means


@dataclass(frozen=True)
class MedianByImage:
    """A median over queries, whose values are kept in rising order, with the image of each.

    `positions` are those of the images in `image_ids`, which are sorted.
    """

    image_ids: tuple[str, ...]
    values: NDArray[np.float64]
    positions: Ints

    @property
    def value(self) -> float:
        """The median of all queries."""
        return float(np.median(self.values))

    def resampled(self, weights_SI: Floats) -> NDArray[np.float64]:
        """The median where each image counts as often as it was drawn; (S,)."""
        medians = []
        step = max(1, _CHUNK // len(self.values))
        for start in range(0, len(weights_SI), step):
            drawn_SI = weights_SI[start : start + step].astype(np.int32)
            upto_SQ = np.cumsum(drawn_SI[:, self.positions], axis=1, dtype=np.int32)
            total_S = upto_SQ[:, -1]
            # Of an even number it is the mean of the two in the middle.
            for middle_S in ((total_S + 1) // 2, total_S // 2 + 1):
                medians.append(self.values[np.argmax(upto_SQ >= middle_S[:, None], axis=1)])
        lower, upper = (np.concatenate(medians[side::2]) for side in (0, 1))
        middle: NDArray[np.float64] = (lower + upper) / 2
        return middle


# A number over queries; images can be drawn again.
Statistic = ByImage | MedianByImage


def sum_by_image(values_Q: NDArray[np.float64], image_ids: Sequence[str]) -> ByImage:
    """The mean of one value for each query; `image_ids` has the image that each belongs to."""
    ids, image_Q = np.unique(np.asarray(image_ids, dtype=str), return_inverse=True)
    sums = np.bincount(image_Q, values_Q, len(ids)).astype(np.float64)
    return ByImage(tuple(ids.tolist()), sums, np.bincount(image_Q).astype(np.float64))


def median_by_image(values_Q: NDArray[np.float64], image_ids: Sequence[str]) -> MedianByImage:
    """The median of one value for each query; `image_ids` has the image that each belongs to."""
    ids, image_Q = np.unique(np.asarray(image_ids, dtype=str), return_inverse=True)
    order = np.argsort(values_Q, kind="stable")
    return MedianByImage(tuple(ids.tolist()), values_Q[order], image_Q[order])


@dataclass(frozen=True)
class Bootstrap:
    """How an interval is estimated: number of samples, seed, and the share that it covers."""

    samples: int
    seed: int
    confidence: float

    def weights(self, num_images: int) -> NDArray[np.float64]:
        """How often each image is drawn in each sample; (S, I)."""
        return _image_weights(self.samples, self.seed, num_images)

    def drawn(self, statistic: Statistic) -> NDArray[np.float64]:
        """A statistic in each sample of images, which are drawn with all their queries; (S,).

        The galleries stay as they are, so what varies is which images were asked for. Statistics of
        the same images see the same samples.
        """
        return statistic.resampled(self.weights(len(statistic.image_ids)))

    def over_seeds(
        self, drawn: Sequence[NDArray[np.float64]], stream: int = 0
    ) -> NDArray[np.float64]:
        """The mean over the models of several seeds, which are drawn too; (S,).

        Of n seeds n - 1 are drawn, with replacement: so the mean varies as much as that of n models
        does, where n draws would make it vary less, with two seeds half as much (Rao and Wu, 1988).
        Of a single seed nobody knows how much another one would differ.

        Args:
            drawn: What `drawn` gave for the model of each seed.
            stream: Another one for models whose seeds are drawn apart from these.
        """
        num_seeds = len(drawn)
        if num_seeds == 1:
            return drawn[0]
        rng = np.random.default_rng([self.seed, stream])
        times = rng.multinomial(num_seeds - 1, np.full(num_seeds, 1 / num_seeds), self.samples)
        mean: NDArray[np.float64] = (times.T * np.array(drawn)).sum(axis=0) / (num_seeds - 1)
        return mean

    def interval(self, values: NDArray[np.float64]) -> tuple[float, float]:
        """The middle `confidence` of the values."""
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(values, [tail, 1 - tail])
        return float(low), float(high)


# One for dev, one for test; 40 MB for 1,000 samples of 5,000 images.
@functools.lru_cache(maxsize=2)
def _image_weights(samples: int, seed: int, num_images: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    shares = np.full(num_images, 1 / num_images)
    return rng.multinomial(num_images, shares, size=samples).astype(np.float64)


def bootstrap_mean_difference(
    pairs: Sequence[tuple[ByImage, ByImage]], bootstrap: Bootstrap
) -> tuple[float, float, float]:
    """The mean of several differences of two models, such as one for each direction.

    All of them see the same drawn images.

    Returns:
        (difference, low, high), the ends of its interval.

    Raises:
        ValueError: the models were measured on different images or utterances.
    """
    if len({table.image_ids for table, _ in pairs}) != 1:
        raise ValueError("the means are over different images")
    for table, baseline in pairs:
        same = table.image_ids == baseline.image_ids
        if not same or not np.array_equal(table.counts, baseline.counts):
            raise ValueError("the models were measured on different images or utterances")
    drawn = [bootstrap.drawn(table) - bootstrap.drawn(baseline) for table, baseline in pairs]
    low, high = bootstrap.interval(np.mean(drawn, axis=0))
    return float(np.mean([table.value - baseline.value for table, baseline in pairs])), low, high
