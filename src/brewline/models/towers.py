"""The two CLIP towers with prompts, as functions of a frozen CLIP (BrewCLIP, section 3.3).

Prompts may be put in before several of the first layers (MaPLe, Khattak et al., 2023): those of a
later one take the place of what the layers before have made of the earlier ones.

Shapes: B texts or images, L tokens, W width of a tower, M prompts, E embedding size.

Only one row of each tower's last block is ever read (the end token, the class token), so only that
row is computed there; with no prompts the results are those of open_clip's own encoders.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from brewline.models.attention import attend, project


def encode_text(clip: Any, token_ids_BL: Tensor, prompts: Sequence[Tensor] = ()) -> Tensor:
    """Encodes texts.

    Args:
        clip: An open_clip CLIP that `make_backbone` accepted.
        token_ids_BL: Token ids as `models.texts` lays them out, (B, L); trailing columns beyond
            the last end token may be cut off, which changes nothing because attention is causal.
        prompts: (M, W) in the text tower's width for each of the first layers.

    Returns:
        Text features (B, E), not normalised.
    """
    x_BLW = clip.token_embedding(token_ids_BL)
    length = token_ids_BL.shape[1]
    if prompts:
        x_BLW = _put_in(prompts[0], x_BLW, 1)
    x_BLW = x_BLW + clip.positional_embedding[:length]
    # The end token has the largest id of the vocabulary.
    end_B = token_ids_BL.argmax(dim=1)
    blocks = clip.transformer.resblocks
    causal_LL = torch.ones(length, length, dtype=torch.bool, device=end_B.device).tril()
    x_BLW = _up_to_last(blocks, x_BLW, prompts, 1, causal_LL)
    seen_BL = torch.arange(length, device=end_B.device) <= end_B[:, None]
    x_BW = _last_block(blocks[-1], x_BLW, end_B, seen_BL)
    features: Tensor = clip.ln_final(x_BW) @ clip.text_projection
    return features


def encode_image(clip: Any, pixels_BCHW: Tensor, prompts: Sequence[Tensor] = ()) -> Tensor:
    """Encodes images; prompts follow the patches and carry no position.

    Args:
        clip: An open_clip CLIP that `make_backbone` accepted.
        pixels_BCHW: Normalised pixels.
        prompts: (M, W) in the image tower's width for each of the first layers.

    Returns:
        Image features (B, E), not normalised.
    """
    visual = clip.visual
    x_BLW = visual._embeds(pixels_BCHW)
    num_tokens = x_BLW.shape[1]
    if prompts:
        x_BLW = _put_in(visual.ln_pre(prompts[0]), x_BLW, num_tokens)
    blocks = visual.transformer.resblocks
    x_BLW = _up_to_last(blocks, x_BLW, prompts, num_tokens, None)
    class_row_B = x_BLW.new_zeros(len(x_BLW), dtype=torch.long)
    x_BW = _last_block(blocks[-1], x_BLW, class_row_B, None)
    features: Tensor = visual.ln_post(x_BW) @ visual.proj
    return features


def _put_in(prompts_MW: Tensor, x_BLW: Tensor, start: int) -> Tensor:
    """Puts prompts into rows from `start` on, in place of what is there, or at the end."""
    prompts_BMW = prompts_MW.to(x_BLW.dtype).expand(len(x_BLW), -1, -1)
    return torch.cat([x_BLW[:, :start], prompts_BMW, x_BLW[:, start + len(prompts_MW) :]], dim=1)


def _up_to_last(
    blocks: Any, x_BLW: Tensor, prompts: Sequence[Tensor], start: int, mask_LL: Tensor | None
) -> Tensor:
    """What the last block takes: all others are run, with their own prompts from `start` on."""
    for number, block in enumerate(blocks):
        if 0 < number < len(prompts):
            x_BLW = _put_in(prompts[number], x_BLW, start)
        if block is not blocks[-1]:
            x_BLW = _block(block, x_BLW, mask_LL)
    return x_BLW


def _block(block: Any, x_BLW: Tensor, mask_LL: Tensor | None) -> Tensor:
    normed_BLW: Tensor = block.ln_1(x_BLW)
    query, key, value = project(block.attn, normed_BLW, 0, 3)
    x_BLW = x_BLW + block.ls_1(attend(block.attn, query, key, value, mask_LL))
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
