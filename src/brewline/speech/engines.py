"""What runs a Whisper checkpoint: openai-whisper's modules, or faster-whisper's engine.

An engine encodes windows and decodes what it encoded; everything else (windows, safeguards, joined
texts) is the recogniser's, so both give the same rows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from whisper.model import ModelDimensions
from whisper.tokenizer import Tokenizer

from brewline.config.asr import AsrParams
from brewline.speech.decoding import Decoding
from brewline.speech.recognition import Word


class Engine(Protocol):
    """A model that is loaded; `tokenizer` is in any of its languages."""

    dimensions: ModelDimensions
    tokenizer: Tokenizer

    def encode(self, waveforms: Sequence[NDArray[np.float32]], num_frames: int) -> Tensor:
        """Encodes windows, padded with silence: (B, at least num_frames, width)."""
        ...

    def detect_languages(self, states: Tensor) -> list[str]:
        """The likeliest language of each window that `encode` gave."""
        ...

    def decode(
        self, states: Tensor, languages: Sequence[str], temperature: float, seeds: Sequence[int]
    ) -> list[Decoding]:
        """Decodes what `encode` gave, or some rows of it; see `BatchDecoder.decode`."""
        ...

    def time_words(
        self,
        states: Tensor,
        language: str,
        tokens: Sequence[int],
        first_frame: int,
        num_frames: int,
    ) -> list[Word]:
        """When the words of one window (T, width) were said; see `word_times.time_words`."""
        ...


def load_engine(checkpoint: Path, settings: AsrParams, device: torch.device) -> Engine:
    """Loads a checkpoint of openai-whisper into the engine that the settings name.

    Raises:
        BrewlineError: the checkpoint is missing or damaged, an English-only model is asked for
            another language, or the engine is not installed.
    """
    if settings.engine == "faster-whisper":
        from brewline.speech.faster_whisper import FasterWhisper

        return FasterWhisper(checkpoint, settings, device)
    from brewline.speech.openai_whisper import OpenAIWhisper

    return OpenAIWhisper(checkpoint, settings, device)
