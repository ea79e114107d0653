"""The frozen CLIP: loaded from a folder in open_clip's format, its sizes read from the weights.

Whisper, the other frozen backbone, is run by `brewline.speech`; the models see only its states.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from brewline.config.shard import ShardParams
from brewline.config.variants import VariantParams
from brewline.core.errors import BrewlineError
from brewline.models.names import BACKBONES_FOLDER, CLIP_CONFIG, CLIP_FOLDER, CLIP_WEIGHTS


@dataclass(frozen=True)
class ClipBackbone:
    """A frozen CLIP with what belongs to it.

    `tokenizer` maps a list of texts to token ids (B, context_length); `preprocess` maps a PIL
    image to normalised pixels (3, image_size, image_size).
    """

    clip: Any
    tokenizer: Callable[[list[str]], Tensor]
    preprocess: Callable[[Any], Tensor]

    @property
    def text_width(self) -> int:
        """Width of the text transformer; prompts are learned in it."""
        return int(self.clip.token_embedding.weight.shape[1])

    @property
    def vision_width(self) -> int:
        """Width of the image transformer."""
        return int(self.clip.visual.class_embedding.shape[0])

    @property
    def embedding_size(self) -> int:
        """Size of the space that texts and images share."""
        return int(self.clip.visual.proj.shape[1])

    @property
    def context_length(self) -> int:
        """The most tokens of a text, start and end included."""
        return int(self.clip.positional_embedding.shape[0])

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids; the end token has the largest one."""
        return int(self.clip.token_embedding.weight.shape[0])

    @property
    def num_layers(self) -> int:
        """Of the tower that has fewer."""
        towers = (self.clip.transformer, self.clip.visual.transformer)
        return min(len(tower.resblocks) for tower in towers)

    @property
    def image_size(self) -> int:
        """Side of the square that an image is cropped to, in pixels."""
        return int(self.clip.visual.image_size[0])


def make_backbone(
    clip: nn.Module,
    tokenizer: Callable[[list[str]], Tensor],
    preprocess: Callable[[Any], Tensor],
) -> ClipBackbone:
    """Freezes a CLIP of open_clip, after a check that the towers can carry prompts.

    Raises:
        BrewlineError: the architecture has no place for the prompts (BrewCLIP, section 3.3): it is
            not a plain vision transformer with a causal text transformer.
    """
    problem = _unsupported(clip)
    if problem:
        raise BrewlineError(
            f"this CLIP cannot carry prompts: {problem}; use one of the CLIP ViT models", "settings"
        )
    return ClipBackbone(clip.eval().requires_grad_(False), tokenizer, preprocess)


def load_clip(folder: Path = BACKBONES_FOLDER / CLIP_FOLDER) -> ClipBackbone:
    """Loads the CLIP in `folder` in fp32 on the processor, frozen and in evaluation mode.

    Raises:
        BrewlineError: a file is missing, damaged, or of an architecture that is not supported.
    """
    for name in (CLIP_CONFIG, CLIP_WEIGHTS):
        if not (folder / name).is_file():
            raise BrewlineError(f"{folder / name} is missing; run `dvc repro weights`")
    name = f"local-dir:{folder}"
    try:
        clip, preprocess = open_clip.create_model_from_pretrained(name)
        tokenizer = open_clip.get_tokenizer(name)
    # open_clip lets through whatever the parsers of JSON, safetensors and torch raise.
    except Exception as error:  # noqa: BLE001
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BrewlineError(f"open_clip cannot load the CLIP in {folder}: {reason}") from None
    return make_backbone(clip, tokenizer, preprocess)


def misfits(
    backbone: ClipBackbone, variants: Mapping[str, VariantParams], shard: ShardParams
) -> list[str]:
    """What parameters ask for and this CLIP has no room for, a sentence each."""
    width, side = backbone.text_width, backbone.image_size
    problems = [
        f"variants.{name}.acoustic.heads: {variant.acoustic.heads} heads do not divide the width "
        f"{width} of this CLIP's text tower, which the acoustic branch has too"
        for name, variant in variants.items()
        if variant.acoustic and width % variant.acoustic.heads
    ]
    # The start token, the end token and one of a word.
    room = backbone.context_length - 3
    problems += [
        f"variants.{name}.prompts: {variant.prompts} leave no room for words in the "
        f"{backbone.context_length} tokens of this CLIP's texts; {room} at most"
        for name, variant in variants.items()
        if variant.prompts > room
    ]
    problems += [
        f"variants.{name}.prompt_depth: {variant.prompt_depth} are more than the "
        f"{backbone.num_layers} layers that both towers of this CLIP have"
        for name, variant in variants.items()
        if variant.prompts and variant.prompt_depth > backbone.num_layers
    ]
    if shard.image_short_side_px < side:
        problems.append(
            f"shard.image_short_side_px: {shard.image_short_side_px} is below the side of "
            f"{side} pixels that this CLIP looks at"
        )
    return problems


def _unsupported(clip: nn.Module) -> str:
    visual = getattr(clip, "visual", None)
    if not isinstance(clip, open_clip.CLIP) or not isinstance(visual, VisionTransformer):
        return f"{type(clip).__name__} with {type(visual).__name__} as image tower"
    if visual.pool_type != "tok" or visual.attn_pool is not None:
        return "its image tower does not read the class token"
    if clip.attn_mask is None or clip.text_pool_type != "argmax":
        return "its text tower is not causal up to the end token"
    if not isinstance(clip.text_projection, torch.Tensor):
        return "its text projection is not a matrix"
    blocks = [*visual.transformer.resblocks, *clip.transformer.resblocks]
    if not all(isinstance(block, ResidualAttentionBlock) for block in blocks):
        return "its blocks are not the standard ones"
    return ""
