"""Waveforms to transcripts and encoder states, in one pass of openai-whisper's models.

The encoder runs once per window; its output is decoded to text and kept as the states that the
acoustic channel reads. Batches hold windows of similar length, and decode greedily, all rows at
once, with one cache of keys and values.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import whisper
from numpy.typing import NDArray
from torch import Tensor
from whisper.tokenizer import Tokenizer, get_tokenizer

from brewline.audio import SAMPLE_RATE_HZ
from brewline.devices import autocast, choose_device, choose_dtype
from brewline.errors import BrewlineError
from brewline.params import AsrParams

# Whisper's encoder halves the rate of a mel spectrogram with a hop of 10 ms.
FRAMES_PER_SECOND = 50
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAMES_PER_SECOND
# A long recording is cut where it is quietest within this time before the window is full.
_CUT_SEARCH_S = 5
_CUT_BLOCK_S = 0.1


@dataclass(frozen=True)
class Recognition:
    """What Whisper made of one recording.

    `states` is (num_frames, width) float16: the valid encoder frames of all windows. What decoding
    tells about its text is None where the text was known before.
    """

    text: str
    num_windows: int
    states: NDArray[np.float16]
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    compression_ratio: float | None = None
    temperature: float | None = None


@dataclass
class _Window:
    recording: int
    waveform: NDArray[np.float32]
    # Whether it is to be decoded to text, not only encoded.
    decode: bool = True
    text: str = ""
    avg_logprob: float = 0.0
    no_speech_prob: float = 0.0
    states: NDArray[np.float16] = field(default_factory=lambda: np.empty((0, 0), np.float16))

    @property
    def num_frames(self) -> int:
        return -(-len(self.waveform) // SAMPLES_PER_FRAME)


def load_whisper(path: Path, device: torch.device) -> whisper.Whisper:
    """Loads a checkpoint in openai-whisper's format, frozen.

    Raises:
        BrewlineError: the file is missing or is no such checkpoint.
    """
    with _says_what_is_wrong(path):
        model = whisper.load_model(str(path), device=device)
    return model.requires_grad_(False).eval()


def checkpoint_width(path: Path) -> int:
    """The width of the encoder states that a checkpoint gives, without loading its weights.

    Raises:
        BrewlineError: the file is missing or is no such checkpoint.
    """
    with _says_what_is_wrong(path):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(checkpoint["dims"]["n_audio_state"])


@contextmanager
def _says_what_is_wrong(path: Path) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, KeyError, EOFError, ValueError, OSError) as error:
        raise BrewlineError(
            f"{path} is not a Whisper checkpoint ({error}); run `dvc repro weights`"
        ) from None


def split_windows(waveform: NDArray[np.float32], max_samples: int) -> Iterator[NDArray[np.float32]]:
    """Cuts a waveform into windows of at most `max_samples`, at the quietest places.

    Nothing is left out: the windows joined are the waveform.
    """
    block = round(_CUT_BLOCK_S * SAMPLE_RATE_HZ)
    while len(waveform) > max_samples:
        search = waveform[max(0, max_samples - _CUT_SEARCH_S * SAMPLE_RATE_HZ) : max_samples]
        usable = len(search) // block * block
        energy = np.square(search[:usable]).reshape(-1, block).sum(axis=1)
        start = max_samples - len(search)
        cut = start + int(energy.argmin()) * block + block // 2
        yield waveform[:cut]
        waveform = waveform[cut:]
    yield waveform


class Recogniser:
    """Runs one Whisper model over many recordings.

    The result for a recording depends on the batch it is in only by rounding, and, with
    `audio_context: utterance`, by the silence that pads it to the longest of the batch; batches
    are a function of the recordings given, so equal calls give equal results.
    """

    def __init__(self, checkpoint: Path, settings: AsrParams) -> None:
        """Loads the model on the GPU, if there is one.

        Raises:
            BrewlineError: the checkpoint is missing or damaged, or an English-only model is asked
                for another language.
        """
        self._settings = settings
        self._device = choose_device()
        self._dtype = choose_dtype(settings.precision, self._device)
        self._model = load_whisper(checkpoint, self._device)
        multilingual = self._model.is_multilingual
        if not multilingual and settings.language != "en":
            raise BrewlineError(
                f"asr.language is {settings.language!r}, but {checkpoint} knows English only",
                "settings",
            )
        self._tokenizer = get_tokenizer(
            multilingual,
            num_languages=self._model.num_languages,
            language=settings.language,
            task="transcribe",
        )
        self._max_samples = self._model.dims.n_audio_ctx * SAMPLES_PER_FRAME
        self._suppressed = torch.tensor(_never_spoken(self._tokenizer), device=self._device)
        blank = [*self._tokenizer.encode(" "), self._tokenizer.eot]
        self._suppressed_first = torch.tensor(blank, device=self._device)

    def recognise(
        self, waveforms: list[NDArray[np.float32]], texts: Sequence[str | None] | None = None
    ) -> list[Recognition]:
        """Transcribes recordings of any length.

        Args:
            waveforms: Each (num_samples,) at 16 kHz.
            texts: What is said in each, where that is known already: it is encoded only.

        Returns:
            One recognition each, in the same order.
        """
        known = texts or [None] * len(waveforms)
        windows = [
            _Window(number, part, decode=text is None)
            for number, (waveform, text) in enumerate(zip(waveforms, known, strict=True))
            for part in split_windows(waveform, self._max_samples)
        ]
        by_length = sorted(windows, key=lambda window: (len(window.waveform), window.recording))
        for start in range(0, len(by_length), self._settings.batch_size):
            self._recognise_batch(by_length[start : start + self._settings.batch_size])
        parts: list[list[_Window]] = [[] for _ in waveforms]
        for window in windows:
            parts[window.recording].append(window)
        return [_join(part, text) for part, text in zip(parts, known, strict=True)]

    @torch.inference_mode()
    def _recognise_batch(self, windows: list[_Window]) -> None:
        longest = max(window.num_frames for window in windows)
        full = self._settings.audio_context == "full"
        num_frames = self._model.dims.n_audio_ctx if full else longest
        mel = torch.stack(
            [
                whisper.log_mel_spectrogram(
                    window.waveform,
                    self._model.dims.n_mels,
                    padding=num_frames * SAMPLES_PER_FRAME - len(window.waveform),
                )
                for window in windows
            ]
        ).to(self._device)
        with autocast(self._dtype, self._device):
            states = self._encode(mel)
            spoken = [row for row, window in enumerate(windows) if window.decode]
            decoded = zip(spoken, *self._decode(states[spoken]), strict=True) if spoken else ()
        for row, tokens, avg_logprob, no_speech_prob in decoded:
            windows[row].text = self._tokenizer.decode(tokens).strip()
            windows[row].avg_logprob = avg_logprob
            windows[row].no_speech_prob = no_speech_prob
        for row, window in enumerate(windows):
            window.states = states[row, : window.num_frames].half().cpu().numpy()

    def _encode(self, mel: Tensor) -> Tensor:
        """Whisper's encoder over (B, num_mels, 2 T) for any T up to its context: (B, T, width).

        The library's own forward insists on the full context; its layers do not, and positions
        are sinusoids, so the first T of them are those of a shorter recording.
        """
        encoder = self._model.encoder
        hidden = torch.nn.functional.gelu(encoder.conv1(mel))
        hidden = torch.nn.functional.gelu(encoder.conv2(hidden)).permute(0, 2, 1)
        hidden = hidden + encoder.positional_embedding[: hidden.shape[1]]
        for block in encoder.blocks:
            hidden = block(hidden)
        states: Tensor = encoder.ln_post(hidden)
        return states

    def _decode(self, states: Tensor) -> tuple[list[list[int]], list[float], list[float]]:
        """Greedy decoding of a batch, as openai-whisper's `decode` at temperature 0 does.

        Returns:
            Text tokens, average log-probability (the end mark counts as a token) and no-speech
            probability of each row.
        """
        tokenizer = self._tokenizer
        start = tokenizer.sot_sequence_including_notimestamps
        rows = len(states)
        tokens = torch.tensor([start] * rows, device=self._device)
        ended = torch.zeros(rows, dtype=torch.bool, device=self._device)
        sum_logprobs = torch.zeros(rows, device=self._device)
        cache, hooks = self._model.install_kv_cache_hooks()
        try:
            logits = self._model.decoder(tokens, states, kv_cache=cache)
            no_speech = logits[:, start.index(tokenizer.sot)].softmax(-1)[:, tokenizer.no_speech]
            logits = logits[:, -1]
            logits[:, self._suppressed_first] = -torch.inf
            for _ in range(self._settings.max_tokens):
                logits[:, self._suppressed] = -torch.inf
                best, token = logits.log_softmax(-1).max(-1)
                token = token.masked_fill(ended, tokenizer.eot)
                sum_logprobs += best.masked_fill(ended, 0)
                tokens = torch.cat([tokens, token[:, None]], dim=1)
                ended = ended | (token == tokenizer.eot)
                if bool(ended.all()):
                    break
                logits = self._model.decoder(token[:, None], states, kv_cache=cache)[:, -1]
        finally:
            for hook in hooks:
                hook.remove()
        texts = [_until(row, tokenizer.eot) for row in tokens[:, len(start) :].tolist()]
        averages = [
            total / (len(text) + 1)
            for total, text in zip(sum_logprobs.tolist(), texts, strict=True)
        ]
        return texts, averages, no_speech.tolist()


def _never_spoken(tokenizer: Tokenizer) -> list[int]:
    """The tokens that openai-whisper suppresses by default: no speech, or special."""
    special: list[Any] = [
        tokenizer.transcribe,
        tokenizer.translate,
        tokenizer.sot,
        tokenizer.sot_prev,
        tokenizer.sot_lm,
        tokenizer.no_speech,
    ]
    return sorted({*tokenizer.non_speech_tokens, *special})


def _until(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens


def compression_ratio(text: str) -> float:
    """Length over compressed length: high where a text repeats itself (as openai-whisper)."""
    content = text.encode()
    return len(content) / len(zlib.compress(content))


def _join(windows: list[_Window], known_text: str | None) -> Recognition:
    states = np.concatenate([window.states for window in windows])
    if known_text is not None:
        return Recognition(known_text, len(windows), states)
    text = " ".join(window.text for window in windows if window.text)
    return Recognition(
        text=text,
        num_windows=len(windows),
        states=states,
        temperature=0.0,
        avg_logprob=float(np.mean([window.avg_logprob for window in windows])),
        no_speech_prob=float(np.mean([window.no_speech_prob for window in windows])),
        compression_ratio=compression_ratio(text),
    )
