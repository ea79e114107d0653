"""The layers of an encoder as one: a weighted sum, and a part of the recording in training.

SpeechCLIP (Shih et al., 2022) hears the layers of HuBERT this way. Shapes: B utterances, T frames,
L layers, S width of a frame.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerMix(nn.Module):
    """A sum of layers, whose weights are learned and add up to 1.

    Args:
        num_layers: L.
        normalise: Whether each frame of each layer is brought to mean 0 and deviation 1 first: the
            layers of HuBERT large differ much in size.
        learn: Whether the weights are learned; else each layer counts alike.
    """

    def __init__(self, num_layers: int, normalise: bool, learn: bool) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(num_layers)) if learn else None
        self._normalise = normalise

    def forward(self, states_BTLS: Tensor) -> Tensor:
        """The sum, (B, T, S)."""
        if self._normalise:
            states_BTLS = F.layer_norm(states_BTLS, states_BTLS.shape[-1:])
        if self.weights is None:
            return states_BTLS.mean(dim=2)
        return torch.einsum("l,btls->bts", self.weights.softmax(dim=0), states_BTLS)


def random_crop(frame_mask_BT: Tensor, num_frames: int) -> Tensor:
    """Leaves a stretch of each recording, from a moment that torch's generator draws.

    Args:
        frame_mask_BT: True for its own frames, which come first.
        num_frames: How many are left; shorter recordings stay whole.
    """
    lengths_B = frame_mask_BT.sum(dim=1)
    latest_B = (lengths_B - num_frames).clamp(min=0)
    drawn_B = torch.rand(len(lengths_B), device=frame_mask_BT.device)
    first_B1 = (drawn_B * (latest_B + 1)).long().clamp(max=latest_B)[:, None]
    places_T = torch.arange(frame_mask_BT.shape[1], device=frame_mask_BT.device)
    return frame_mask_BT & (places_T >= first_B1) & (places_T < first_B1 + num_frames)
