"""What the two channels of a model are: how long, how alike, and what each finds by itself.

They are summed as they are, so the longer one speaks louder. Pure functions of vectors. Suffixes: U
utterances, D dimension.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brewline.evaluation.bootstrap import Bootstrap, ByImage, sum_by_image
from brewline.evaluation.ranks import Ranks, rank_both_ways
from brewline.evaluation.vectors import ACOUSTIC, FUSED, TEXT, Embeddings, SplitEmbeddings

_NUM_BINS = 40
_QUARTERS = (0.25, 0.5, 0.75)
# What is ranked: each channel by itself, and their sum.
SIGNALS = (ACOUSTIC, TEXT, FUSED)
# Who finds the picture of a recording.
BOTH, NEITHER = "both", "neither"
OUTCOMES = (BOTH, ACOUSTIC, TEXT, NEITHER)


@dataclass(frozen=True)
class ModelChannels:
    """The channels of one model on a split.

    `norms` (U,) by channel; `cosines` (U,) between them; `ranks` of the right images by signal,
    from speech to image, and `backward` from image to speech.
    """

    utterance_ids: Sequence[str]
    norms: Mapping[str, NDArray[np.float64]]
    cosines: NDArray[np.float64]
    ranks: Mapping[str, Ranks]
    backward: Mapping[str, Ranks]


def measure_channels(split: SplitEmbeddings) -> ModelChannels:
    """Measures and ranks the channels of vectors that were loaded with them."""
    norms = {
        name: np.linalg.norm(vectors.astype(np.float64), axis=1)
        for name, vectors in split.channels.items()
    }
    units = {name: _unit(vectors) for name, vectors in split.channels.items()}
    units[FUSED] = split.utterance_embeddings
    both = {
        name: rank_both_ways(
            vectors, split.image_embeddings, split.utterance_image_ids, split.image_ids
        )
        for name, vectors in units.items()
    }
    return ModelChannels(
        split.utterance_ids,
        norms,
        np.einsum("ud,ud->u", units[ACOUSTIC], units[TEXT]).astype(np.float64),
        {name: one[0] for name, one in both.items()},
        {name: one[1] for name, one in both.items()},
    )


def _unit(vectors_UD: Embeddings) -> Embeddings:
    norms = np.linalg.norm(vectors_UD, axis=1, keepdims=True)
    # A vector of zeros is like nothing.
    units: Embeddings = vectors_UD / np.maximum(norms, np.finfo(np.float32).tiny)
    return units


def describe_channels(
    models: Sequence[ModelChannels],
    image_of: Sequence[str],
    image_ids: Sequence[str],
    k: int,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """What the channels of a row are like; means over the models of its seeds.

    Args:
        models: Of the row.
        image_of: The image of each utterance.
        image_ids: The images, in the order of their vectors.
        k: How many ranks are a hit.
        bootstrap: How intervals are estimated.

    Returns:
        A row's part of `channels.json`: quarters of the norms and of the cosines, recall of each
        signal with its interval, who finds how many, and how many of each are found by the sum.
    """
    return {
        "num_models": len(models),
        "norms": {
            name: _quarters([one.norms[name] for one in models]) for name in (ACOUSTIC, TEXT)
        },
        "cosine": _quarters([one.cosines for one in models]),
        "recall": {
            name: {
                direction: _recall(parts, bootstrap)
                for direction, parts in {
                    f"speech_to_image/recall_at_{k}": [
                        sum_by_image(one.ranks[name].any_hit(k), image_of) for one in models
                    ],
                    f"image_to_speech/any_hit_recall_at_{k}": [
                        sum_by_image(one.backward[name].any_hit(k), image_ids) for one in models
                    ],
                }.items()
            }
            for name in SIGNALS
        },
        "outcomes": _outcomes(models, k),
        "histogram": norm_histogram(models),
    }


def _quarters(values: Sequence[NDArray[np.float64]]) -> list[float]:
    return [float(value) for value in np.mean([np.quantile(one, _QUARTERS) for one in values], 0)]


def _recall(parts: Sequence[ByImage], bootstrap: Bootstrap) -> dict[str, float]:
    low, high = bootstrap.interval(bootstrap.over_seeds([bootstrap.drawn(one) for one in parts]))
    return {"value": float(np.mean([one.value for one in parts])), "low": low, "high": high}


def outcome_of(acoustic: bool, text: bool) -> str:
    """Who finds a picture: one of `OUTCOMES`."""
    if acoustic == text:
        return BOTH if acoustic else NEITHER
    return ACOUSTIC if acoustic else TEXT


def _outcomes(models: Sequence[ModelChannels], k: int) -> dict[str, dict[str, float]]:
    """The share of recordings that each outcome has, and the share of them that the sum finds."""
    shares: dict[str, list[float]] = {name: [] for name in OUTCOMES}
    found: dict[str, list[float]] = {name: [] for name in OUTCOMES}
    for one in models:
        hits = {name: one.ranks[name].any_hit(k) > 0 for name in SIGNALS}
        outcomes = np.array(
            [outcome_of(*each) for each in zip(hits[ACOUSTIC], hits[TEXT], strict=True)]
        )
        for name in OUTCOMES:
            shares[name].append(float((outcomes == name).mean()))
            found[name].append(float((hits[FUSED] & (outcomes == name)).mean()))
    return {
        name: {"share": float(np.mean(shares[name])), "found_by_sum": float(np.mean(found[name]))}
        for name in OUTCOMES
    }


def norm_histogram(models: Sequence[ModelChannels]) -> dict[str, list[float]]:
    """The middles of bins of norms, and the share of recordings in each, by channel."""
    values = {
        name: np.concatenate([one.norms[name] for one in models]) for name in (ACOUSTIC, TEXT)
    }
    edges = np.linspace(0, max(float(one.max()) for one in values.values()) or 1.0, _NUM_BINS + 1)
    shares = {
        name: (np.histogram(one, edges)[0] / len(one)).tolist() for name, one in values.items()
    }
    return {"norm": ((edges[1:] + edges[:-1]) / 2).tolist(), **shares}


def find_disagreements(model: ModelChannels, k: int) -> dict[str, list[str]]:
    """The recordings whose picture one channel finds and the other misses, by who finds it.

    The first ones are those where the ranks lie farthest apart.
    """
    acoustic, text = (model.ranks[name].best for name in (ACOUSTIC, TEXT))
    order = np.lexsort((np.arange(len(text)), -np.abs(acoustic - text)))
    found: dict[str, list[str]] = {ACOUSTIC: [], TEXT: []}
    for row in order:
        outcome = outcome_of(bool(acoustic[row] <= k), bool(text[row] <= k))
        if outcome in found:
            found[outcome].append(model.utterance_ids[row])
    return found
