"""faster-whisper's engine, CTranslate2, on checkpoints of openai-whisper.

The checkpoint is converted when it is loaded, so both engines run the same file. Tokens are drawn
(at a temperature above 0), languages told and words timed by openai-whisper's decoder: CTranslate2
has one seed for everything, and what is drawn for a window must not depend on what was decoded
before it.
"""

import tempfile
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import whisper
from numpy.typing import NDArray
from torch import Tensor, nn
from whisper.tokenizer import Tokenizer

from brewline.config.asr import AsrParams
from brewline.core.errors import BrewlineError
from brewline.speech.decoding import Decoding, loop_kept_once, never_spoken
from brewline.speech.openai_whisper import OpenAIWhisper, log_mel
from brewline.speech.recognition import Word
from brewline.speech.tokenizer import tokenizer_for
from brewline.speech.whisper_checkpoint import load_whisper

_COMPUTE_TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}


class FasterWhisper:
    """An `Engine` that runs CTranslate2."""

    def __init__(self, checkpoint: Path, settings: AsrParams, device: torch.device) -> None:
        """Converts and loads the model; see `load_engine`."""
        try:
            import ctranslate2
        except ImportError:
            raise BrewlineError(
                "asr.engine: faster-whisper needs two more packages: uv pip install faster-whisper "
                "ctranslate2",
                "settings",
            ) from None
        self._checkpoint = checkpoint
        self._settings = settings
        self._device = device
        model = load_whisper(checkpoint, torch.device("cpu"))
        self.dimensions = model.dims
        self.tokenizer = tokenizer_for(self.dimensions, settings.spoken or "en")
        best = "float16" if device.type == "cuda" else "int8"
        compute_type = _COMPUTE_TYPES.get(settings.precision, best)
        if compute_type not in (known := ctranslate2.get_supported_compute_types(device.type)):
            raise BrewlineError(
                f"asr.precision: faster-whisper cannot compute in {compute_type} here; it can in "
                f"{', '.join(sorted(known))}",
                "settings",
            )
        with tempfile.TemporaryDirectory() as folder:
            convert(model, self.tokenizer, Path(folder), compute_type)
            self._model = ctranslate2.models.Whisper(
                folder,
                device=device.type,
                compute_type=compute_type,
                intra_threads=torch.get_num_threads(),
            )
        self._num_start = len(self.tokenizer.sot_sequence_including_notimestamps)
        self._max_tokens = min(settings.max_tokens, self.dimensions.n_text_ctx - self._num_start)
        self._suppressed = never_spoken(self.tokenizer)

    @cached_property
    def _sampler(self) -> OpenAIWhisper:
        settings = self._settings.model_copy(update={"precision": "fp32"})
        return OpenAIWhisper(self._checkpoint, settings, self._device)

    def encode(self, waveforms: Sequence[NDArray[np.float32]], num_frames: int) -> Tensor:
        """Encodes windows; see `Engine`."""
        # States as many as mel channels would be taken for a spectrogram when they are decoded.
        num_frames += num_frames == self.dimensions.n_mels
        mel = log_mel(waveforms, self.dimensions.n_mels, num_frames, self._device)
        return _tensor(self._model.encode(_view(mel)), self._device).float()

    def detect_languages(self, states: Tensor) -> list[str]:
        """Tells languages of windows; see `Engine`."""
        # The engine takes models that are made here for English ones, and refuses.
        return self._sampler.detect_languages(states)

    def decode(
        self,
        states: Tensor,
        languages: Sequence[str],
        temperature: float = 0.0,
        seeds: Sequence[int] = (),
    ) -> list[Decoding]:
        """Decodes windows; see `Engine`."""
        if temperature > 0:
            return self._sampler.decode(states, languages, temperature, seeds)
        starts = [tokenizer_for(self.dimensions, language) for language in languages]
        results = self._model.generate(
            _view(states),
            [list(one.sot_sequence_including_notimestamps) for one in starts],
            beam_size=self._settings.beam_size,
            max_length=max_length(self._max_tokens, self._num_start),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=self._suppressed,
        )
        return [self._decoding(result) for result in results]

    def time_words(
        self,
        states: Tensor,
        language: str,
        tokens: Sequence[int],
        first_frame: int,
        num_frames: int,
    ) -> list[Word]:
        """Times the words of a window; see `Engine`."""
        return self._sampler.time_words(states, language, tokens, first_frame, num_frames)

    def _decoding(self, result: Any) -> Decoding:
        tokens = list(result.sequences_ids[0])
        kept = loop_kept_once(tokens, self._settings.max_repeats)
        # The score is a mean over the tokens, to which the end mark is added but not counted.
        average = result.scores[0] * len(tokens) / (len(tokens) + 1)
        return Decoding(
            kept,
            average,
            result.no_speech_prob,
            is_loop=len(kept) < len(tokens),
            is_cut=len(tokens) == self._max_tokens,
        )


def max_length(max_tokens: int, num_start: int) -> int:
    """What CTranslate2 has to be told to decode up to so many tokens after those that start.

    It takes half of what it is told, or what the start leaves of it, whichever is less.
    """
    return max(2 * max_tokens, num_start + max_tokens)


def convert(model: whisper.Whisper, tokenizer: Tokenizer, folder: Path, compute_type: str) -> None:
    """Writes a model of openai-whisper in CTranslate2's format.

    Args:
        model: In fp32, on the processor.
        tokenizer: Of the model.
        folder: Filled with the files that `ctranslate2.models.Whisper` reads.
        compute_type: How the weights are stored.
    """
    from ctranslate2.specs import WhisperSpec

    dims = model.dims
    spec = WhisperSpec(dims.n_audio_layer, dims.n_audio_head, dims.n_text_layer, dims.n_text_head)
    _set_encoder(spec.encoder, model.encoder)
    _set_decoder(spec.decoder, model.decoder)
    spec.register_vocabulary(_vocabulary(tokenizer, dims.n_vocab))
    spec.config.suppress_ids = never_spoken(tokenizer)
    spec.config.suppress_ids_begin = [*tokenizer.encode(" "), tokenizer.eot]
    spec.config.lang_ids = list(tokenizer.all_language_tokens)
    heads = model.alignment_heads.to_dense().nonzero().tolist()
    spec.config.alignment_heads = [tuple(pair) for pair in heads]
    spec.validate()
    spec.optimize(quantization=None if compute_type == "float32" else compute_type)
    spec.save(str(folder))


def _set_encoder(spec: Any, encoder: Any) -> None:
    for part, conv in ((spec.conv1, encoder.conv1), (spec.conv2, encoder.conv2)):
        part.weight, part.bias = conv.weight.numpy(), conv.bias.numpy()
    spec.position_encodings.encodings = encoder.positional_embedding.numpy()
    _set_norm(spec.layer_norm, encoder.ln_post)
    for layer, block in zip(spec.layer, encoder.blocks, strict=True):
        _set_own_attention(layer, block)
        _set_feed_forward(layer, block)


def _set_decoder(spec: Any, decoder: Any) -> None:
    spec.embeddings.weight = decoder.token_embedding.weight.numpy()
    spec.projection.weight = spec.embeddings.weight
    spec.position_encodings.encodings = decoder.positional_embedding.numpy()
    _set_norm(spec.layer_norm, decoder.ln)
    for layer, block in zip(spec.layer, decoder.blocks, strict=True):
        _set_own_attention(layer, block)
        attention = block.cross_attn
        _set_norm(layer.attention.layer_norm, block.cross_attn_ln)
        _set_linear(layer.attention.linear[0], [attention.query])
        _set_linear(layer.attention.linear[1], [attention.key, attention.value])
        _set_linear(layer.attention.linear[2], [attention.out])
        _set_feed_forward(layer, block)


def _set_own_attention(spec: Any, block: Any) -> None:
    attention = block.attn
    _set_norm(spec.self_attention.layer_norm, block.attn_ln)
    _set_linear(spec.self_attention.linear[0], [attention.query, attention.key, attention.value])
    _set_linear(spec.self_attention.linear[1], [attention.out])


def _set_feed_forward(spec: Any, block: Any) -> None:
    _set_norm(spec.ffn.layer_norm, block.mlp_ln)
    _set_linear(spec.ffn.linear_0, [block.mlp[0]])
    _set_linear(spec.ffn.linear_1, [block.mlp[2]])


def _set_norm(spec: Any, norm: nn.LayerNorm) -> None:
    spec.gamma, spec.beta = norm.weight.numpy(), norm.bias.numpy()


def _set_linear(spec: Any, layers: Iterable[nn.Linear]) -> None:
    """Stacks layers with the same input; keys have no bias, which is one of zeros."""
    layers = list(layers)
    spec.weight = np.concatenate([layer.weight.numpy() for layer in layers])
    biases = [
        np.zeros(layer.out_features, np.float32) if layer.bias is None else layer.bias.numpy()
        for layer in layers
    ]
    spec.bias = np.concatenate(biases)


def _vocabulary(tokenizer: Tokenizer, size: int) -> list[str]:
    """A text for each token; the engine looks up the special ones, others are told apart only."""
    texts = [f"token {number}" for number in range(size)]
    for text, number in tokenizer.special_tokens.items():
        texts[number] = text
    return texts


def _view(tensor: Tensor) -> Any:
    import ctranslate2

    tensor = tensor.contiguous()
    array = tensor if tensor.device.type == "cuda" else tensor.float().numpy()
    return ctranslate2.StorageView.from_array(array)


def _tensor(view: Any, device: torch.device) -> Tensor:
    import ctranslate2

    if view.dtype == ctranslate2.DataType.bfloat16:
        # Of which neither numpy nor the interface of arrays on a GPU knows.
        view = view.to(ctranslate2.DataType.float32)
    return torch.as_tensor(view if device.type == "cuda" else np.array(view), device=device)
