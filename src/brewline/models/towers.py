"""The towers of open_clip that can carry prompts (BrewCLIP, section 3.3).

The text tower gets them behind its start token, or at its front where it has none; the image tower
behind its patches, without a position. They may be put in before several of the first layers
(MaPLe, Khattak et al., 2023): those of a later one take the place of what the layers before have
made of the earlier ones. With no prompts the results are those of open_clip's own encoders.

Shapes: B texts or images, L tokens, W width of a tower, M prompts, E embedding size.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, TextTransformer, VisionTransformer
from timm.models import vision_transformer as timm_transformer
from torch import Tensor, nn

from brewline.models.attention import Mask, attend, project
from brewline.models.layers import run_layer


class CannotCarryPromptsError(Exception):
    """Why a tower has no place for them."""


@dataclass(frozen=True)
class TextTower:
    """A transformer over tokens, causal as CLIP's or not, as SigLIP's.

    `module` has embeddings, blocks and projection; `pool` says which row is read: that of the
    largest id (`argmax`, CLIP's end token), of `end_id` (`eos`), or the last one of the context.
    """

    module: Any
    pool: str
    end_id: int

    @property
    def width(self) -> int:
        """W."""
        return int(self.module.token_embedding.weight.shape[1])

    @property
    def blocks(self) -> Sequence[Any]:
        """The layers, in their order."""
        return list(self.module.transformer.resblocks)

    @property
    def reads_padding(self) -> bool:
        """Whether what comes behind the end token matters."""
        return self.module.attn_mask is None or self.pool == "last"

    def rows_that_are_read(self, token_ids_BL: Tensor) -> Tensor:
        """The row of each text that becomes its feature, (B,)."""
        if self.pool == "last":
            return torch.full_like(token_ids_BL[:, 0], token_ids_BL.shape[1] - 1)
        if self.pool == "eos":
            return (token_ids_BL == self.end_id).int().argmax(dim=1)
        return token_ids_BL.argmax(dim=1)

    def encode(
        self, token_ids_BL: Tensor, prompts: Sequence[Tensor] = (), start: int = 1
    ) -> Tensor:
        """Encodes texts.

        Only one row of the last layer is ever read, so only that row is computed there.

        Args:
            token_ids_BL: Token ids as `models.texts` lays them out, (B, L); columns beyond the
                last end token may be cut off, unless it reads padding.
            prompts: (M, W) for each of the first layers, or (B, M, W) where each text has others.
            start: How many tokens come before the prompts.

        Returns:
            Text features (B, E), not normalised.
        """
        module, length = self.module, token_ids_BL.shape[1]
        x_BLW = module.token_embedding(token_ids_BL)
        if prompts:
            x_BLW = _put_in(prompts[0], x_BLW, start)
        x_BLW = x_BLW + module.positional_embedding[:length]
        row_B = self.rows_that_are_read(token_ids_BL)
        mask: Mask = None
        seen_BL = None
        if module.attn_mask is not None:
            mask = "causal"
            seen_BL = torch.arange(length, device=row_B.device) <= row_B[:, None]
        x_BLW = _up_to_last(self.blocks, x_BLW, prompts, start, mask)
        x_BW = module.ln_final(_last_block(self.blocks[-1], x_BLW, row_B, seen_BL))
        projection = module.text_projection
        if projection is None:
            return x_BW  # type: ignore[no-any-return]
        features: Tensor = (
            projection(x_BW) if isinstance(projection, nn.Linear) else x_BW @ projection
        )
        return features


@dataclass(frozen=True)
class ImageTower:
    """open_clip's own vision transformer, which reads the class token: that of CLIP."""

    module: Any

    @property
    def width(self) -> int:
        """W."""
        return int(self.module.class_embedding.shape[0])

    @property
    def blocks(self) -> Sequence[Any]:
        """The layers, in their order."""
        return list(self.module.transformer.resblocks)

    def encode(self, pixels_BCHW: Tensor, prompts: Sequence[Tensor] = ()) -> Tensor:
        """Encodes images.

        Args:
            pixels_BCHW: Normalised pixels.
            prompts: (M, W) for each of the first layers.

        Returns:
            Image features (B, E), not normalised.
        """
        module = self.module
        x_BLW = module._embeds(pixels_BCHW)
        num_tokens = x_BLW.shape[1]
        if prompts:
            x_BLW = _put_in(module.ln_pre(prompts[0]), x_BLW, num_tokens)
        x_BLW = _up_to_last(self.blocks, x_BLW, prompts, num_tokens, None)
        class_row_B = x_BLW.new_zeros(len(x_BLW), dtype=torch.long)
        x_BW = _last_block(self.blocks[-1], x_BLW, class_row_B, None)
        features: Tensor = module.ln_post(x_BW) @ module.proj
        return features


@dataclass(frozen=True)
class TimmImageTower:
    """timm's vision transformer, which may pool all patches: that of SigLIP.

    What it pools are its own tokens; prompts act through what these have taken from them.
    """

    module: Any

    @property
    def width(self) -> int:
        """W."""
        return int(self.module.trunk.embed_dim)

    @property
    def blocks(self) -> Sequence[Any]:
        """The layers, in their order."""
        return list(self.module.trunk.blocks)

    def encode(self, pixels_BCHW: Tensor, prompts: Sequence[Tensor] = ()) -> Tensor:
        """Encodes images; see `ImageTower`."""
        trunk = self.module.trunk
        x_BLW = trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(pixels_BCHW))))
        num_tokens = x_BLW.shape[1]
        for number, block in enumerate(self.blocks):
            if number < len(prompts):
                x_BLW = _put_in(prompts[number], x_BLW, num_tokens)
            x_BLW = run_layer(block, x_BLW)
        features: Tensor = self.module.head(trunk.forward_head(trunk.norm(x_BLW[:, :num_tokens])))
        return features


def find_text_tower(clip: Any) -> TextTower:
    """The text tower of a model of open_clip.

    Raises:
        CannotCarryPromptsError: it is built in another way.
    """
    module = getattr(clip, "text", clip)
    if module is not clip and not isinstance(module, TextTransformer):
        raise CannotCarryPromptsError(f"its text tower is {type(module).__name__}")
    if not hasattr(module, "token_embedding"):
        raise CannotCarryPromptsError(f"{type(clip).__name__} has no text tower that is known")
    if getattr(module, "cls_emb", None) is not None:
        raise CannotCarryPromptsError("its text tower reads a class token behind the text")
    if getattr(module, "use_pad_mask", False):
        raise CannotCarryPromptsError("its text tower masks padding")
    # A model that holds its text tower itself has other names for the two.
    own = module is clip
    pool = clip.text_pool_type if own else module.pool_type
    if pool not in ("argmax", "eos", "last"):
        raise CannotCarryPromptsError(f"its text tower pools {pool!r}")
    _require_standard(module.transformer.resblocks)
    return TextTower(module, pool, clip.text_eos_id if own else module.eos_id)


def find_image_tower(clip: Any) -> ImageTower | TimmImageTower:
    """The image tower of a model of open_clip.

    Raises:
        CannotCarryPromptsError: it is built in another way.
    """
    visual = getattr(clip, "visual", None)
    if isinstance(visual, TimmModel):
        if isinstance(visual.trunk, timm_transformer.VisionTransformer):
            return TimmImageTower(visual)
        raise CannotCarryPromptsError(f"its image tower is {type(visual.trunk).__name__}")
    if not isinstance(visual, VisionTransformer):
        raise CannotCarryPromptsError(f"its image tower is {type(visual).__name__}")
    if visual.pool_type != "tok" or visual.attn_pool is not None:
        raise CannotCarryPromptsError("its image tower does not read the class token")
    _require_standard(visual.transformer.resblocks)
    return ImageTower(visual)


def _require_standard(blocks: Iterable[Any]) -> None:
    if not all(type(block) is ResidualAttentionBlock for block in blocks):
        raise CannotCarryPromptsError("its layers are not the standard ones")


def _put_in(prompts: Tensor, x_BLW: Tensor, start: int) -> Tensor:
    """Puts prompts into rows from `start` on, in place of what is there, or at the end."""
    prompts_BMW = prompts.to(x_BLW.dtype).expand(len(x_BLW), -1, -1)
    behind = start + prompts.shape[-2]
    return torch.cat([x_BLW[:, :start], prompts_BMW, x_BLW[:, behind:]], dim=1)


def _up_to_last(
    blocks: Sequence[Any],
    x_BLW: Tensor,
    prompts: Sequence[Tensor],
    start: int,
    mask: Mask,
) -> Tensor:
    """What the last block takes: all others are run, with their own prompts from `start` on."""
    for number, block in enumerate(blocks):
        if 0 < number < len(prompts):
            x_BLW = _put_in(prompts[number], x_BLW, start)
        if block is not blocks[-1]:
            x_BLW = run_layer(run_block, block, x_BLW, mask)
    return x_BLW


def run_block(block: Any, x_BLW: Tensor, mask: Mask) -> Tensor:
    """One standard layer of open_clip."""
    normed_BLW: Tensor = block.ln_1(x_BLW)
    query, key, value = project(block.attn, normed_BLW, 0, 3)
    x_BLW = x_BLW + block.ls_1(attend(block.attn, query, key, value, mask))
    x_BLW = x_BLW + _feed_forward(block, x_BLW)
    return x_BLW


def _last_block(block: Any, x_BLW: Tensor, row_B: Tensor, seen_BL: Tensor | None) -> Tensor:
    """Runs a block for one row of each sequence; that row attends to the rows in `seen_BL`."""
    at = (torch.arange(len(row_B), device=row_B.device), row_B)
    normed_BLW = block.ln_1(x_BLW)
    (query,) = project(block.attn, normed_BLW[at][:, None], 0, 1)
    key, value = project(block.attn, normed_BLW, 1, 3)
    mask = None if seen_BL is None else seen_BL[:, None, None]
    x_B1W: Tensor = x_BLW[at][:, None] + block.ls_1(attend(block.attn, query, key, value, mask))
    x_B1W = x_B1W + _feed_forward(block, x_B1W)
    return x_B1W[:, 0]


def _feed_forward(block: Any, x: Tensor) -> Tensor:
    update: Tensor = block.ls_2(block.mlp(block.ln_2(x)))
    return update
