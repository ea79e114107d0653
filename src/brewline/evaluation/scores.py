"""How well the embeddings of a split find one another.

Metric names are `<split>/<direction>/<metric>`, values are fractions, or ranks from 1. Training
chooses by these on dev.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from brewline.evaluation.bootstrap import Statistic, median_by_image, sum_by_image
from brewline.evaluation.query_metrics import query_ranks
from brewline.evaluation.query_ranks import QueryRanks
from brewline.evaluation.ranks import CountBefore, Ranks, count_before, rank_both_ways
from brewline.evaluation.vectors import SplitEmbeddings

SELECTION_METRIC = "dev/mean_recall_at_1"
_NDCG_AT = 10


@dataclass(frozen=True)
class RetrievalScores:
    """The metrics of one model; `statistics` has what their intervals are computed from.

    `rank_of` is the rank of the right image by utterance id, `rank_of_image` the best rank of an
    image's utterances by image id; `dev_ranks` are all of dev.
    """

    metrics: dict[str, float]
    statistics: dict[str, Statistic] = field(default_factory=dict)
    rank_of: dict[str, int] = field(default_factory=dict)
    rank_of_image: dict[str, int] = field(default_factory=dict)
    dev_ranks: QueryRanks | None = None


def score_retrieval(
    embeddings: SplitEmbeddings,
    split: str,
    recall_at: Sequence[int],
    count: CountBefore = count_before,
) -> RetrievalScores:
    """Computes the metrics of one split, both directions (BrewCLIP, section 4.2).

    Speech to image: every utterance asks for its image. Image to speech: every image asks for its
    utterances; `any_hit_recall_at_k` wants one of them in the top k (the paper's number),
    `recall_at_k` is the share of them there (mteb's). Median, mean and reciprocal rank are those of
    a query's best right answer. `count` is that of `rank_both_ways`.
    """
    image_of, image_ids = embeddings.utterance_image_ids, embeddings.image_ids
    forward, backward = rank_both_ways(
        embeddings.utterance_embeddings, embeddings.image_embeddings, image_of, image_ids, count
    )
    s2i, i2s = f"{split}/speech_to_image", f"{split}/image_to_speech"
    statistics: dict[str, Statistic] = {}
    for k in recall_at:
        statistics[f"{s2i}/recall_at_{k}"] = sum_by_image(forward.any_hit(k), image_of)
        statistics[f"{i2s}/any_hit_recall_at_{k}"] = sum_by_image(backward.any_hit(k), image_ids)
        statistics[f"{i2s}/recall_at_{k}"] = sum_by_image(backward.fraction_found(k), image_ids)
    statistics |= dict(_of_ranks(s2i, forward, image_of))
    statistics |= dict(_of_ranks(i2s, backward, image_ids))
    metrics = {name: one.value for name, one in statistics.items()}
    for prefix, ranks in ((s2i, forward), (i2s, backward)):
        metrics[f"{prefix}/num_queries"] = float(ranks.num_queries)
        metrics[f"{prefix}/gallery_size"] = float(ranks.gallery_size)
    dev_ranks = None
    if split == "dev":
        dev_ranks = query_ranks(forward, backward, image_of, image_ids)
        metrics[SELECTION_METRIC] = float(
            (forward.any_hit(1).mean() + backward.any_hit(1).mean()) / 2
        )
    rank_of = dict(zip(embeddings.utterance_ids, forward.best.tolist(), strict=True))
    rank_of_image = dict(zip(image_ids, backward.best.tolist(), strict=True))
    return RetrievalScores(metrics, statistics, rank_of, rank_of_image, dev_ranks)


def _of_ranks(
    prefix: str, ranks: Ranks, image_ids: Sequence[str]
) -> Iterator[tuple[str, Statistic]]:
    """Yields what the ranks of a direction give beside recall; `image_ids` is of each query."""
    best = ranks.best.astype(np.float64)
    yield f"{prefix}/median_rank", median_by_image(best, image_ids)
    yield f"{prefix}/mean_rank", sum_by_image(best, image_ids)
    yield f"{prefix}/mean_reciprocal_rank", sum_by_image(1 / best, image_ids)
    yield f"{prefix}/ndcg_at_{_NDCG_AT}", sum_by_image(ranks.ndcg(_NDCG_AT), image_ids)
