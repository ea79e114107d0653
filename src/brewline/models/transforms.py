"""From texts, images and encoder states to what a model takes, one at a time."""

from functools import partial
from typing import Any

from torch import Tensor

from brewline.config.variants import VariantParams
from brewline.models.acoustic import pool_frames
from brewline.models.backbones import ClipBackbone
from brewline.models.inputs import InputTransforms
from brewline.models.towers import lay_out_tokens


def input_transforms(backbone: ClipBackbone, switches: VariantParams) -> InputTransforms:
    """The transforms of one variant.

    Args:
        backbone: Its tokeniser and preprocessing are used.
        switches: How many prompts the tokens are laid out for, and how states are pooled.
    """
    # The last two make a tensor and normalise it, which models do themselves.
    *steps, _, _ = backbone.preprocess.transforms  # type: ignore[attr-defined]

    def crop(picture: Any) -> Any:
        for step in steps:
            picture = step(picture)
        return picture

    def tokenise(text: str) -> Tensor:
        end_id = backbone.vocabulary_size - 1
        row_1L = lay_out_tokens(backbone.tokenizer([text]), switches.prompts, end_id)
        length = int(row_1L[0].argmax()) + 1
        return row_1L[0, :length].clone()

    pool = partial(pool_frames, params=switches.acoustic) if switches.acoustic else None
    return InputTransforms(crop, tokenise, pool)
