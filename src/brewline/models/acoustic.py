"""The acoustic branch: from encoder states to one feature (BrewCLIP, section 3.2, or SpeechCLIP-P).

Shapes: B utterances, T (pooled) frames, S width of the encoder's states, W width of the branch
(that of CLIP's text tower, or S), M prompts, E embedding size.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brewline.config.variants import AcousticParams
from brewline.models.attention import attend, is_watched, project
from brewline.models.inputs import RaggedStates

# Encoders give 50 states a second, and Whisper's sees windows of 30 s.
FRAMES_PER_SECOND = 50
FRAMES_PER_WINDOW = 30 * FRAMES_PER_SECOND


def lay_out_states(
    states: Sequence[NDArray[np.float16]], num_frames: Sequence[int], params: AcousticParams
) -> tuple[RaggedStates, Tensor]:
    """Puts the states of recordings together in groups of `pool_frames`, which become their means.

    Averaging before the linear layer gives what averaging behind it would, at less cost. The last
    group of a recording may be smaller. States of all layers, (T, L, S), were averaged when they
    were stored, and have no padding.

    With `padding_mask: valid` states of padding, where they were stored (`asr.states: all`), are
    left out. With `none` they count, as the paper's model attends to the padding; where they were
    not stored, zeros up to whole windows stand for them.

    Args:
        states: Of each recording, (T, S), with those of its padding behind them or without.
        num_frames: How many of them are the recording's own.
        params: How many states make a group, and whether padding counts.

    Returns:
        The groups of B recordings, and the mask (B, T) of those that count, with T of the longest.
    """
    size, has_mask = params.pool_frames, params.padding_mask == "valid"
    if params.hears_layers:
        size = 1
    elif has_mask:
        states = [one[:own] for one, own in zip(states, num_frames, strict=True)]
    lengths = np.array([len(one) for one in states])
    stored = -(-lengths // size)
    # Zeros that stand for padding are not laid out.
    window = 1 if has_mask else FRAMES_PER_WINDOW
    counted = -(-lengths // window) * window
    num_groups = -(-counted // size)
    longest = int(num_groups.max())
    starts = np.concatenate([[0], np.cumsum(stored)])
    frames = np.empty((starts[-1] * size, *states[0].shape[1:]), np.float16)
    for one, start, stop in zip(states, starts, starts[1:], strict=False):
        frames[start * size : start * size + len(one)] = one
        frames[start * size + len(one) : stop * size] = 0
    row = np.repeat(np.arange(len(states)), stored)
    group = np.arange(starts[-1]) - starts[row]
    ragged = RaggedStates(
        torch.from_numpy(frames),
        size,
        torch.from_numpy(np.minimum(size, counted[row] - size * group)),
        torch.from_numpy(row * longest + group),
        (len(states), longest),
    )
    return ragged, torch.from_numpy(np.arange(longest) < num_groups[:, None])


class AcousticBranch(nn.Module):
    """Class token, shared prompts and projected states through a small transformer.

    There are no positions: the encoder's states carry them already. The layout is that of the
    authors' code, where prompts are joined after the projection, not before it. Branch `parallel`
    is as wide as the states, which are not projected.

    Args:
        state_width: S.
        width: Of CLIP's text tower.
        embedding_size: E.
        params: Branch, layers, heads, feed-forward width and dropout.
    """

    num_class_tokens = 1

    def __init__(
        self, state_width: int, width: int, embedding_size: int, params: AcousticParams
    ) -> None:
        super().__init__()
        assert params.feedforward_width is not None
        is_parallel = params.branch == "parallel"
        width = state_width if is_parallel else width
        self.project_in = nn.Identity() if is_parallel else nn.Linear(state_width, width)
        self.class_token = nn.Parameter(torch.randn(width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                params.heads,
                params.feedforward_width,
                params.dropout,
                activation="gelu",
                batch_first=True,
            )
            for _ in range(params.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.project_out = nn.Linear(width, embedding_size)

    @property
    def last_attention(self) -> nn.Module:
        """The attention that the feature is read behind."""
        last: Any = self.layers[-1]
        attention: nn.Module = last.self_attn
        return attention

    def forward(
        self, states_BTS: Tensor, frame_mask_BT: Tensor, prompts_MW: Tensor | None
    ) -> Tensor:
        """Computes acoustic features.

        Args:
            states_BTS: Pooled states, padded to the longest of the batch.
            frame_mask_BT: True for frames to attend to.
            prompts_MW: The shared prompts, or None.

        Returns:
            Acoustic features (B, E), not normalised.
        """
        batch_size = len(states_BTS)
        lead_PW = self.class_token[None]
        if prompts_MW is not None:
            lead_PW = torch.cat([lead_PW, prompts_MW])
        frames_BTW = self.project_in(states_BTS)
        lead_BPW = lead_PW.to(frames_BTW.dtype).expand(batch_size, -1, -1)
        x_BLW = torch.cat([lead_BPW, frames_BTW], dim=1)
        # Class token and prompts are always attended to.
        ignored_BL = torch.cat(
            [frame_mask_BT.new_zeros(batch_size, len(lead_PW)), ~frame_mask_BT], dim=1
        )
        *layers, last = self.layers
        for layer in layers:
            x_BLW = layer(x_BLW, src_key_padding_mask=ignored_BL)
        x_BW = _class_row(last, x_BLW, ignored_BL)
        features: Tensor = self.project_out(self.norm(x_BW))
        return features


def _class_row(layer: nn.Module, x_BLW: Tensor, ignored_BL: Tensor) -> Tensor:
    """The first row of what a post-norm `nn.TransformerEncoderLayer` gives, and no other row."""
    assert isinstance(layer, nn.TransformerEncoderLayer)
    class_B1W = x_BLW[:, :1]
    if is_watched():
        # That of torch mixes with weights that it does not give.
        (query,) = project(layer.self_attn, class_B1W, 0, 1)
        key, value = project(layer.self_attn, x_BLW, 1, 3)
        mixed_B1W = attend(layer.self_attn, query, key, value, ~ignored_BL[:, None, None])
    else:
        mixed_B1W, _ = layer.self_attn(
            class_B1W, x_BLW, x_BLW, key_padding_mask=ignored_BL, need_weights=False
        )
    class_B1W = layer.norm1(class_B1W + layer.dropout1(mixed_B1W))
    hidden = layer.dropout(layer.activation(layer.linear1(class_B1W)))
    class_BW: Tensor = layer.norm2(class_B1W + layer.dropout2(layer.linear2(hidden)))[:, 0]
    return class_BW
