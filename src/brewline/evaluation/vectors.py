"""Splits of a corpus as unit vectors with their ids, and the file that holds them.

`data/embeddings/<corpus>/<experiment>/<seed-n|frozen>.safetensors` has, for each split, the arrays
`<split>/utterances` (U, D) and `<split>/images` (I, D) in float32, and, of a model with two
channels, `<split>/acoustic` and `<split>/text` (U, D) as they were before they were summed. The ids
stand in its header, as JSON under `ids`. Whoever has vectors and ids needs no model to score or to
search them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path

Embeddings = NDArray[np.float32]
# The two channels of an utterance, and what they become.
ACOUSTIC, TEXT, FUSED = "acoustic", "text", "fused"


@dataclass(frozen=True)
class SplitEmbeddings:
    """A split as unit vectors: every utterance (U, D), and every image once (I, D).

    Images stand in the order in which they were first met. `channels` are what the utterances are
    the normalised sum of, (U, D) each and not of unit length, where that was kept.
    """

    utterance_ids: list[str]
    utterance_image_ids: list[str]
    utterance_embeddings: Embeddings
    image_ids: list[str]
    image_embeddings: Embeddings
    channels: Mapping[str, Embeddings] = field(default_factory=dict)


def save_vectors(path: Path, splits: Mapping[str, SplitEmbeddings]) -> None:
    """Writes splits by their names, whole or not at all."""
    ids, arrays = {}, {}
    for split, one in splits.items():
        ids[split] = [one.utterance_ids, one.utterance_image_ids, one.image_ids]
        arrays[f"{split}/utterances"] = np.ascontiguousarray(one.utterance_embeddings)
        arrays[f"{split}/images"] = np.ascontiguousarray(one.image_embeddings)
        for name, vectors in one.channels.items():
            arrays[f"{split}/{name}"] = np.ascontiguousarray(vectors)
    with atomic_path(path) as partial:
        save_file(arrays, partial, metadata={"ids": json.dumps(ids)})


def load_vectors(path: Path, with_channels: bool = False) -> dict[str, SplitEmbeddings]:
    """Reads what `save_vectors` wrote.

    Args:
        path: The file.
        with_channels: Whether the channels are read too, where there are any.

    Raises:
        BrewlineError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "np") as file:
            ids = json.loads(file.metadata()["ids"])
            splits = {
                split: SplitEmbeddings(
                    utterances,
                    images_of,
                    file.get_tensor(f"{split}/utterances"),
                    images,
                    file.get_tensor(f"{split}/images"),
                    {
                        name: file.get_tensor(f"{split}/{name}")
                        for name in (ACOUSTIC, TEXT)
                        if with_channels and f"{split}/{name}" in file.keys()  # noqa: SIM118
                    },
                )
                for split, (utterances, images_of, images) in ids.items()
            }
    except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise BrewlineError(f"{path} is missing or damaged: {error}; run `dvc repro`") from None
    for split, one in splits.items():
        numbers = (len(one.utterance_ids), len(one.utterance_image_ids), len(one.image_ids))
        rows = (len(one.utterance_embeddings), len(one.image_embeddings))
        whole = all(len(vectors) == rows[0] for vectors in one.channels.values())
        if numbers != (rows[0], rows[0], rows[1]) or not whole:
            raise BrewlineError(
                f"{path} has {rows[0]} and {rows[1]} vectors of {split} for other numbers of ids; "
                "run `dvc repro`"
            )
    return splits


def holds_vectors(path: Path) -> bool:
    """Whether a file of partial work is there and whole."""
    try:
        return bool(load_vectors(path))
    except BrewlineError:
        return False


def closest(targets: Embeddings, query: Embeddings, top: int) -> list[tuple[int, float]]:
    """The rows of `targets` (N, D) most like `query` (D,), best first: (row, cosine).

    The order is stable, so that equal scores give equal answers.
    """
    scores = targets @ query
    return [(int(row), float(scores[row])) for row in np.argsort(-scores, kind="stable")[:top]]
