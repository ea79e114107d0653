"""From utterances to tensors: decoded images, token ids, encoder states.

What never changes is done once: an image is decoded to its final size and a text is tokenised the
first time it is met, and kept while there is room for it.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
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
from brewline.samples.decoded_pictures import DecodedPictures, Squares
from brewline.samples.utterance import BadSampleError, Utterance

# For token ids.
_TEXT_CACHE_BYTES = 128 << 20
_MAX_DECODERS = 8


@dataclass(frozen=True)
class FrozenFeatures:
    """Outputs of towers without prompts, which no training step changes.

    `texts` are features (E) by utterance id, `images` unit embeddings by image id: (E), or of
    each of its squares, (L, E); `damaged` says of the other images why there are none.
    """

    texts: Mapping[str, Tensor]
    images: Mapping[str, Tensor]
    damaged: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def max_squares(self) -> int:
        """Of all images, so that batches are alike in every process."""
        return max(len(image) for image in self.images.values())


class Collator:
    """Makes batches for one variant.

    Args:
        transforms: How the model wants its inputs.
        switches: Which channels need inputs.
        decoded: Keeps decoded images; without it each is decoded whenever it is asked for.
        frozen: Stand-ins for texts and images, where there are any.
    """

    def __init__(
        self,
        transforms: InputTransforms,
        switches: VariantParams,
        decoded: DecodedPictures | None = None,
        frozen: FrozenFeatures | None = None,
    ) -> None:
        self._transforms = transforms
        self._switches = switches
        self._frozen = frozen
        self._decoded = decoded
        self._texts: Cache[Tensor] = Cache(_TEXT_CACHE_BYTES)
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
        known = self._known_images(list(images.values()))
        if known is not None and self._frozen is not None:
            if self._switches.pairing is None:
                return replace(batch, image_embeddings=torch.stack(known))
            squares, mask = _padded(known, self._frozen.max_squares)
            return replace(batch, image_embeddings=squares, square_mask=mask)
        return replace(batch, pictures=self.pictures(list(images.values())))

    def frozen_images(self, utterances: Sequence[Utterance]) -> Tensor | None:
        """The unit embeddings (B, E) of the images of utterances, where they are known.

        Raises:
            BadSampleError: an image is damaged.
        """
        known = self._known_images(utterances)
        return None if known is None else torch.stack(known)

    def _known_images(self, utterances: Sequence[Utterance]) -> list[Tensor] | None:
        """What is known of each utterance's image, (E) or (L, E)."""
        if self._frozen is None:
            return None
        rows = []
        for utterance in utterances:
            image_id = image_id_of(utterance)
            if why := self._frozen.damaged.get(image_id):
                raise BadSampleError(utterance.utterance_id, why)
            rows.append(self._frozen.images[image_id])
        return rows

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
            inputs = self.text_inputs(utterances)
        if self._switches.acoustic:
            states, frame_mask = self._states(utterances)
            inputs = replace(inputs, states=states, frame_mask=frame_mask)
        if self._switches.fusion == "gate":
            confidence = [self._confidence_in(utterance) for utterance in utterances]
            inputs = replace(inputs, confidence=torch.tensor(confidence))
        return inputs

    def text_inputs(self, utterances: Sequence[Utterance]) -> UtteranceInputs:
        """Makes the inputs of the text channel alone.

        Raises:
            BrewlineError: an utterance has no caption, and the variant needs it.
        """
        texts = [self._tokenise(_text_of(utterance, self._switches)) for utterance in utterances]
        token_ids = torch.nn.utils.rnn.pad_sequence(
            [row for text in texts for row in text], batch_first=True
        )
        return UtteranceInputs(len(utterances), token_ids, owners_of(texts))

    def pictures(self, utterances: Sequence[Utterance]) -> PictureInputs:
        """What the model sees of the images of utterances.

        Raises:
            BrewlineError: an image is missing; a `BadSampleError` if it is damaged.
        """
        numbers = [number_of(image_id_of(utterance)) for utterance in utterances]
        known = self._decoded.get(numbers) if self._decoded else {}
        missing = {n: u for n, u in zip(numbers, utterances, strict=True) if n not in known}
        new = dict(zip(missing, self._decoders.map(self._decode, missing.values()), strict=True))
        if self._decoded:
            self._decoded.put(new)
        views = [(known | new)[number] for number in numbers]
        return PictureInputs(len(views), torch.from_numpy(np.concatenate(views)), owners_of(views))

    def _decode(self, utterance: Utterance) -> Squares:
        if utterance.image is None:
            raise BrewlineError(f"utterance {utterance.utterance_id!r} has no image")
        return decode_views(utterance.image, self._transforms.views, utterance.utterance_id)

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


def decode_views(image: bytes, views: Callable[[Any], Sequence[Any]], utterance_id: str) -> Squares:
    """What a model sees of a picture.

    Raises:
        BadSampleError: it is damaged.
    """
    try:
        squares = views(Image.open(io.BytesIO(image)))
    except (UnidentifiedImageError, OSError) as error:
        raise BadSampleError(
            utterance_id, f"the image of utterance {utterance_id!r} is damaged: {error}"
        ) from None
    return np.ascontiguousarray(np.stack(squares).transpose(0, 3, 1, 2))


def _padded(rows: Sequence[Tensor], most: int) -> tuple[Tensor, Tensor]:
    """Rows of several squares each, (I, L, E), with zeros behind them, and which are there."""
    squares = rows[0].new_zeros(len(rows), most, rows[0].shape[1])
    counts = torch.tensor([len(row) for row in rows])
    mask = torch.arange(most) < counts[:, None]
    squares[mask] = torch.cat(list(rows))
    return squares, mask


def owners_of(parts: Sequence[Sized]) -> Tensor | None:
    """For each row of some arrays the number of its array; None where each has one."""
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
