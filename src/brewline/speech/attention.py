"""Attention of Whisper's layers, by whatever computes it fastest.

Shapes: R rows, S queries, T keys, H heads, D width of a head.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

# From so many keys on, a processor does one head at a time: its scores stay in the cache.
_LONG = 400
# So few queries are a product of a matrix with some vectors.
_FEW = 16


def attend(queries_RHSD: Tensor, keys_RHTD: Tensor, values_RHTD: Tensor) -> Tensor:
    """Mixes values by the likeness of keys to queries: (R, H, S, D), without a mask.

    PyTorch's fused kernel for processors computes bf16 at the speed of fp32, and reads the keys of
    a single query slower than a plain product does (torch 2.15); so bf16 takes plain products.
    """
    queries, keys, values = queries_RHSD, keys_RHTD, values_RHTD
    if queries.device.type != "cpu" or queries.dtype != torch.bfloat16:
        return scaled_dot_product_attention(queries, keys, values)
    # That of the fused kernel.
    scale = queries.shape[-1] ** -0.5
    if queries.shape[-2] <= _FEW:
        scores_RHST = (queries * scale) @ keys.transpose(-1, -2)
        mixed_RHSD: Tensor = scores_RHST.float().softmax(-1).to(values.dtype) @ values
        return mixed_RHSD
    if keys.shape[-2] < _LONG:
        return scaled_dot_product_attention(queries, keys, values)
    # In the order of the sequence, in which the heads are joined afterwards.
    rows, num_heads, num_queries, size = queries.shape
    mixed_RSHD = values.new_empty(rows, num_queries, num_heads, size)
    for row in range(rows):
        for head in range(num_heads):
            scores_ST = (queries[row, head] * scale) @ keys[row, head].T
            mixed_RSHD[row, :, head] = scores_ST.softmax(-1) @ values[row, head]
    return mixed_RSHD.transpose(1, 2)


def to_heads(x_RSW: Tensor, num_heads: int) -> Tensor:
    """(R, S, W) to (R, H, S, D)."""
    rows, length, width = x_RSW.shape
    return x_RSW.view(rows, length, num_heads, width // num_heads).transpose(1, 2)


def join_heads(x_RHSD: Tensor) -> Tensor:
    """(R, H, S, D) to (R, S, W)."""
    return x_RHSD.transpose(1, 2).flatten(-2)
