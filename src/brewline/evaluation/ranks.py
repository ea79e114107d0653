"""Ranks of right answers in both directions: pure functions of arrays and ids.

Suffixes: U utterances, I images, D dimension, Q queries, P pairs of a query and one of its right
answers. Ties count against us: an item that scores as high as a right answer stands before it, so a
model that gives one vector for everything finds nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

# Scores of unit vectors that are closer than this are equal. In float32 the sum of a thousand
# products differs by up to 3e-6 with their order, which depends on where in a matrix it stands.
_TIE = 5e-6
# Scores in memory at a time: 16 MB.
_STRIP_SCORES = 1 << 22


@dataclass(frozen=True)
class Ranks:
    """The ranks of all right answers.

    Attributes:
        query: Which query a right answer belongs to, (P,); every query occurs.
        rank: Its rank in that query's gallery, from 1, (P,).
        num_queries: Q.
        gallery_size: Of how many items each query ranks.
    """

    query: Ints
    rank: Ints
    num_queries: int
    gallery_size: int

    @property
    def best(self) -> Ints:
        """The rank of each query's best right answer, (Q,)."""
        best = np.full(self.num_queries, self.gallery_size + 1)
        np.minimum.at(best, self.query, self.rank)
        return best

    def any_hit(self, k: int) -> NDArray[np.float64]:
        """1 for each query with a right answer in its top k, else 0; (Q,)."""
        return (self.best <= k).astype(np.float64)

    def fraction_found(self, k: int) -> NDArray[np.float64]:
        """The share of each query's right answers that is in its top k; (Q,)."""
        found = np.bincount(self.query, self.rank <= k, self.num_queries)
        fraction: NDArray[np.float64] = found / np.bincount(self.query)
        return fraction

    def average_precision(self, k: int) -> NDArray[np.float64]:
        """The mean precision at the right answers in each query's top k; (Q,).

        Divided by the number of right answers that could be there. Right answers of a query are
        ranked among each other too, so none shares a rank.
        """
        order = np.lexsort((self.rank, self.query))
        counts = np.bincount(self.query, minlength=self.num_queries)
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        rank = self.rank[order]
        precision = np.where(rank <= k, place / rank, 0)
        total = np.bincount(self.query[order], precision, self.num_queries)
        average: NDArray[np.float64] = total / np.minimum(counts, k)
        return average

    def ndcg(self, k: int) -> NDArray[np.float64]:
        """Normalised discounted cumulative gain of each query's top k, as trec_eval has it; (Q,).

        A right answer at rank r gains 1 / log2(1 + r), and the sum of them is divided by the
        largest that there could be.
        """
        gain = np.where(self.rank <= k, 1 / np.log2(1 + self.rank), 0)
        found = np.bincount(self.query, gain, self.num_queries)
        best = np.cumsum(1 / np.log2(1 + np.arange(1, k + 1)))
        ndcg: NDArray[np.float64] = found / best[np.minimum(np.bincount(self.query), k) - 1]
        return ndcg


@dataclass(frozen=True)
class Product:
    """The scores of all utterances and images, of which some rows are made at a time.

    Attributes:
        utterances: Unit vectors, (U, D).
        images: Unit vectors in an order of their own, (D, I).
        column: Where in it the image of each utterance stands, (U,); its score counts in no rank.
        least: What another score has to reach to stand before the right one, (U,).
        takes: Utterances of different images, those of the first columns, in their order.
    """

    utterances: Floats
    images: Floats
    column: Ints
    least: Floats
    takes: Sequence[Ints]

    @property
    def strips(self) -> list[slice]:
        """Rows at a time."""
        num_utterances, step = len(self.column), max(1, _STRIP_SCORES // self.images.shape[1])
        return [
            slice(start, min(start + step, num_utterances))
            for start in range(0, num_utterances, step)
        ]


# How many other images stand before the right one of each utterance; and, of each utterance as an
# answer to its image, how many utterances of other images: (U,) each.
CountBefore = Callable[[Product], tuple[Ints, Ints]]


def count_before(product: Product) -> tuple[Ints, Ints]:
    """Counts on the processor; see `CountBefore`."""
    images_before_U, utterances_before_U = np.zeros((2, len(product.column)), np.int64)
    least_U = product.least
    for rows in product.strips:
        scores_UI = product.utterances[rows] @ product.images
        scores_UI[np.arange(len(scores_UI)), product.column[rows]] = -np.inf
        images_before_U[rows] = _count(scores_UI >= least_U[rows, None], axis=1)
        for take in product.takes:
            utterances_before_U[take] += _count(scores_UI[:, : len(take)] >= least_U[take], axis=0)
    return images_before_U, utterances_before_U


def rank_both_ways(
    utterances_UD: Floats,
    images_ID: Floats,
    image_of_U: Sequence[str],
    image_ids: Sequence[str],
    count: CountBefore = count_before,
) -> tuple[Ranks, Ranks]:
    """Ranks the image of each utterance among all images, and its utterances among all utterances.

    Both come from one product of the vectors, of which some rows are in memory at a time. Among the
    right answers of a query the first of two equals goes first; all others precede both.

    Args:
        utterances_UD: Unit vectors.
        images_ID: Unit vectors.
        image_of_U: The id of each utterance's image.
        image_ids: I different ids, in the order of their vectors.
        count: Where it is done.

    Returns:
        Speech to image, whose right answers are in the order of the utterances; and image to
        speech, in the same order.

    Raises:
        ValueError: shapes do not fit, a number is not finite, or a query has no right answer.
    """
    image_U = _positions(utterances_UD, images_ID, image_of_U, image_ids)
    num_utterances, num_images = len(image_U), len(image_ids)
    own_U = np.einsum("ud,ud->u", utterances_UD, images_ID[image_U])
    place_U = _places_among_own(own_U, image_U)
    # Columns by falling number of utterances: those that have a k-th one come first.
    by_takes = np.argsort(-np.bincount(image_U), kind="stable")
    column_I = np.empty_like(by_takes)
    column_I[by_takes] = np.arange(num_images)
    column_U, images_DI = column_I[image_U], images_ID[by_takes].T
    takes = [np.flatnonzero(place_U == place) for place in range(place_U.max() + 1)]
    takes = [take[np.argsort(column_U[take])] for take in takes]
    # The right answers, of both directions, are ranked among each other apart.
    images_before_U, utterances_before_U = count(
        Product(utterances_UD, images_DI, column_U, own_U - _TIE, takes)
    )
    return (
        Ranks(np.arange(num_utterances), 1 + images_before_U, num_utterances, num_images),
        Ranks(image_U, 1 + place_U + utterances_before_U, num_images, num_utterances),
    )


def _positions(
    utterances_UD: Floats, images_ID: Floats, image_of_U: Sequence[str], image_ids: Sequence[str]
) -> Ints:
    """Where the image of each utterance stands; (U,)."""
    shapes = utterances_UD.shape, images_ID.shape
    if shapes != tuple((len(ids), images_ID.shape[-1]) for ids in (image_of_U, image_ids)):
        raise ValueError(
            f"{len(image_of_U)} utterances and {len(image_ids)} images, but vectors of the shapes "
            f"{shapes[0]} and {shapes[1]}"
        )
    if not len(image_of_U):
        raise ValueError("there are no queries")
    position_of = {one: position for position, one in enumerate(image_ids)}
    if len(position_of) != len(image_ids):
        raise ValueError("an image stands twice among the images")
    missing = position_of.keys() ^ set(image_of_U)
    if missing:
        raise ValueError(f"no right answer in the gallery for {sorted(missing)[:3]}")
    if not (np.isfinite(utterances_UD).all() and np.isfinite(images_ID).all()):
        # Comparisons with NaN are false, which would put every right answer first.
        raise ValueError("a number of a vector is not finite")
    return np.array([position_of[one] for one in image_of_U], np.int64)


def _places_among_own(own_U: Floats, image_U: Ints) -> Ints:
    """How many utterances of the same image score higher, or as high and come earlier; (U,)."""
    order = np.lexsort((np.arange(len(own_U)), -own_U, image_U))
    first_of_image = np.searchsorted(image_U[order], image_U[order])
    place_U = np.empty_like(order)
    place_U[order] = np.arange(len(order)) - first_of_image
    return place_U


def _count(which: NDArray[np.bool_], axis: int) -> Ints:
    # Twice as fast as `np.count_nonzero` with an axis.
    counts: Ints = np.add.reduce(which.view(np.uint8), axis=axis, dtype=np.int32)
    return counts
