"""Vectors of the recordings of a corpus, under several names, and the file that holds them.

A safetensors file with a float32 array for each name, whose first axis runs over the recordings;
their ids stand in its header, as JSON under `ids`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path


@dataclass(frozen=True)
class Features:
    """Arrays (U, ...) by name, a row for each of U recordings."""

    utterance_ids: Sequence[str]
    arrays: Mapping[str, NDArray[np.float32]]


def save_features(path: Path, features: Features) -> None:
    """Writes the file, whole or not at all; equal features give equal bytes."""
    arrays = {name: np.ascontiguousarray(array) for name, array in features.arrays.items()}
    ids = json.dumps(list(features.utterance_ids))
    with atomic_path(path) as partial:
        save_file(arrays, partial, metadata={"ids": ids})


def load_features(path: Path) -> Features:
    """Reads what `save_features` wrote.

    Raises:
        BrewlineError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "np") as file:
            ids = json.loads(file.metadata()["ids"])
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise BrewlineError(f"{path} is missing or damaged: {error}; run `dvc repro`") from None
    wrong = next((name for name, array in arrays.items() if len(array) != len(ids)), None)
    if wrong is not None:
        raise BrewlineError(
            f"{path} has {len(arrays[wrong])} vectors of {wrong} for {len(ids)} ids; run "
            "`dvc repro`"
        )
    return Features(ids, arrays)


def holds_features(path: Path) -> bool:
    """Whether a file of partial work is there and whole."""
    try:
        return bool(load_features(path).arrays)
    except BrewlineError:
        return False
