"""A split of a corpus as unit vectors to search in."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Gallery:
    """One split of a corpus as unit vectors, with what is shown of it.

    `utterances` (U, D) and `images` (I, D) are float32; `captions` are by utterance.
    """

    utterance_ids: list[str]
    utterance_image_ids: list[str]
    captions: list[str | None]
    image_ids: list[str]
    utterances: NDArray[np.float32]
    images: NDArray[np.float32]

    def caption_of_image(self, image_id: str) -> str | None:
        """The first caption of an image."""
        return self.captions[self.utterance_image_ids.index(image_id)]


def best(targets: NDArray[np.float32], query: Vector, top: int) -> list[tuple[int, float]]:
    """The rows of `targets` (N, D) most like `query` (D,), best first: (row, cosine).

    The order is stable, so that equal scores give equal answers.
    """
    scores = targets @ query
    return [(int(row), float(scores[row])) for row in np.argsort(-scores, kind="stable")[:top]]


def save_gallery(path: Path, gallery: Gallery) -> None:
    """Writes a gallery as one safetensors file; the names stand in its header, as JSON."""
    names = {
        "utterance_ids": gallery.utterance_ids,
        "utterance_image_ids": gallery.utterance_image_ids,
        "captions": gallery.captions,
        "image_ids": gallery.image_ids,
    }
    arrays = {"utterances": gallery.utterances, "images": gallery.images}
    with atomic_path(path) as partial:
        save_file(arrays, partial, metadata={"names": json.dumps(names)})


def load_gallery(path: Path) -> Gallery:
    """Reads what `save_gallery` wrote.

    Raises:
        BrewlineError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "np") as file:
            names = json.loads(file.metadata()["names"])
            arrays = {name: file.get_tensor(name) for name in ("utterances", "images")}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BrewlineError(f"{path} is missing or damaged: {error}") from None
    return Gallery(**names, **arrays)
