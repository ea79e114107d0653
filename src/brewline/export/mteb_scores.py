"""mteb's metrics of a direction, from ranks and scores: the names and the definitions are mteb's.

Ties are ours: they count against a right answer, where mteb sorts equal scores by id.

Suffixes: Q queries, G what they rank, D dimension.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from brewline.evaluation.ranks import Ranks

Floats = NDArray[np.floating]

# mteb's `AbsTaskRetrieval.k_values`, the largest of which says how many scores of a query it keeps.
K_VALUES = (1, 3, 5, 10, 20, 100, 1000)
MAIN_SCORE = "ndcg_at_10"
# Of queries that a model may leave unanswered: mteb's rates.
_ABSTAINED = np.linspace(0, 1, 11)[:-1]
# mteb computes no `nauc_*` of it.
_WITHOUT_NAUC = "hit_rate"
# Scores in memory at a time: 16 MB.
_STRIP_SCORES = 1 << 22


def mteb_scores(ranks: Ranks, queries_QD: Floats, gallery_GD: Floats) -> dict[str, float]:
    """The metrics of all `K_VALUES`, as fractions, and how well scores tell who is answered.

    `nauc_<metric>_<confidence>` is 1 where leaving out the least confident queries is as good as
    leaving out those that are answered worst, and 0 where it does not help (arXiv 2402.12997).
    Where all queries are answered alike there is none.

    Args:
        ranks: Of a direction.
        queries_QD: The vectors of its queries, of length one.
        gallery_GD: Those of its gallery.
    """
    confidences = _confidences(queries_QD, gallery_GD)
    scores: dict[str, float] = {}
    for name, metric, values_Q in _metrics(ranks):
        scores[name] = float(values_Q.mean())
        if metric != _WITHOUT_NAUC:
            for confidence, of_Q in confidences.items():
                found = _nauc(of_Q, values_Q)
                if found is not None:
                    scores[f"nauc_{name}_{confidence}"] = found
    scores = {name: round(value, 6) for name, value in scores.items()}
    return {**scores, "accuracy": scores["recall_at_1"], "main_score": scores[MAIN_SCORE]}


def _metrics(ranks: Ranks) -> Iterator[tuple[str, str, Floats]]:
    """Yields name with K, name without, and what each query reaches, (Q,)."""
    num_right = np.bincount(ranks.query, minlength=ranks.num_queries)
    # Of each right answer, how many of its query's stand up to it.
    order = np.lexsort((ranks.rank, ranks.query))
    query, rank = ranks.query[order], ranks.rank[order]
    place = 1 + np.arange(len(query)) - np.searchsorted(query, query)
    best = ranks.best
    for k in K_VALUES:
        is_found = rank <= k
        precisions = np.bincount(query, np.where(is_found, place / rank, 0), ranks.num_queries)
        found = np.bincount(query, is_found, ranks.num_queries)
        for metric, values_Q in (
            ("ndcg", ranks.ndcg(k)),
            ("map", precisions / num_right),
            ("recall", ranks.fraction_found(k)),
            ("precision", found / k),
            ("mrr", np.where(best <= k, 1 / best, 0)),
            ("hit_rate", ranks.any_hit(k)),
        ):
            yield f"{metric}_at_{k}", metric, values_Q


def _confidences(queries_QD: Floats, gallery_GD: Floats) -> dict[str, Floats]:
    """How sure each query is: its best score, their deviation, and the lead of the best; (Q,)."""
    kept = min(max(K_VALUES), len(gallery_GD))
    step = max(1, _STRIP_SCORES // len(gallery_GD))
    strips = []
    for start in range(0, len(queries_QD), step):
        scores_QG = queries_QD[start : start + step] @ gallery_GD.T
        best_QK = -np.partition(-scores_QG, kept - 1, axis=1)[:, :kept].astype(np.float64)
        first_Q, *others = np.sort(best_QK, axis=1)[:, ::-1].T[:2]
        lead_Q = first_Q - others[0] if others else np.zeros_like(first_Q)
        strips.append(np.stack([first_Q, best_QK.std(axis=1), lead_Q]))
    return dict(zip(("max", "std", "diff1"), np.concatenate(strips, axis=1), strict=True))


def _nauc(confidence_Q: Floats, values_Q: Floats) -> float | None:
    """The area under the curve of a metric over abstention, between a flat one and the best one."""
    ours, best = (_abstention_curve(one, values_Q) for one in (confidence_Q, values_Q))
    flat = best[0] * (_ABSTAINED[-1] - _ABSTAINED[0])
    area, most = (float(np.trapezoid(curve, _ABSTAINED)) for curve in (ours, best))
    return None if np.isclose(most, flat, rtol=0, atol=1e-12) else (area - flat) / (most - flat)


def _abstention_curve(confidence_Q: Floats, values_Q: Floats) -> Floats:
    """The mean of a metric without so many of the least confident; (`_ABSTAINED`,).

    Those that are equally sure count as their mean: which of them go first is chance.
    """
    order = np.argsort(confidence_Q, stable=True)
    _, group, sizes = np.unique(confidence_Q[order], return_inverse=True, return_counts=True)
    values = (np.bincount(group, values_Q[order]) / sizes)[group]
    left_out = [min(round(rate * len(order)), len(order) - 1) for rate in _ABSTAINED]
    return np.array([values[count:].mean() for count in left_out])
