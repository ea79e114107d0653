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
class RaggedStates(OnDevice):
    """The encoder states of B recordings one behind the other, in the 16-bit numbers of the shards.

    They are averaged and padded where they are needed: on their way to a device they are less than
    half as large. `frames` (G * group_size, ...): groups of states that become one each, the last
    one of a recording filled up with zeros; `counts` (G,) are how many of a group's are states, and
    `places` (G,) say where the group stands among the B * T of `shape`.
    """

    frames: Tensor
    group_size: int
    counts: Tensor
    places: Tensor
    shape: tuple[int, int]

    def padded(self) -> Tensor:
        """The mean of each group in its place, and zeros elsewhere: (B, T, ...) in fp32."""
        state_shape = self.frames.shape[1:]
        groups = self.frames.view(len(self.counts), self.group_size, *state_shape)
        means = groups[:, 0].float()
        if self.group_size > 1:
            for offset in range(1, self.group_size):
                means += groups[:, offset]
            means /= self.counts.view(-1, *[1] * len(state_shape))
        places = means.new_zeros(self.shape[0] * self.shape[1], *state_shape)
        return places.index_copy_(0, self.places, means).view(*self.shape, *state_shape)


@dataclass(frozen=True)
class UtteranceInputs(OnDevice):
    """Inputs of the channels of B utterances; those of a channel that is off are None.

    Token ids (R, L) are laid out for the prompts; `text_index` (R,) says which of the utterances
    a row is of, in their order, and is None where each has one. `states` are padded to (B, T, S) by
    the model, `frame_mask` (B, T) is True for frames to attend to; `confidence` (B,) is the
    recogniser's, where it is asked for. `text_features` (B, E) stand in for tokens where they
    never change.
    """

    num_utterances: int
    token_ids: Tensor | None = None
    text_index: Tensor | None = None
    text_features: Tensor | None = None
    states: RaggedStates | None = None
    frame_mask: Tensor | None = None
    confidence: Tensor | None = None


@dataclass(frozen=True)
class PictureInputs(OnDevice):
    """Squares of I pictures, uint8 (R, 3, side, side).

    `picture_index` (R,) says which of the pictures a square is of, in their order, and is None
    where each has one.
    """

    num_pictures: int
    pixels: Tensor
    picture_index: Tensor | None = None

    def num_squares(self) -> list[int]:
        """How many squares each picture has."""
        if self.picture_index is None:
            return [1] * self.num_pictures
        counts: list[int] = self.picture_index.bincount(minlength=self.num_pictures).tolist()
        return counts


@dataclass(frozen=True)
class Batch(OnDevice):
    """Utterances and their images, each image once.

    `image_index` (B,) says which of the I images an utterance shows; `image_ids` (B,) are numbers
    of these images, the same in every batch and process. `image_embeddings` (I, E) stand in for
    `pictures` where they never change; where recordings are paired with squares they are (I, L, E),
    of which `square_mask` (I, L) says which are there, the first ones.
    """

    utterances: UtteranceInputs
    image_index: Tensor
    image_ids: Tensor
    pictures: PictureInputs | None = None
    image_embeddings: Tensor | None = None
    square_mask: Tensor | None = None


@dataclass(frozen=True)
class InputTransforms:
    """How a model wants its inputs; see `brewline.models.transforms`.

    `views` maps a PIL image to the squares that the model sees of it; `tokenise` a text to its
    rows of token ids (R, L), laid out for the prompts; `lay_out` the encoder states of recordings,
    (T, S) each, and how many of them are their own, to those of a batch and its frame mask. Without
    an acoustic channel there is no `lay_out`.
    """

    views: Callable[[Any], Sequence[Any]]
    tokenise: Callable[[str], Tensor]
    lay_out: (
        Callable[[Sequence[NDArray[np.float16]], Sequence[int]], tuple[RaggedStates, Tensor]] | None
    ) = None
