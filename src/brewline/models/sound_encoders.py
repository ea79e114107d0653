"""Encoders of sounds: from a spectrogram to states over time, and from these to CLIP's space.

The first one is VIP-ANT's (Zhao et al., 2022): CLIP's image tower itself, which reads patches of a
spectrogram. Shapes: B sounds, T frames of the spectrogram, N states, W width, E embedding size.
"""

import copy
import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brewline.config.sounds import SoundParams
from brewline.core.errors import BrewlineError
from brewline.models.backbones import SOUND_REFUSED, ClipBackbone
from brewline.models.spectrogram import FRAME_S, NUM_BINS
from brewline.models.towers import run_block


@dataclass(frozen=True)
class SoundStates:
    """States over time (B, N, W), which are the sound's own (B, N), and when each is (N,)."""

    states: Tensor
    mask: Tensor
    times_s: Tensor


class SoundEncoder(Protocol):
    """What a model asks of an encoder, which is a module too."""

    def __call__(self, spectrogram_BTF: Tensor, num_frames_B: Tensor) -> SoundStates:
        """The states of sounds; what stands behind a sound's own frames does not change them."""

    def embed(self, pooled: Tensor) -> Tensor:
        """From pooled states (..., W) to CLIP's space (..., E); not normalised."""

    @property
    def mean(self) -> float:
        """What its spectrograms are on the average, which what is masked becomes."""


class SpectrogramTransformer(nn.Module):
    """CLIP's vision transformer over patches of a spectrogram; all of it is trained.

    It starts with the weights of the image tower: the kernel of its patches, summed over the three
    colours and scaled to the size asked for; its positions, stretched over bins and time; and all
    layers. The patches of one time are averaged into its state.

    Args:
        backbone: The CLIP, which stays as it is.
        params: Sizes of patches, and the longest sound.

    Raises:
        BrewlineError: its image tower is no plain vision transformer.
    """

    def __init__(self, backbone: ClipBackbone, params: SoundParams) -> None:
        super().__init__()
        if not backbone.has_plain_vit:
            raise BrewlineError(SOUND_REFUSED, "settings")
        assert params.patch is not None and params.stride is not None
        visual = backbone.clip.visual
        self._stride = params.stride
        self._patch = params.patch
        max_frames = math.ceil(params.max_duration_s / FRAME_S)
        grid = (
            (NUM_BINS - params.patch[0]) // params.stride[0] + 1,
            int(self._num_states(torch.tensor(max_frames))),
        )
        self.kernel = nn.Parameter(_scaled_kernel(visual.conv1.weight, params.patch))
        self.class_token = nn.Parameter(visual.class_embedding.detach().clone())
        self.class_position = nn.Parameter(visual.positional_embedding[0].detach().clone())
        self.positions = nn.Parameter(_stretched(visual.positional_embedding[1:].detach(), grid))
        self.norm_before = copy.deepcopy(visual.ln_pre)
        self.blocks = copy.deepcopy(visual.transformer.resblocks)
        self.norm = copy.deepcopy(visual.ln_post)
        self.projection = nn.Parameter(visual.proj.detach().clone())
        self.requires_grad_(requires_grad=True)

    @property
    def mean(self) -> float:
        """See `SoundEncoder`."""
        return 0.0

    def forward(self, spectrogram_BTF: Tensor, num_frames_B: Tensor) -> SoundStates:
        """See `SoundEncoder`."""
        num_states_B = self._num_states(num_frames_B)
        # That of the longest, which needs no look at the device.
        most = int(self._num_states(torch.tensor(spectrogram_BTF.shape[1])))
        own_BT = torch.arange(spectrogram_BTF.shape[1], device=num_frames_B.device)
        own_BT = own_BT < num_frames_B[:, None]
        image_BFT = (spectrogram_BTF * own_BT[..., None]).transpose(1, 2)
        missing = (most - 1) * self._stride[1] + self._patch[1] - image_BFT.shape[2]
        image_BFT = F.pad(image_BFT, (0, max(0, missing)))
        patches_BWFN = F.conv2d(image_BFT[:, None], self.kernel, stride=tuple(self._stride))
        patches_BWFN = patches_BWFN[..., :most] + self.positions[..., :most]
        x_BLW = patches_BWFN.flatten(2).transpose(1, 2)
        first_W = self.class_token + self.class_position
        x_BLW = torch.cat([first_W.to(x_BLW.dtype).expand(len(x_BLW), 1, -1), x_BLW], dim=1)
        mask_BN = torch.arange(most, device=num_states_B.device) < num_states_B[:, None]
        num_bins = patches_BWFN.shape[2]
        seen_BL = torch.cat([torch.ones_like(mask_BN[:, :1]), mask_BN.repeat(1, num_bins)], dim=1)
        x_BLW = self.norm_before(x_BLW)
        for block in self.blocks:
            x_BLW = run_block(block, x_BLW, seen_BL[:, None, None])
        grid = (len(x_BLW), num_bins, most, x_BLW.shape[2])
        states_BNW = x_BLW[:, 1:].reshape(grid).mean(dim=1)
        middles = torch.arange(most, device=mask_BN.device) * self._stride[1] + self._patch[1] / 2
        return SoundStates(states_BNW, mask_BN, middles * FRAME_S)

    def embed(self, pooled: Tensor) -> Tensor:
        """See `SoundEncoder`; as CLIP reads its class token."""
        features: Tensor = self.norm(pooled) @ self.projection
        return features

    def _num_states(self, num_frames: Tensor) -> Tensor:
        """How many patches, one behind the other, hold so many frames; the last may be padded."""
        beyond = (num_frames - self._patch[1]).clamp(min=0)
        return 1 + torch.div(beyond + self._stride[1] - 1, self._stride[1], rounding_mode="floor")


def _scaled_kernel(kernel: Tensor, size: list[int]) -> Tensor:
    """A kernel for one channel, (W, 1, *size), which gives as much for a plain surface."""
    summed = kernel.detach().float().sum(dim=1, keepdim=True)
    scaled = F.interpolate(summed, tuple(size), mode="bilinear", antialias=True)
    area = summed.shape[2] * summed.shape[3] / (size[0] * size[1])
    return scaled * area


def _stretched(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """The positions of a square, (side * side, W), over another grid, (W, *grid)."""
    side = math.isqrt(len(positions))
    square = positions.T.reshape(1, -1, side, side).float()
    return F.interpolate(square, grid, mode="bilinear", align_corners=False)[0]
