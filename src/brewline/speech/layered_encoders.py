"""Encoders that give all of their layers: Whisper's, and HuBERT (the package's extra `hubert`).

An encoder hears one window at a time and by itself, so what it makes of a recording depends on no
other one: HuBERT base normalises over a whole input, padding too, where there is any.
Shapes: L layers, T frames of a window, S width of a frame.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brewline.config.asr import AsrParams
from brewline.config.variants import LayeredEncoderName
from brewline.core.devices import choose_dtype
from brewline.core.errors import BrewlineError
from brewline.core.extras import transformers_class
from brewline.media.audio import SAMPLE_RATE_HZ
from brewline.speech.openai_whisper import OpenAIWhisper
from brewline.speech.whisper_checkpoint import read_dimensions
from brewline.speech.windows import SAMPLES_PER_FRAME, num_frames, split_windows

# HuBERT attends from every frame to every other one: of what is longer the memory would grow with
# the square. It was trained on 15 s.
_HUBERT_WINDOW_S = 60
# What one frame of HuBERT's convolutions sees.
_HUBERT_MIN_SAMPLES = 400


class LayeredEncoder(Protocol):
    """Hears recordings of any length."""

    def windows(self, waveform: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """What is heard at a time of a recording, (num_samples,) at 16 kHz each."""

    def layers(self, window: NDArray[np.float32]) -> Iterator[Tensor]:
        """What each layer makes of a window, (T, S) in fp32 each; the first are its inputs."""


class WhisperLayers:
    """Whisper's encoder, whose modules are openai-whisper's, whatever `asr.engine` is.

    Layer 0 is what the convolutions give, the last one what the decoder reads, behind the final
    norm, as `output_hidden_states` of transformers numbers them.
    """

    def __init__(self, checkpoint: Path, settings: AsrParams, device: torch.device) -> None:
        """Loads the model; errors are those of `load_whisper`."""
        if settings.precision == "int8":
            # Which is a precision of the other engine, that has no layers to show.
            settings = settings.model_copy(update={"precision": "auto"})
        self._engine = OpenAIWhisper(checkpoint, settings, device)
        self._context = self._engine.dimensions.n_audio_ctx
        self._is_full = settings.audio_context == "full"

    def windows(self, waveform: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """See `LayeredEncoder`."""
        return split_windows(waveform, self._context * SAMPLES_PER_FRAME)

    def layers(self, window: NDArray[np.float32]) -> Iterator[Tensor]:
        """See `LayeredEncoder`; frames of padding are left out."""
        own = num_frames(len(window))
        context = self._context if self._is_full else own
        for states in self._engine.encode_layers([window], context):
            yield states[0, :own].float()


class Hubert:
    """HuBERT of transformers (Hsu et al., 2021).

    Layer 0 is what the convolutions give, with positions, the others are numbered as
    `output_hidden_states` does.
    """

    def __init__(self, folder: Path, settings: AsrParams, device: torch.device) -> None:
        """Loads what stage `weights` made.

        Raises:
            BrewlineError: transformers is not installed.
        """
        self._device = device
        precision = settings.precision
        self._dtype = choose_dtype("auto" if precision == "int8" else precision, device)
        self._normalises = json.loads((folder / "preprocessor_config.json").read_text())[
            "do_normalize"
        ]
        hubert = transformers_class("HubertModel", "HuBERT", "hubert")
        model = hubert.from_pretrained(folder, dtype=torch.float32)
        self._model = model.eval().requires_grad_(False).to(device, self._dtype)

    def windows(self, waveform: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """See `LayeredEncoder`; of the whole recording mean and deviation become 0 and 1."""
        if self._normalises:
            waveform = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
        return split_windows(waveform, _HUBERT_WINDOW_S * SAMPLE_RATE_HZ)

    @torch.inference_mode()
    def layers(self, window: NDArray[np.float32]) -> Iterator[Tensor]:
        """See `LayeredEncoder`."""
        missing = max(0, _HUBERT_MIN_SAMPLES - len(window))
        samples = torch.from_numpy(np.pad(window, (0, missing)))[None]
        found = self._model(samples.to(self._device, self._dtype), output_hidden_states=True)
        for states in found.hidden_states:
            yield states[0].float()


def load_layered_encoder(
    name: LayeredEncoderName,
    checkpoint: Path,
    settings: AsrParams,
    device: torch.device,
) -> LayeredEncoder:
    """Loads an encoder.

    Args:
        name: Which one.
        checkpoint: Whisper's file, or HuBERT's folder, as stage `weights` makes them.
        settings: Precision, and of Whisper its context.
        device: Where it runs.

    Raises:
        BrewlineError: it is missing, damaged, or needs a package that is not installed.
    """
    if name == "hubert":
        return Hubert(checkpoint, settings, device)
    return WhisperLayers(checkpoint, settings, device)


def shape_of_layers(name: LayeredEncoderName, checkpoint: Path) -> tuple[int, int]:
    """How many layers an encoder gives, and how wide they are; loads no weights.

    Raises:
        BrewlineError: it is missing or damaged.
    """
    if name == "hubert":
        try:
            config: Any = json.loads((checkpoint / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise BrewlineError(f"{checkpoint}: {error}; run `dvc repro weights`") from None
        # What is not written there is as in HuBERT base.
        return config.get("num_hidden_layers", 12) + 1, config.get("hidden_size", 768)
    dimensions = read_dimensions(checkpoint, set())
    return dimensions.n_audio_layer + 1, dimensions.n_audio_state


def encode_recording(
    encoder: LayeredEncoder, waveform: NDArray[np.float32], pool_frames: int
) -> NDArray[np.float16]:
    """All layers of a recording, (T, L, S), where T counts groups of `pool_frames` frames.

    Frames are averaged where they are computed: 25 layers of HuBERT large are 2.6 MB a second. The
    last group of each window may be smaller.

    Raises:
        BrewlineError: the model gives something that is no number.
    """
    parts = []
    for window in encoder.windows(waveform):
        layers = [pooled(frames.cpu().numpy(), pool_frames) for frames in encoder.layers(window)]
        parts.append(np.stack(layers, axis=1))
    states = np.concatenate(parts).astype(np.float16)
    if not np.isfinite(states).all():
        raise BrewlineError("encoder states are no numbers, or too large for 16 bits")
    return states


def pooled(frames_TS: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """The mean of every `size` neighbouring frames; the last group may be smaller."""
    starts = np.arange(0, len(frames_TS), size)
    counts = np.minimum(size, len(frames_TS) - starts).astype(np.float32)
    return (np.add.reduceat(frames_TS, starts, axis=0) / counts[:, None]).astype(np.float32)
