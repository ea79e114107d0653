"""The two CLIP towers with prompts, as functions of a frozen CLIP (BrewCLIP, section 3.3).

Shapes: B texts or images, L tokens, W width of a tower, M prompts, E embedding size.

Only one row of each tower's last block is ever read (the end token, the class token), so only that
row is computed there; with no prompts the results are those of open_clip's own encoders.
"""

from typing import Any

import torch
from torch import Tensor

from brewline.models.attention import attend, project


def lay_out_tokens(token_ids_BL: Tensor, num_prompts: int, end_id: int) -> Tensor:
    """Makes room for the prompts after the start token: [start, 0 x M, words..., end, 0...].

    The length stays; words that no longer fit are dropped, and the end token is kept.

    Args:
        token_ids_BL: Token ids as CLIP's tokeniser pads them, (B, L).
        num_prompts: M.
        end_id: Id of the end token.

    Returns:
        Token ids (B, L), with 0 in the prompts' places.
    """
    if num_prompts == 0:
        return token_ids_BL
    length = token_ids_BL.shape[1]
    slots = token_ids_BL.new_zeros(len(token_ids_BL), num_prompts)
    words = token_ids_BL[:, 1 : length - num_prompts]
    laid_out = torch.cat([token_ids_BL[:, :1], slots, words], dim=1)
    # Not told by the last id, which may be 0 where words go on too: that of "!" is.
    is_cut_B = (laid_out != end_id).all(dim=1)
    laid_out[is_cut_B, -1] = end_id
    return laid_out


def encode_text(clip: Any, token_ids_BL: Tensor, prompts_MW: Tensor | None = None) -> Tensor:
    """Encodes texts.

    Args:
        clip: An open_clip CLIP that `make_backbone` accepted.
        token_ids_BL: Token ids as `lay_out_tokens` gives them, (B, L); trailing columns beyond
            the last end token may be cut off, which changes nothing because attention is causal.
        prompts_MW: Prompts in the text tower's width, or None.

    Returns:
        Text features (B, E), not normalised.
    """
    x_BLW = clip.token_embedding(token_ids_BL)
    length = token_ids_BL.shape[1]
    if prompts_MW is not None:
        num_prompts = len(prompts_MW)
        prompts_BMW = prompts_MW.expand(len(x_BLW), -1, -1)
        x_BLW = torch.cat([x_BLW[:, :1], prompts_BMW, x_BLW[:, 1 + num_prompts :]], dim=1)
    x_BLW = x_BLW + clip.positional_embedding[:length]
    # The end token has the largest id of the vocabulary.
    end_B = token_ids_BL.argmax(dim=1)
    *blocks, last = clip.transformer.resblocks
    causal_LL = torch.ones(length, length, dtype=torch.bool, device=end_B.device).tril()
    for block in blocks:
        x_BLW = _block(block, x_BLW, causal_LL)
    seen_BL = torch.arange(length, device=end_B.device) <= end_B[:, None]
    x_BW = _last_block(last, x_BLW, end_B, seen_BL)
    features: Tensor = clip.ln_final(x_BW) @ clip.text_projection
    return features


def encode_image(clip: Any, pixels_BCHW: Tensor, prompts_MW: Tensor | None = None) -> Tensor:
    """Encodes images; prompts follow the patches and carry no position.

    Args:
        clip: An open_clip CLIP that `make_backbone` accepted.
        pixels_BCHW: Normalised pixels.
        prompts_MW: Prompts in the image tower's width, or None.

    Returns:
        Image features (B, E), not normalised.
    """
    visual = clip.visual
    x_BLW = visual._embeds(pixels_BCHW)
    if prompts_MW is not None:
        prompts_BMW = visual.ln_pre(prompts_MW).expand(len(x_BLW), -1, -1)
        x_BLW = torch.cat([x_BLW, prompts_BMW.to(x_BLW.dtype)], dim=1)
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x_BLW = _block(block, x_BLW, None)
    class_row_B = x_BLW.new_zeros(len(x_BLW), dtype=torch.long)
    x_BW = _last_block(last, x_BLW, class_row_B, None)
    features: Tensor = visual.ln_post(x_BW) @ visual.proj
    return features


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
