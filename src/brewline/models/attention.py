"""Attention as the towers compute it, and a way to look at what is attended to.

Shapes: B sequences, H heads, Q rows that ask, L rows that are asked, W width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Where a query may look: everywhere, up to its own place, or where a tensor is True.
Mask = Tensor | Literal["causal"] | None
# By the layer: what its rows attend to, (B, H, Q, L), as a part of the graph.
Watched = dict[nn.Module, Tensor]

_watched: ContextVar[Watched | None] = ContextVar("watched", default=None)


@contextmanager
def watch_attention() -> Iterator[Watched]:
    """Keeps the weights of every attention that is computed meanwhile, by its layer.

    They are what the values are mixed with, so a number that is computed from what comes out can be
    differentiated by them, in a frozen model too.
    """
    weights: Watched = {}
    token = _watched.set(weights)
    try:
        yield weights
    finally:
        _watched.reset(token)


def is_watched() -> bool:
    """Whether somebody looks at what is attended to."""
    return _watched.get() is not None


def project(
    attention: nn.MultiheadAttention, x_BLW: Tensor, start: int, stop: int
) -> tuple[Tensor, ...]:
    """Projects to queries (0), keys (1) and values (2), each (B, H, L, width of a head)."""
    width = x_BLW.shape[-1]
    rows = slice(start * width, stop * width)
    # nn.MultiheadAttention keeps the three matrices on top of one another.
    weight, bias = attention.in_proj_weight[rows], attention.in_proj_bias[rows]
    projected = F.linear(x_BLW, weight, bias)
    shape = (*x_BLW.shape[:2], stop - start, attention.num_heads, width // attention.num_heads)
    return projected.view(shape).permute(2, 0, 3, 1, 4).unbind()


def attend(
    attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, mask: Mask
) -> Tensor:
    """Mixes values and projects them out, as `mask` allows."""
    watched = _watched.get()
    if query.device.type == "cpu" or watched is not None:
        # At these lengths the fused kernel is slower on processors: its backward pass takes twice
        # as long in fp32, and seven times in bf16.
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        if mask is not None:
            seen = (
                torch.ones_like(scores[0, 0], dtype=torch.bool).tril() if mask == "causal" else mask
            )
            scores = scores.masked_fill(~seen, -torch.inf)
        weights = scores.float().softmax(dim=-1).to(value.dtype)
        if watched is not None:
            # Of a frozen tower nothing has a gradient by itself.
            watched[attention] = weights if weights.requires_grad else weights.requires_grad_()
        mixed = weights @ value
    elif mask == "causal":
        # With a mask in its place, a GPU would not take its fastest kernel.
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    else:
        mixed = F.scaled_dot_product_attention(query, key, value, mask)
    mixed_BLW = mixed.transpose(1, 2).flatten(2)
    return F.linear(mixed_BLW, attention.out_proj.weight, attention.out_proj.bias)
