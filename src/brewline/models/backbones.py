"""The frozen CLIP: any model of open_clip, from a folder in its format, with sizes of its own.

Whisper, the other frozen backbone, is run by `brewline.speech`; the models see only its states.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from brewline.config.shard import ShardParams
from brewline.config.variants import VariantParams
from brewline.core.errors import BrewlineError
from brewline.models.names import BACKBONES_FOLDER, CLIP_CONFIG, CLIP_FOLDER, CLIP_WEIGHTS
from brewline.models.texts import TextLayout
from brewline.models.towers import (
    CannotCarryPromptsError,
    ImageTower,
    TextTower,
    TimmImageTower,
    find_image_tower,
    find_text_tower,
)

SOUND_REFUSED = (
    "encoder: clip needs a CLIP whose image tower is open_clip's own ViT; use a CLIP ViT, or "
    "another encoder"
)


@dataclass(frozen=True)
class ClipBackbone:
    """A frozen model of open_clip with what belongs to it.

    `tokenizer` maps a list of texts, and how many tokens each gets, to ids (B, context_length);
    `preprocess` maps a PIL image to normalised pixels (3, image_size, image_size).
    """

    clip: Any
    tokenizer: Callable[..., Tensor]
    preprocess: Callable[[Any], Tensor]

    @cached_property
    def towers(self) -> tuple[TextTower, ImageTower | TimmImageTower]:
        """Its two towers, if both can carry prompts.

        Raises:
            CannotCarryPromptsError: one of them has no place for them.
        """
        return find_text_tower(self.clip), find_image_tower(self.clip)

    @property
    def problem(self) -> str:
        """Why it cannot carry prompts; nothing if it can."""
        try:
            find_text_tower(self.clip)
            find_image_tower(self.clip)
        except CannotCarryPromptsError as error:
            return str(error)
        return ""

    @property
    def can_be_watched(self) -> bool:
        """Whether what it attends to can be looked at."""
        return not self.problem and isinstance(self.towers[1], ImageTower)

    @property
    def has_plain_vit(self) -> bool:
        """Whether its image tower is a transformer from which one for sounds can start."""
        try:
            return isinstance(find_image_tower(self.clip), ImageTower)
        except CannotCarryPromptsError:
            return False

    @cached_property
    def layout(self) -> TextLayout:
        """How its texts are laid out."""
        return TextLayout(self.tokenizer, self.context_length)

    @property
    def text_width(self) -> int:
        """Width of the text tower, in which prompts are learned; without one, of what it gives."""
        return self.embedding_size if self.problem else self.towers[0].width

    @property
    def vision_width(self) -> int:
        """Width of the image tower."""
        return self.towers[1].width

    @cached_property
    def embedding_size(self) -> int:
        """Size of the space that texts and images share."""
        device = next(self.clip.parameters()).device
        nothing = torch.zeros(1, self.context_length, dtype=torch.long, device=device)
        with torch.no_grad():
            return int(self.clip.encode_text(nothing).shape[1])

    @property
    def context_length(self) -> int:
        """The most tokens of a text, start and end included."""
        return int(self.clip.context_length)

    @property
    def num_layers(self) -> int:
        """Of the tower that has fewer."""
        return min(len(tower.blocks) for tower in self.towers)

    @property
    def image_size(self) -> int:
        """Side of the square that an image becomes, in pixels."""
        size = self.clip.visual.image_size
        return int(size if isinstance(size, int) else size[0])


def make_backbone(
    clip: nn.Module,
    tokenizer: Callable[..., Tensor],
    preprocess: Callable[[Any], Tensor],
) -> ClipBackbone:
    """Freezes a model of open_clip."""
    return ClipBackbone(clip.eval().requires_grad_(False), tokenizer, preprocess)


def prompts_refused(backbone: ClipBackbone) -> str:
    """What to tell whoever wants prompts in a CLIP that cannot carry them."""
    return (
        f"this CLIP cannot carry prompts: {backbone.problem}; set prompts: 0, or use a CLIP ViT or "
        "a SigLIP"
    )


def load_clip(folder: Path = BACKBONES_FOLDER / CLIP_FOLDER) -> ClipBackbone:
    """Loads the CLIP in `folder` in fp32 on the processor, frozen and in evaluation mode.

    Raises:
        BrewlineError: a file is missing or damaged, or a package that it needs.
    """
    for name in (CLIP_CONFIG, CLIP_WEIGHTS):
        if not (folder / name).is_file():
            raise BrewlineError(f"{folder / name} is missing; run `dvc repro weights`")
    name = f"local-dir:{folder}"
    try:
        clip, preprocess = open_clip.create_model_from_pretrained(name)
        tokenizer = open_clip.get_tokenizer(name)
    except ModuleNotFoundError as error:
        raise BrewlineError(
            f"the CLIP in {folder} needs {error.name}: `uv pip install '.[siglip]'`", "settings"
        ) from None
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
        if variant.acoustic
        and variant.acoustic.branch == "brewclip"
        and width % variant.acoustic.heads
    ]
    problems += [
        f"variants.{name}.acoustic.branch: 'cascaded' reads by CLIP's text tower, which this CLIP "
        f"does not let it: {backbone.problem}; take parallel, or a CLIP ViT or a SigLIP"
        for name, variant in variants.items()
        if variant.acoustic and variant.acoustic.branch == "cascaded" and backbone.problem
    ]
    problems += [
        f"variants.{name}.prompts: {prompts_refused(backbone)}"
        for name, variant in variants.items()
        if variant.prompts and backbone.problem
    ]
    # One word has to fit.
    room = backbone.layout.room(num_prompts=1)
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
        if variant.prompts and not backbone.problem and variant.prompt_depth > backbone.num_layers
    ]
    problems += [
        f"variants.{name}.sound: {SOUND_REFUSED}"
        for name, variant in variants.items()
        if variant.sound and variant.sound.encoder == "clip" and not backbone.has_plain_vit
    ]
    if shard.image_short_side_px < side:
        problems.append(
            f"shard.image_short_side_px: {shard.image_short_side_px} is below the side of "
            f"{side} pixels that this CLIP looks at"
        )
    return problems
