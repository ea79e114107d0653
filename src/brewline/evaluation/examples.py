"""Recordings of test that are shown with what the models found for them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from brewline.config.evaluate import EvaluateParams
from brewline.config.models import UNTRAINED
from brewline.evaluation.embedding import SplitEmbeddings
from brewline.evaluation.scores import SELECTION_METRIC, RetrievalScores
from brewline.samples.shards import Utterance

_NUM_SHOWN = 5


def choose_examples(
    shown: Mapping[str, RetrievalScores],
    metrics: Mapping[str, Mapping[str, float]],
    params: EvaluateParams,
) -> list[str]:
    """Chooses test utterances to show: half by lot, half where two variants differ most.

    The two are zero-shot and `full`, or else the variant that is best on dev.
    """
    ids = sorted(next(iter(shown.values())).rank_of)
    rng = np.random.default_rng(params.bootstrap_seed)
    num_drawn = min(len(ids), (params.num_examples + 1) // 2)
    drawn = [ids[index] for index in sorted(rng.permutation(len(ids))[:num_drawn])]
    others = [name for name in shown if name != UNTRAINED]
    if UNTRAINED not in shown or not others:
        return drawn
    best = "full" if "full" in others else max(others, key=lambda v: metrics[v][SELECTION_METRIC])
    ours, theirs = shown[best].rank_of, shown[UNTRAINED].rank_of
    left = sorted(set(ids) - set(drawn), key=lambda one: (-abs(ours[one] - theirs[one]), one))
    return drawn + left[: params.num_examples - num_drawn]


def make_example(utterance: Utterance, embeddings: SplitEmbeddings, rank: int) -> dict[str, Any]:
    """The entry of `examples.json`: a recording, and the images that stand highest for it."""
    row = embeddings.utterance_ids.index(utterance.utterance_id)
    scores = embeddings.image_embeddings @ embeddings.utterance_embeddings[row]
    top = np.argsort(-scores, kind="stable")[:_NUM_SHOWN]
    return {
        "utterance_id": utterance.utterance_id,
        "image_id": utterance.image_id,
        "transcript": utterance.transcript,
        "caption": utterance.caption,
        "rank": rank,
        "top": [
            {"image_id": embeddings.image_ids[index], "score": float(scores[index])}
            for index in top
        ],
    }
