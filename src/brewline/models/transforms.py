"""From texts, images and encoder states to what a model takes, one at a time."""

from functools import partial

from torch import Tensor

from brewline.config.variants import VariantParams
from brewline.models.acoustic import lay_out_states
from brewline.models.backbones import ClipBackbone
from brewline.models.inputs import InputTransforms
from brewline.models.views import picture_views


def input_transforms(backbone: ClipBackbone, switches: VariantParams) -> InputTransforms:
    """The transforms of one variant.

    Args:
        backbone: Its tokeniser and preprocessing are used.
        switches: How many prompts the tokens are laid out for, what is read of long texts and seen
            of pictures, and how states are grouped.
    """

    def tokenise(text: str) -> Tensor:
        if not switches.prompts and switches.long_texts == "truncate":
            return backbone.tokenizer([text])
        # The library's own encoder takes whole contexts.
        padded = not switches.prompts or backbone.towers[0].reads_padding
        return backbone.layout.rows(text, switches.prompts, switches.long_texts, padded)

    lay_out = partial(lay_out_states, params=switches.acoustic) if switches.acoustic else None
    return InputTransforms(picture_views(backbone, switches.pictures), tokenise, lay_out)
