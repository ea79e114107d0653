"""Ranks and recall: pure functions of arrays and ids.

Suffixes: Q queries, G gallery items, P pairs of a query and one of its right answers. Ties count
against us: an item that scores as high as a right answer stands before it, so a model that gives
one vector for everything finds nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

_BLOCK_SCORES = 1 << 24


@dataclass(frozen=True)
class Ranks:
    """The ranks of all right answers.

    Attributes:
        query: Which query a right answer belongs to, (P,); every query occurs.
        rank: Its rank in that query's gallery, from 1, (P,).
        num_queries: Q.
        gallery_size: G.
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


def rank_answers(
    similarity_QG: Floats, query_ids: Sequence[str], gallery_ids: Sequence[str]
) -> Ranks:
    """Ranks the right answers of each query: the gallery items that carry the query's id.

    Args:
        similarity_QG: Higher is closer.
        query_ids: Q ids.
        gallery_ids: G ids.

    Raises:
        ValueError: shapes do not fit, a score is not finite, or a query has no right answer.
    """
    if similarity_QG.shape != (len(query_ids), len(gallery_ids)):
        raise ValueError(
            f"{len(query_ids)} queries and {len(gallery_ids)} items, but scores of shape "
            f"{similarity_QG.shape}"
        )
    queries, gallery = _codes(query_ids, gallery_ids)
    parts = []
    for rows in _blocks(len(queries), len(gallery)):
        query_P, rank_P = _rank_block(similarity_QG[rows], queries[rows], gallery)
        parts.append((query_P + rows.start, rank_P))
    return _join(parts, len(queries), len(gallery))


def rank_embeddings(
    query_embeddings_QD: Floats,
    gallery_embeddings_GD: Floats,
    query_ids: Sequence[str],
    gallery_ids: Sequence[str],
) -> Ranks:
    """Like `rank_answers` of all dot products, with only some rows of them in memory at a time."""
    queries, gallery = _codes(query_ids, gallery_ids)
    parts = []
    for rows in _blocks(len(queries), len(gallery)):
        similarity = query_embeddings_QD[rows] @ gallery_embeddings_GD.T
        query_P, rank_P = _rank_block(similarity, queries[rows], gallery)
        parts.append((query_P + rows.start, rank_P))
    return _join(parts, len(queries), len(gallery))


def _codes(query_ids: Sequence[str], gallery_ids: Sequence[str]) -> tuple[Ints, Ints]:
    """Numbers for ids, equal where the ids are."""
    missing = set(query_ids) - set(gallery_ids)
    if missing:
        raise ValueError(f"no right answer in the gallery for {sorted(missing)[:3]}")
    code_of = {one: code for code, one in enumerate(dict.fromkeys(gallery_ids))}
    queries, gallery = (
        np.array([code_of[one] for one in ids], dtype=np.int64) for ids in (query_ids, gallery_ids)
    )
    return queries, gallery


def _blocks(num_rows: int, num_columns: int) -> list[slice]:
    step = max(1, _BLOCK_SCORES // max(1, num_columns))
    return [slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]


def _rank_block(similarity_QG: Floats, queries_Q: Ints, gallery_G: Ints) -> tuple[Ints, Ints]:
    if not np.isfinite(similarity_QG).all():
        # Comparisons with NaN are false, which would put every right answer first.
        raise ValueError("a similarity is not a finite number")
    right_QG = queries_Q[:, None] == gallery_G[None, :]
    query_P, item_P = np.nonzero(right_QG)
    rank_P = np.empty_like(query_P)
    for pairs in _blocks(len(query_P), len(gallery_G)):
        query, item = query_P[pairs], item_P[pairs]
        scores_PG = similarity_QG[query]
        own_P1 = similarity_QG[query, item][:, None]
        right_PG = right_QG[query]
        # Among a query's right answers the first of two equals goes first; others precede both.
        earlier_PG = np.arange(len(gallery_G)) < item[:, None]
        before_PG = (scores_PG > own_P1) | ((scores_PG == own_P1) & (~right_PG | earlier_PG))
        before_PG[np.arange(len(item)), item] = False
        rank_P[pairs] = 1 + before_PG.sum(axis=1)
    return query_P, rank_P


def _join(parts: list[tuple[Ints, Ints]], num_queries: int, gallery_size: int) -> Ranks:
    if not parts:
        raise ValueError("there are no queries")
    query_P, rank_P = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Ranks(query_P, rank_P, num_queries, gallery_size)
