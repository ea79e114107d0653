"""What models take: batches of plain tensors, and how they are made of texts, images and states."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class OnDevice:
    """Tensors by name, and others of their kind, which can be moved together."""

    def to(self, device: torch.device) -> Self:
        """A copy with every tensor on `device`; whoever computes there need not wait for it."""
        return self._each(
            lambda value: (
                value.to(device, non_blocking=True)
                if isinstance(value, Tensor)
                else value.to(device)
            )
        )

    def pin(self) -> Self:
        """A copy in memory from which a GPU fetches by itself."""
        return self._each(
            lambda value: value.pin_memory() if isinstance(value, Tensor) else value.pin()
        )

    def _each(self, change: Callable[[Any], Any]) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {
            name: change(value)
            for name, value in values.items()
            if isinstance(value, Tensor | OnDevice)
        }
        return replace(self, **changed)


@dataclass(frozen=True)
class UtteranceInputs(OnDevice):
    """Inputs of the utterance's channels; those of a channel that is off are None.

    Token ids (R, L) are laid out for the prompts; `text_index` (R,) says which of the B utterances
    a row is of, in their order, and is None where each has one. States (B, T, S) are pooled and
    padded, `frame_mask` (B, T) is True for frames to attend to; `confidence` (B,) is the
    recogniser's, where it is asked for. `text_features` (B, E) stand in for tokens where they
    never change.
    """

    token_ids: Tensor | None = None
    text_index: Tensor | None = None
    text_features: Tensor | None = None
    states: Tensor | None = None
    frame_mask: Tensor | None = None
    confidence: Tensor | None = None


@dataclass(frozen=True)
class PictureInputs(OnDevice):
    """Squares of pictures, uint8 (R, 3, side, side).

    `picture_index` (R,) says which of the I pictures a square is of, in their order, and is None
    where each has one.
    """

    pixels: Tensor
    picture_index: Tensor | None = None


@dataclass(frozen=True)
class Batch(OnDevice):
    """Utterances and their images, each image once.

    `image_index` (B,) says which of the I images an utterance shows; `image_ids` (B,) are numbers
    of these images, the same in every batch and process. `image_embeddings` (I, E) stand in for
    `pictures` where they never change.
    """

    utterances: UtteranceInputs
    image_index: Tensor
    image_ids: Tensor
    pictures: PictureInputs | None = None
    image_embeddings: Tensor | None = None


@dataclass(frozen=True)
class InputTransforms:
    """How a model wants its inputs; see `brewline.models.transforms`.

    `views` maps a PIL image to the squares that the model sees of it; `tokenise` a text to its
    rows of token ids (R, L), laid out for the prompts; `pool` the encoder states of a recording
    (T, S), and how many of them are its own, to pooled ones. Without an acoustic channel there is
    no `pool`.
    """

    views: Callable[[Any], Sequence[Any]]
    tokenise: Callable[[str], Tensor]
    pool: Callable[[NDArray[np.float16], int], NDArray[np.float32]] | None = None
