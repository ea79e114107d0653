"""mteb's metrics of a direction, from ranks: the names and the definitions are mteb's.

Ties are ours: they count against a right answer, where mteb sorts equal scores by id. mteb's
`nauc_*`, which are about the scores themselves, are left out.
"""

from collections.abc import Iterator

import numpy as np

from brewline.evaluation.ranks import Ranks

# mteb's `AbsTaskRetrieval.k_values`.
K_VALUES = (1, 3, 5, 10, 20, 100, 1000)
MAIN_SCORE = "ndcg_at_10"


def mteb_scores(ranks: Ranks) -> dict[str, float]:
    """The metrics of all `K_VALUES`, as fractions."""
    scores = {name: round(float(value), 6) for name, value in _scores(ranks)}
    return {**scores, "accuracy": scores["recall_at_1"], "main_score": scores[MAIN_SCORE]}


def _scores(ranks: Ranks) -> Iterator[tuple[str, float]]:
    num_right = np.bincount(ranks.query, minlength=ranks.num_queries)
    # Of each right answer, how many of its query's stand up to it.
    order = np.lexsort((ranks.rank, ranks.query))
    query, rank = ranks.query[order], ranks.rank[order]
    place = 1 + np.arange(len(query)) - np.searchsorted(query, query)
    for k in K_VALUES:
        is_found = rank <= k
        precisions = np.bincount(query, np.where(is_found, place / rank, 0), ranks.num_queries)
        found = np.bincount(query, is_found, ranks.num_queries)
        best = ranks.best
        yield f"ndcg_at_{k}", ranks.ndcg(k).mean()
        yield f"map_at_{k}", (precisions / num_right).mean()
        yield f"recall_at_{k}", ranks.fraction_found(k).mean()
        yield f"precision_at_{k}", (found / k).mean()
        yield f"mrr_at_{k}", np.where(best <= k, 1 / best, 0).mean()
        yield f"hit_rate_at_{k}", ranks.any_hit(k).mean()
