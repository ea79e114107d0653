"""What a variant hears sounds with: the spectrogram, the encoder that reads it, and their limits.

CLIP's own image tower over patches (`sound_encoders`), or what was trained on sounds or speech: the
encoder of Whisper, the Audio Spectrogram Transformer (AST; Gong et al., 2021) and CLAP's HTSAT (Wu
et al., 2023; Chen et al., 2022). These have one length: what is behind a shorter sound is heard as
they were trained with it, but is in no state of the sound.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from torch import Tensor

from brewline.config.shard import ShardParams
from brewline.config.sounds import SoundParams
from brewline.config.variants import VariantParams
from brewline.core.checkpoints import read_checkpoint
from brewline.core.errors import BrewlineError
from brewline.core.extras import transformers_class
from brewline.core.files import read_json
from brewline.models.audio_formats import FORMATS, PREPROCESSOR
from brewline.models.backbones import ClipBackbone
from brewline.models.names import AST_FOLDER, BACKBONES_FOLDER, CLAP_FOLDER, WHISPER_FILE
from brewline.models.published_sounds import AstSounds, ClapSounds, WhisperSounds
from brewline.models.sound_encoders import SpectrogramTransformer
from brewline.models.spectrogram import (
    FRAME_S,
    NUM_BINS,
    SAMPLE_RATE_HZ,
    Spectrogram,
    log_mel,
    normalised_log_mel,
)

_SHIFT = round(FRAME_S * SAMPLE_RATE_HZ)
# Of Whisper's encoder, whose second convolution has a stride of two.
_WHISPER_STATE_S = 0.02


class Hearing(Protocol):
    """Of a variant's sounds; `make` needs no more of the weights than their sizes.

    Attributes:
        num_bins: Of its spectrograms.
        longest_s: How long a sound it can hear, in seconds.
        num_states: Of the longest sound that the variant hears.
    """

    num_bins: int
    longest_s: float
    num_states: int

    def spectrogram(self, samples_N: Tensor) -> Spectrogram:
        """What is heard of a sound at 16 kHz, as far as the variant hears it."""

    def encoder(self, backbone: ClipBackbone) -> Any:
        """A new `SoundEncoder` for the space of a CLIP, with the weights that it begins with.

        Raises:
            BrewlineError: the weights are missing or do not fit.
        """


class _ByClip:
    """By CLIP's own image tower."""

    num_bins, longest_s = NUM_BINS, math.inf

    def __init__(self, folder: Path, params: SoundParams) -> None:
        assert params.patch is not None and params.stride is not None
        self._params = params
        beyond = math.ceil(params.max_duration_s / FRAME_S) - params.patch[1]
        self.num_states = 1 + max(0, math.ceil(beyond / params.stride[1]))

    def spectrogram(self, samples_N: Tensor) -> Spectrogram:
        frames = normalised_log_mel(samples_N, self._params.max_duration_s)
        return Spectrogram(frames, len(frames))

    def encoder(self, backbone: ClipBackbone) -> SpectrogramTransformer:
        return SpectrogramTransformer(backbone, self._params)


class _ByWhisper:
    """By Whisper's encoder, of which only so much is used as the longest sound needs."""

    def __init__(self, folder: Path, params: SoundParams) -> None:
        self._path = folder / WHISPER_FILE
        try:
            self._dimensions: Mapping[str, int] = read_checkpoint(self._path)["dims"]
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise BrewlineError(f"{self._path}: {error}; run `dvc repro weights`") from None
        self.num_bins = self._dimensions["n_mels"]
        self.longest_s = self._dimensions["n_audio_ctx"] * _WHISPER_STATE_S
        self.num_states = math.ceil(params.max_duration_s / _WHISPER_STATE_S)
        self._max_samples = round(params.max_duration_s * SAMPLE_RATE_HZ)

    def spectrogram(self, samples_N: Tensor) -> Spectrogram:
        import whisper

        samples_N = samples_N[: self._max_samples]
        missing = self.num_states * 2 * _SHIFT - len(samples_N)
        mel = whisper.log_mel_spectrogram(samples_N, self.num_bins, padding=missing)
        return Spectrogram(mel.T, max(1, math.ceil(len(samples_N) / _SHIFT)))

    def encoder(self, backbone: ClipBackbone) -> WhisperSounds:
        return WhisperSounds(self._path, self._dimensions, backbone.embedding_size)


class _ByAst:
    """By AST, whose spectrogram is that of `brewline.models.spectrogram` in another scale."""

    num_bins = NUM_BINS

    def __init__(self, folder: Path, params: SoundParams) -> None:
        self._folder = folder / AST_FOLDER
        wants, config = (_json(self._folder / name) for name in (PREPROCESSOR, "config.json"))
        self._num_frames = int(wants["max_length"])
        normalises = wants["do_normalize"]
        # The library divides by twice the deviation, as AST does.
        self._scale = (wants["mean"], 2 * wants["std"]) if normalises else (0.0, 1.0)
        self._max_samples = round(params.max_duration_s * SAMPLE_RATE_HZ)
        self.longest_s = self._num_frames * FRAME_S
        # What stands in a config is what differs from the library's own.
        patch, stride = config.get("patch_size", 16), config.get("time_stride", 10)
        fits = (self._num_frames - patch) // stride + 1
        self.num_states = min(fits, math.ceil(params.max_duration_s / FRAME_S / stride))

    def spectrogram(self, samples_N: Tensor) -> Spectrogram:
        frames = log_mel(samples_N[: self._max_samples])[: self._num_frames]
        padded = F.pad(frames, (0, 0, 0, self._num_frames - len(frames)))
        mean, deviation = self._scale
        return Spectrogram((padded - mean) / deviation, len(frames))

    def encoder(self, backbone: ClipBackbone) -> AstSounds:
        return AstSounds(_load("ast", self._folder), backbone.embedding_size)


class _ByClap:
    """By CLAP's HTSAT; a sound that is shorter is repeated, as CLAP was trained."""

    def __init__(self, folder: Path, params: SoundParams) -> None:
        self._folder = folder / CLAP_FOLDER
        wants, config = (_json(self._folder / name) for name in (PREPROCESSOR, "config.json"))
        extractor = transformers_class("ClapFeatureExtractor", "CLAP", FORMATS["clap"].extra)
        self._extract: Callable[..., Mapping[str, Any]] = extractor(**wants)
        self._max_samples = round(params.max_duration_s * SAMPLE_RATE_HZ)
        self.num_bins, self.longest_s = wants["feature_size"], float(wants["max_length_s"])
        side, patch = config.get("spec_size", 256), config.get("patch_stride", [4, 4])[1]
        ratio, halvings = side // self.num_bins, len(config.get("depths", (2, 2, 6, 2))) - 1
        most = ratio * (side // patch // 2**halvings)
        self.num_states = min(most, math.ceil(params.max_duration_s / self.longest_s * most))

    def spectrogram(self, samples_N: Tensor) -> Spectrogram:
        samples_N = samples_N[: self._max_samples]
        if not len(samples_N):
            samples_N = torch.zeros(1)
        rate = FORMATS["clap"].needs["sampling_rate"]
        heard = soxr.resample(samples_N.numpy(), SAMPLE_RATE_HZ, rate)
        # Never longer than what CLAP hears, so that nothing of it is drawn.
        heard = np.asarray(heard)[: round(self.longest_s * rate)]
        frames = torch.from_numpy(
            np.asarray(self._extract(heard, sampling_rate=rate)["input_features"][0][0])
        )
        return Spectrogram(frames.float(), min(len(frames), math.ceil(len(samples_N) / _SHIFT)))

    def encoder(self, backbone: ClipBackbone) -> ClapSounds:
        return ClapSounds(_load("clap", self._folder), self.longest_s, backbone.embedding_size)


# By their names in `params.yaml`.
_KINDS: Mapping[str, Callable[[Path, SoundParams], Hearing]] = {
    "clip": _ByClip,
    "whisper": _ByWhisper,
    "ast": _ByAst,
    "clap": _ByClap,
}


def find_hearing(params: SoundParams, folder: Path = BACKBONES_FOLDER) -> Hearing:
    """What a variant hears sounds with.

    Args:
        params: Of the variant.
        folder: What stage `weights` made.

    Raises:
        BrewlineError: a file is missing or damaged, or a package is not installed.
    """
    return _KINDS[params.encoder](folder, params)


def unheard(variants: Mapping[str, VariantParams], shard: ShardParams, folder: Path) -> list[str]:
    """What variants ask of their encoders of sounds that these cannot give, a sentence each.

    Args:
        variants: Those in use.
        shard: How many frames a clip has.
        folder: What stage `weights` made.
    """
    problems = []
    for name, variant in variants.items():
        if (sound := variant.sound) is None:
            continue
        heard, key = find_hearing(sound, folder), f"variants.{name}.sound"
        if sound.max_duration_s > heard.longest_s:
            problems.append(
                f"{key}.max_duration_s: {sound.max_duration_s:g} is longer than the "
                f"{heard.longest_s:g} s that encoder {sound.encoder!r} hears"
            )
        if sound.frequency_mask > heard.num_bins:
            problems.append(
                f"{key}.frequency_mask: encoder {sound.encoder!r} has {heard.num_bins} bins"
            )
        parts = max(shard.frames_per_clip, sound.segments)
        if sound.pairing.rule == "multiframe_segment" and parts > heard.num_states:
            problems.append(
                f"{key}.pairing.rule: multiframe_segment needs a state for each of {parts} parts "
                f"of a clip, and encoder {sound.encoder!r} has {heard.num_states} in "
                f"{sound.max_duration_s:g} s; take another rule, or fewer frames"
            )
    return problems


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(path)
    except (OSError, ValueError) as error:
        raise BrewlineError(f"{path}: {error}; run `dvc repro weights`") from None
    return found


def _load(role: str, folder: Path) -> Any:
    """A model of transformers, in fp32."""
    return FORMATS[role].encoder_class().from_pretrained(folder, dtype=torch.float32)
