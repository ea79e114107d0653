"""From utterances to tensors: decoded images, token ids, encoder states.

What never changes is done once: an image is decoded to its final size and a text is tokenised the
first time it is met, and kept while there is memory for it.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from brewline.config.variants import VariantParams
from brewline.core.errors import BrewlineError
from brewline.core.system import usable_cores
from brewline.models.inputs import (
    Batch,
    InputTransforms,
    PictureInputs,
    RaggedStates,
    UtteranceInputs,
)
from brewline.samples.cache import OVERHEAD_BYTES, Cache
from brewline.samples.utterance import Utterance

_MB = 1 << 20
_MAX_DECODERS = 8


@dataclass(frozen=True)
class FrozenFeatures:
    """Outputs of towers without prompts, which no training step changes.

    `texts` are features (E) by utterance id, `images` unit embeddings by image id: (E), or of
    each of its squares, (L, E).
    """

    texts: Mapping[str, Tensor]
    images: Mapping[str, Tensor]

    @cached_property
    def max_squares(self) -> int:
        """Of all images, so that batches are alike in every process."""
        return max(len(image) for image in self.images.values())


class Collator:
    """Makes batches for one variant.

    Args:
        transforms: How the model wants its inputs.
        switches: Which channels need inputs.
        cache_mb: Memory for decoded images and token ids.
        frozen: Stand-ins for texts and images, where there are any.
    """

    def __init__(
        self,
        transforms: InputTransforms,
        switches: VariantParams,
        cache_mb: int,
        frozen: FrozenFeatures | None = None,
    ) -> None:
        self._transforms = transforms
        self._switches = switches
        self._frozen = frozen
        self._images: Cache[Tensor] = Cache(cache_mb * _MB)
        self._texts: Cache[Tensor] = Cache(cache_mb * _MB // 8)
        self._decoders = ThreadPoolExecutor(min(usable_cores(), _MAX_DECODERS))

    def collate(self, utterances: Sequence[Utterance]) -> Batch:
        """Makes a batch.

        Raises:
            BrewlineError: an utterance lacks what the variant needs.
        """
        images = {image_id_of(utterance): utterance for utterance in utterances}
        position = {image_id: index for index, image_id in enumerate(images)}
        batch = Batch(
            utterances=self.utterance_inputs(utterances),
            image_index=torch.tensor([position[image_id_of(u)] for u in utterances]),
            image_ids=torch.tensor([number_of(image_id_of(u)) for u in utterances]),
        )
        if self._frozen is not None:
            rows = [self._frozen.images[image_id] for image_id in images]
            if self._switches.pairing is None:
                return replace(batch, image_embeddings=torch.stack(rows))
            squares, mask = _padded(rows, self._frozen.max_squares)
            return replace(batch, image_embeddings=squares, square_mask=mask)
        return replace(batch, pictures=self.pictures(list(images.values())))

    def utterance_inputs(self, utterances: Sequence[Utterance]) -> UtteranceInputs:
        """Makes the inputs of the utterance's channels.

        Raises:
            BrewlineError: an utterance has no caption or no states, and the variant needs them.
        """
        inputs = UtteranceInputs(len(utterances))
        if self._switches.text and self._frozen is not None:
            rows = [self._frozen.texts[utterance.utterance_id] for utterance in utterances]
            inputs = replace(inputs, text_features=torch.stack(rows))
        elif self._switches.text:
            token_ids, text_index = self._token_ids(utterances)
            inputs = replace(inputs, token_ids=token_ids, text_index=text_index)
        if self._switches.acoustic:
            states, frame_mask = self._states(utterances)
            inputs = replace(inputs, states=states, frame_mask=frame_mask)
        if self._switches.fusion == "gate":
            confidence = [self._confidence_in(utterance) for utterance in utterances]
            inputs = replace(inputs, confidence=torch.tensor(confidence))
        return inputs

    def pictures(self, utterances: Sequence[Utterance]) -> PictureInputs:
        """What the model sees of the images of utterances.

        Raises:
            BrewlineError: an image is missing or damaged.
        """
        missing = [u for u in utterances if self._images.get(image_id_of(u)) is None]
        decoded = dict(
            zip(map(image_id_of, missing), self._decoders.map(self._decode, missing), strict=True)
        )
        for image_id, image in decoded.items():
            self._images.put(image_id, image, image.numel() + OVERHEAD_BYTES)
        rows = []
        for utterance in utterances:
            image_id = image_id_of(utterance)
            row = decoded.get(image_id)
            rows.append(self._images.get(image_id) if row is None else row)
        views = [row for row in rows if row is not None]
        return PictureInputs(len(views), torch.cat(views), owners_of(views))

    def _decode(self, utterance: Utterance) -> Tensor:
        if utterance.image is None:
            raise BrewlineError(f"utterance {utterance.utterance_id!r} has no image")
        return decode_views(utterance.image, self._transforms.views, utterance.utterance_id)

    def _token_ids(self, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor | None]:
        texts = [self._tokenise(_text_of(utterance, self._switches)) for utterance in utterances]
        rows = [row for text in texts for row in text]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), owners_of(texts)

    def _confidence_in(self, utterance: Utterance) -> float:
        return utterance.confidence if self._switches.text == "asr" else 1.0

    def _tokenise(self, text: str) -> Tensor:
        token_ids = self._texts.get(text)
        if token_ids is None:
            token_ids = self._transforms.tokenise(text)
            self._texts.put(text, token_ids, 8 * token_ids.numel() + len(text) + OVERHEAD_BYTES)
        return token_ids

    def _states(self, utterances: Sequence[Utterance]) -> tuple[RaggedStates, Tensor]:
        lay_out = self._transforms.lay_out
        assert lay_out is not None
        states = [_states_of(utterance) for utterance in utterances]
        return lay_out(states, [utterance.num_frames for utterance in utterances])


def decode_views(image: bytes, views: Callable[[Any], Sequence[Any]], utterance_id: str) -> Tensor:
    """What a model sees of a picture, (squares, 3, side, side) in uint8.

    Raises:
        BrewlineError: it is damaged, and of which utterance it is.
    """
    try:
        squares = views(Image.open(io.BytesIO(image)))
    except (UnidentifiedImageError, OSError) as error:
        raise BrewlineError(
            f"the image of utterance {utterance_id!r} is damaged: {error}"
        ) from None
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()


def _padded(rows: Sequence[Tensor], most: int) -> tuple[Tensor, Tensor]:
    """Rows of several squares each, (I, L, E), with zeros behind them, and which are there."""
    squares = rows[0].new_zeros(len(rows), most, rows[0].shape[1])
    counts = torch.tensor([len(row) for row in rows])
    mask = torch.arange(most) < counts[:, None]
    squares[mask] = torch.cat(list(rows))
    return squares, mask


def owners_of(parts: Sequence[Tensor]) -> Tensor | None:
    """For each row of some tensors the number of its tensor; None where each has one."""
    lengths = torch.tensor([len(part) for part in parts])
    if bool((lengths == 1).all()):
        return None
    return torch.arange(len(parts)).repeat_interleave(lengths)


def image_id_of(utterance: Utterance) -> str:
    """The id of the image that an utterance describes.

    Raises:
        BrewlineError: it describes none.
    """
    if utterance.image_id is None:
        raise BrewlineError(f"utterance {utterance.utterance_id!r} has no image")
    return utterance.image_id


def number_of(image_id: str) -> int:
    """A number of 63 bits that stands for an id in every process."""
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8]) >> 1


def _text_of(utterance: Utterance, switches: VariantParams) -> str:
    if switches.text == "asr":
        return utterance.transcript
    if utterance.caption is None:
        raise BrewlineError(
            f"utterance {utterance.utterance_id!r} has no caption; use a variant with `text: asr`"
        )
    return utterance.caption


def _states_of(utterance: Utterance) -> NDArray[np.float16]:
    if utterance.states is None:
        raise BrewlineError(
            f"utterance {utterance.utterance_id!r} came without encoder states, which an acoustic "
            "channel needs"
        )
    return utterance.states
