"""Encoders of sounds that others trained, with a projection to CLIP's space; all of it is trained.

Shapes: B sounds, T frames of a spectrogram, F bins, N states, W width, E embedding size.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brewline.core.checkpoints import read_checkpoint
from brewline.models.sound_encoders import SoundStates
from brewline.models.spectrogram import FRAME_S


class _Projected(nn.Module):
    """What they have in common: a projection that is new."""

    def __init__(self, model: nn.Module, width: int, embedding_size: int) -> None:
        super().__init__()
        self.model: Any = model.requires_grad_(requires_grad=True)
        self.project = nn.Linear(width, embedding_size, bias=False)

    @property
    def mean(self) -> float:
        """See `SoundEncoder`."""
        return 0.0

    def embed(self, pooled: Tensor) -> Tensor:
        """See `SoundEncoder`."""
        features: Tensor = self.project(pooled)
        return features


def _states(states_BNW: Tensor, num_frames_B: Tensor, frames_a_state: float) -> SoundStates:
    """States one after the other; a sound's own are those that begin within it."""
    numbers_N = torch.arange(states_BNW.shape[1], device=states_BNW.device)
    mask_BN = numbers_N * frames_a_state < num_frames_B[:, None]
    return SoundStates(states_BNW, mask_BN, (numbers_N + 0.5) * frames_a_state * FRAME_S)


class WhisperSounds(_Projected):
    """The encoder of Whisper, with a state every 20 ms.

    Args:
        path: A checkpoint of openai-whisper.
        dimensions: What it says of its sizes.
        embedding_size: Of CLIP's space.
    """

    def __init__(self, path: Path, dimensions: Mapping[str, int], embedding_size: int) -> None:
        from whisper.model import AudioEncoder

        names = ("n_mels", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer")
        encoder = AudioEncoder(*(dimensions[name] for name in names))
        tensors = read_checkpoint(path)["model_state_dict"]
        own = {
            name.removeprefix("encoder."): tensor.float()
            for name, tensor in tensors.items()
            if name.startswith("encoder.")
        }
        encoder.load_state_dict(own)
        super().__init__(encoder, dimensions["n_audio_state"], embedding_size)

    def forward(self, spectrogram_BTF: Tensor, num_frames_B: Tensor) -> SoundStates:
        """See `SoundEncoder`. As Whisper's own, which takes nothing shorter than its context."""
        x_BWN = F.gelu(self.model.conv1(spectrogram_BTF.transpose(1, 2)))
        x_BNW = F.gelu(self.model.conv2(x_BWN)).transpose(1, 2)
        x_BNW = (x_BNW + self.model.positional_embedding[: x_BNW.shape[1]]).to(x_BNW.dtype)
        for block in self.model.blocks:
            x_BNW = block(x_BNW)
        return _states(self.model.ln_post(x_BNW), num_frames_B, 2)


class AstSounds(_Projected):
    """AST; the patches of one time are averaged into its state.

    Args:
        model: `ASTModel` of transformers.
        embedding_size: Of CLIP's space.
    """

    def __init__(self, model: Any, embedding_size: int) -> None:
        super().__init__(model, model.config.hidden_size, embedding_size)

    def forward(self, spectrogram_BTF: Tensor, num_frames_B: Tensor) -> SoundStates:
        """See `SoundEncoder`."""
        x_BLW = self.model(spectrogram_BTF).last_hidden_state
        num_bins, most = self.model.embeddings.get_shape(self.model.config)
        # Behind two tokens that stand for the whole.
        grid = (len(x_BLW), num_bins, most, x_BLW.shape[2])
        states_BNW = x_BLW[:, 2:].reshape(grid).mean(dim=1)
        return _states(states_BNW, num_frames_B, self.model.config.time_stride)


class ClapSounds(_Projected):
    """CLAP's HTSAT: a Swin transformer over the spectrogram, which is folded into a square.

    Args:
        model: `ClapAudioModel` of transformers.
        longest_s: The length of what it hears.
        embedding_size: Of CLIP's space.
    """

    def __init__(self, model: Any, longest_s: float, embedding_size: int) -> None:
        super().__init__(model, model.audio_encoder.num_features, embedding_size)
        self._longest_s = longest_s
        self._mean = float(model.audio_encoder.batch_norm.running_mean.mean())

    @property
    def mean(self) -> float:
        """See `SoundEncoder`; its spectrograms are decibels, which it normalises itself."""
        return self._mean

    def train(self, mode: bool = True) -> "ClapSounds":
        """Normalises by what it was trained with: a batch must not depend on how it is cut."""
        super().train(mode)
        self.model.audio_encoder.batch_norm.eval()
        return self

    def forward(self, spectrogram_BTF: Tensor, num_frames_B: Tensor) -> SoundStates:
        """See `SoundEncoder`."""
        # Of a fused CLAP: none is longer than it hears, so none is seen in several parts.
        is_longer = torch.zeros(len(spectrogram_BTF), 1, dtype=torch.bool)
        found = self.model(spectrogram_BTF[:, None], is_longer=is_longer)
        # (B, W, bins, N): unfolded again.
        states_BNW = found.last_hidden_state.mean(dim=2).transpose(1, 2)
        frames_a_state = self._longest_s / FRAME_S / states_BNW.shape[1]
        return _states(states_BNW, num_frames_B, frames_a_state)
