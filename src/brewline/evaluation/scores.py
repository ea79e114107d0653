"""How well the embeddings of a split find one another.

Metric names are `<split>/<direction>/<metric>`, values are fractions. Training chooses by these on
dev.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from brewline.evaluation.bootstrap import ByImage, sum_by_image
from brewline.evaluation.query_metrics import query_ranks
from brewline.evaluation.query_ranks import QueryRanks
from brewline.evaluation.ranks import Ranks, rank_embeddings
from brewline.evaluation.vectors import SplitEmbeddings

SELECTION_METRIC = "dev/mean_recall_at_1"


@dataclass(frozen=True)
class RetrievalScores:
    """The metrics of one model; `by_image` has what their intervals are computed from.

    `rank_of` is the rank of the right image by utterance id, on test; `dev_ranks` are all of dev.
    """

    metrics: dict[str, float]
    by_image: dict[str, ByImage] = field(default_factory=dict)
    rank_of: dict[str, int] = field(default_factory=dict)
    dev_ranks: QueryRanks | None = None


def score_retrieval(
    embeddings: SplitEmbeddings, split: str, recall_at: Sequence[int]
) -> RetrievalScores:
    """Computes the metrics of one split, both directions (BrewCLIP, section 4.2).

    Speech to image: every utterance asks for its image. Image to speech: every image asks for its
    utterances; `any_hit_recall_at_k` wants one of them in the top k (the paper's number),
    `recall_at_k` is the share of them there.
    """
    utterances, images = embeddings.utterance_embeddings, embeddings.image_embeddings
    image_of, image_ids = embeddings.utterance_image_ids, embeddings.image_ids
    forward = rank_embeddings(utterances, images, image_of, image_ids)
    backward = rank_embeddings(images, utterances, image_ids, image_of)
    s2i, i2s = f"{split}/speech_to_image", f"{split}/image_to_speech"
    by_image: dict[str, ByImage] = {}
    for k in recall_at:
        by_image[f"{s2i}/recall_at_{k}"] = sum_by_image(forward.any_hit(k), image_of)
        by_image[f"{i2s}/any_hit_recall_at_{k}"] = sum_by_image(backward.any_hit(k), image_ids)
        by_image[f"{i2s}/recall_at_{k}"] = sum_by_image(backward.fraction_found(k), image_ids)
    metrics = {name: table.mean for name, table in by_image.items()}
    metrics |= _sizes(s2i, forward) | _sizes(i2s, backward)
    dev_ranks = None
    if split == "dev":
        dev_ranks = query_ranks(forward, backward, image_of, image_ids)
        metrics[SELECTION_METRIC] = float(
            (forward.any_hit(1).mean() + backward.any_hit(1).mean()) / 2
        )
    rank_of = dict(zip(embeddings.utterance_ids, forward.best.tolist(), strict=True))
    return RetrievalScores(metrics, by_image, rank_of, dev_ranks)


def _sizes(prefix: str, ranks: Ranks) -> dict[str, float]:
    return {
        f"{prefix}/median_rank": float(np.median(ranks.best)),
        f"{prefix}/num_queries": float(ranks.num_queries),
        f"{prefix}/gallery_size": float(ranks.gallery_size),
    }
