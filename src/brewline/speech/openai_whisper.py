"""openai-whisper's models: encoded in batches, decoded by `BatchDecoder`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import whisper
from numpy.typing import NDArray
from torch import Tensor, nn

from brewline.config.asr import AsrParams
from brewline.core.devices import choose_dtype
from brewline.speech.attention import attend, join_heads, to_heads
from brewline.speech.decoding import BatchDecoder, Decoding
from brewline.speech.recognition import Word
from brewline.speech.tokenizer import tokenizer_for
from brewline.speech.whisper_checkpoint import load_whisper
from brewline.speech.windows import SAMPLES_PER_FRAME

# What a processor encodes at a time: more only wears out its cache.
_FRAMES_AT_A_TIME = 6000


class OpenAIWhisper:
    """An `Engine` that runs the modules of openai-whisper."""

    def __init__(self, checkpoint: Path, settings: AsrParams, device: torch.device) -> None:
        """Loads the model; see `load_engine`."""
        self._device = device
        assert settings.precision != "int8", "the parameters' own check refuses it"
        self._dtype = choose_dtype(settings.precision, device)
        self._model = load_whisper(checkpoint, device)
        self.dimensions = self._model.dims
        self.tokenizer = tokenizer_for(self.dimensions, settings.spoken or "en")
        # The modules take weights of any type and compute in that of their input; converted once,
        # they need not be at every call. Norms stay in fp32, where the library computes them.
        for module in self._model.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Embedding):
                module.to(self._dtype)
        self._decoder = BatchDecoder(
            self._model,
            self.tokenizer,
            settings.max_tokens,
            settings.beam_size,
            settings.max_repeats,
        )

    @torch.inference_mode()
    def encode(self, waveforms: Sequence[NDArray[np.float32]], num_frames: int) -> Tensor:
        """Encodes windows; see `Engine`."""
        step = len(waveforms)
        if self._device.type == "cpu":
            step = max(1, _FRAMES_AT_A_TIME // num_frames)
        parts = [waveforms[start : start + step] for start in range(0, len(waveforms), step)]
        return torch.cat([self._encode(part, num_frames) for part in parts])

    def _encode(self, waveforms: Sequence[NDArray[np.float32]], num_frames: int) -> Tensor:
        for states in self.encode_layers(waveforms, num_frames):
            last = states
        return last

    @torch.inference_mode()
    def encode_layers(
        self, waveforms: Sequence[NDArray[np.float32]], num_frames: int
    ) -> Iterator[Tensor]:
        """What each layer of Whisper's encoder gives, for any number of frames up to its context.

        First what the convolutions give, then a layer each; the last one is behind the final norm.
        (B, num_frames, width) each.

        The library's own forward insists on the full context; its layers do not, and positions
        are sinusoids, so the first of them are those of a shorter recording.
        """
        encoder = self._model.encoder
        mel = log_mel(waveforms, self.dimensions.n_mels, num_frames, self._device).to(self._dtype)
        hidden = nn.functional.gelu(encoder.conv1(mel))
        hidden = nn.functional.gelu(encoder.conv2(hidden)).permute(0, 2, 1)
        hidden = (hidden + encoder.positional_embedding[:num_frames]).to(self._dtype)
        for block in encoder.blocks:
            yield hidden
            attention, normal = block.attn, block.attn_ln(hidden)
            queries, keys, values = (
                to_heads(project(normal), attention.n_head)
                for project in (attention.query, attention.key, attention.value)
            )
            hidden = hidden + attention.out(join_heads(attend(queries, keys, values)))
            hidden = hidden + block.mlp(block.mlp_ln(hidden))
        yield encoder.ln_post(hidden)

    @torch.inference_mode()
    def detect_languages(self, states: Tensor) -> list[str]:
        """Tells languages of windows; see `Engine`."""
        return self._decoder.detect_languages(states)

    @torch.inference_mode()
    def decode(
        self,
        states: Tensor,
        languages: Sequence[str],
        temperature: float = 0.0,
        seeds: Sequence[int] = (),
    ) -> list[Decoding]:
        """Decodes windows; see `Engine`."""
        return self._decoder.decode(states, languages, temperature, seeds)

    @torch.inference_mode()
    def time_words(
        self,
        states: Tensor,
        language: str,
        tokens: Sequence[int],
        first_frame: int,
        num_frames: int,
    ) -> list[Word]:
        """Times the words of a window; see `Engine`."""
        # Imported here: it compiles for seconds, and is seldom asked for.
        from brewline.speech.word_times import time_words

        tokenizer = tokenizer_for(self.dimensions, language)
        return time_words(self._model, tokenizer, states, tokens, first_frame, num_frames)


def log_mel(
    waveforms: Sequence[NDArray[np.float32]], num_mels: int, num_frames: int, device: torch.device
) -> Tensor:
    """Whisper's spectrograms of windows padded with silence: (B, num_mels, 2 num_frames)."""
    num_samples = num_frames * SAMPLES_PER_FRAME
    return torch.stack(
        [
            whisper.log_mel_spectrogram(
                waveform, num_mels, padding=num_samples - len(waveform), device=device
            )
            for waveform in waveforms
        ]
    )
