"""Queries of test that are shown with what the models found for them, in both directions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brewline.config.evaluate import EvaluateParams
from brewline.evaluation.model_scores import ModelScores
from brewline.evaluation.vectors import SplitEmbeddings, closest

_NUM_SHOWN = 5
# Why a query is shown: drawn by lot; two rows differ most on it; or by how the row that is best on
# dev answers it.
LOT, DIFFERS, BEST, MEDIAN, WORST = "lot", "differs", "best", "median", "worst"


@dataclass(frozen=True)
class Texts:
    """What was heard in a recording, and what people wrote, if they did.

    `language` is that of the recording, as a code; None: nobody knows.
    """

    transcript: str
    caption: str | None
    language: str | None


@dataclass(frozen=True)
class Chosen:
    """A query by its id, and why it is shown."""

    kind: str
    name: str


def choose_examples(
    shown: Mapping[str, ModelScores], best: str, baseline: str | None, params: EvaluateParams
) -> list[Chosen]:
    """Chooses recordings of test to show: half by lot, half where two rows differ most.

    Without a baseline, or with none but it, all of them are by lot. Beside them stand some that the
    best row answers best, worst and in the middle; see `choose_by_rank`.

    Args:
        shown: Of each row the model that is shown.
        best: The row that is best on dev; it is compared with the baseline.
        baseline: See `TableParams`.
        params: How many, and the lot.
    """
    ids = sorted(next(iter(shown.values())).rank_of)
    compared = baseline is not None and baseline != best
    num_drawn = -(-params.num_examples // (2 if compared else 1))
    chosen = [Chosen(LOT, one) for one in sorted(_draw(ids, num_drawn, params.bootstrap_seed))]
    if baseline is not None and compared:
        ours, theirs = shown[best].rank_of, shown[baseline].rank_of
        taken = {one.name for one in chosen}
        left = sorted(set(ids) - taken, key=lambda one: (-abs(ours[one] - theirs[one]), one))
        chosen += [Chosen(DIFFERS, one) for one in left[: params.num_examples - len(chosen)]]
    return choose_by_rank(shown[best].rank_of, chosen, params)


def choose_pictures(shown: ModelScores, params: EvaluateParams) -> list[Chosen]:
    """Chooses pictures of test to show: by lot, and by how the best row answers them.

    Args:
        shown: The model of the row that is best on dev.
        params: How many, and the lot.
    """
    ids = sorted(shown.rank_of_image)
    drawn = _draw(ids, _some(params), params.bootstrap_seed)
    return choose_by_rank(shown.rank_of_image, [Chosen(LOT, one) for one in drawn], params)


def choose_by_rank(
    rank_of: Mapping[str, int], chosen: Sequence[Chosen], params: EvaluateParams
) -> list[Chosen]:
    """Adds queries that are answered best, in the middle and worst, a quarter of the examples each.

    Of equal ranks the lot decides.

    Args:
        rank_of: The best rank of a right answer by query.
        chosen: What is shown already, and not again.
        params: How many, and the lot.
    """
    number = _some(params)
    taken = {one.name for one in chosen}
    lot = _draw(sorted(rank_of), len(rank_of), params.bootstrap_seed)
    order = sorted((one for one in lot if one not in taken), key=rank_of.__getitem__)
    ends, middle = min(number, len(order) // 3), len(order) // 2
    start = middle - ends // 2
    found = {
        BEST: order[:ends],
        MEDIAN: order[start : start + ends],
        WORST: order[len(order) - ends :][::-1],
    }
    return [*chosen, *(Chosen(kind, one) for kind, each in found.items() for one in each)]


def _some(params: EvaluateParams) -> int:
    return -(-params.num_examples // 4)


def _draw(ids: Sequence[str], number: int, seed: int) -> list[str]:
    drawn = np.random.default_rng(seed).permutation(len(ids))[:number]
    return [ids[index] for index in drawn]


def make_example(
    chosen: Chosen,
    texts: Mapping[str, Texts],
    embeddings: SplitEmbeddings,
    rank_of: Mapping[str, int],
) -> dict[str, Any]:
    """What is shown of a recording: its texts, and the images that stand highest for it."""
    row = embeddings.utterance_ids.index(chosen.name)
    top = closest(embeddings.image_embeddings, embeddings.utterance_embeddings[row], _NUM_SHOWN)
    return {
        "kind": chosen.kind,
        "utterance_id": chosen.name,
        "image_id": embeddings.utterance_image_ids[row],
        "transcript": texts[chosen.name].transcript,
        "caption": texts[chosen.name].caption,
        "rank": rank_of[chosen.name],
        "top": [{"image_id": embeddings.image_ids[index], "score": score} for index, score in top],
    }


def make_picture_example(
    chosen: Chosen,
    texts: Mapping[str, Texts],
    embeddings: SplitEmbeddings,
    rank_of: Mapping[str, int],
) -> dict[str, Any]:
    """What is shown of an image: the recordings that stand highest for it, with what was heard."""
    row = embeddings.image_ids.index(chosen.name)
    top = closest(embeddings.utterance_embeddings, embeddings.image_embeddings[row], _NUM_SHOWN)
    return {
        "kind": chosen.kind,
        "image_id": chosen.name,
        "rank": rank_of[chosen.name],
        "top": [
            {
                "utterance_id": (name := embeddings.utterance_ids[index]),
                "image_id": embeddings.utterance_image_ids[index],
                "transcript": texts[name].transcript,
                "score": score,
            }
            for index, score in top
        ],
    }
