"""Recordings of test that are shown with what the models found for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from brewline.config.evaluate import EvaluateParams
from brewline.evaluation.model_scores import ModelScores
from brewline.evaluation.scores import SELECTION_METRIC
from brewline.evaluation.vectors import SplitEmbeddings, closest

_NUM_SHOWN = 5


@dataclass(frozen=True)
class Texts:
    """What was heard in a recording, and what people wrote, if they did.

    `language` is that of the recording, as a code; None: nobody knows.
    """

    transcript: str
    caption: str | None
    language: str | None


def choose_examples(
    shown: Mapping[str, ModelScores],
    metrics: Mapping[str, Mapping[str, float]],
    baseline: str | None,
    params: EvaluateParams,
) -> list[str]:
    """Chooses test utterances to show: half by lot, half where two rows differ most.

    The two are the baseline and the row that is best on dev. Without a baseline all are by lot.
    """
    ids = sorted(next(iter(shown.values())).rank_of)
    rng = np.random.default_rng(params.bootstrap_seed)
    others = [name for name in shown if name != baseline]
    share = 2 if baseline is not None and others else 1
    num_drawn = min(len(ids), -(-params.num_examples // share))
    drawn = [ids[index] for index in sorted(rng.permutation(len(ids))[:num_drawn])]
    if baseline is None or not others:
        return drawn
    best = max(others, key=lambda name: metrics[name][SELECTION_METRIC])
    ours, theirs = shown[best].rank_of, shown[baseline].rank_of
    left = sorted(set(ids) - set(drawn), key=lambda one: (-abs(ours[one] - theirs[one]), one))
    return drawn + left[: params.num_examples - num_drawn]


def make_example(
    utterance_id: str, texts: Texts, embeddings: SplitEmbeddings, rank: int
) -> dict[str, Any]:
    """The entry of `examples.json`: a recording, and the images that stand highest for it."""
    row = embeddings.utterance_ids.index(utterance_id)
    top = closest(embeddings.image_embeddings, embeddings.utterance_embeddings[row], _NUM_SHOWN)
    return {
        "utterance_id": utterance_id,
        "image_id": embeddings.utterance_image_ids[row],
        "transcript": texts.transcript,
        "caption": texts.caption,
        "rank": rank,
        "top": [{"image_id": embeddings.image_ids[index], "score": score} for index, score in top],
    }
