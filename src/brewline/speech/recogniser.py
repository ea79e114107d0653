"""Waveforms to transcripts and encoder states, in one pass, with Whisper's safeguards.

The encoder runs once per window; its output is decoded to text and kept as the states that the
acoustic channel reads. Windows are sorted by length and taken a batch at a time, so that rows of a
batch end together.

What a window is decoded to is doubted as openai-whisper's `transcribe` does: where the text repeats
itself (compression ratio, loops) or its tokens are unlikely (average log-probability), the window
is decoded again at the next temperature, unless it holds no speech; then its text is empty. So is
one without any word ("."), whatever the safeguards say. With `vad: silero` long recordings are cut
at pauses, and windows in which nobody speaks are not decoded at all: Whisper would find words for
the noise of a room.
"""

import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from brewline.config.asr import AsrParams
from brewline.core.compute import DeviceName
from brewline.core.devices import choose_device
from brewline.core.errors import BrewlineError
from brewline.core.scripts import has_word, join_texts
from brewline.quality.speech_share import SAMPLES_PER_FRAME as VAD_FRAME
from brewline.quality.speech_share import SpeechShare
from brewline.speech.decoding import Decoding
from brewline.speech.engines import Engine, load_engine
from brewline.speech.recognition import Recognition, Word
from brewline.speech.windows import SAMPLES_PER_FRAME, num_frames, split_at_pauses, split_windows


@dataclass
class _Window:
    recording: int
    waveform: NDArray[np.float32]
    language: str | None
    # Where in the recording it begins, in encoder frames.
    first_frame: int
    # Whether it is to be decoded to text, not only encoded.
    decode: bool = True
    decoding: Decoding | None = None
    text: str = ""
    temperature: float = 0.0
    reason: str | None = None
    words: list[Word] = field(default_factory=list)
    states: NDArray[np.float16] = field(default_factory=lambda: np.empty((0, 0), np.float16))

    @property
    def num_frames(self) -> int:
        return num_frames(len(self.waveform))

    @property
    def needs_language(self) -> bool:
        return self.decode and self.language is None


class Recogniser:
    """Runs one Whisper model over many recordings.

    The result for a recording depends on the batch it is in only by rounding, and, with
    `audio_context: utterance`, by the silence that pads it to the longest of the batch; batches
    are a function of the recordings given, so equal calls give equal results.
    """

    def __init__(self, checkpoint: Path, settings: AsrParams, device: DeviceName = "auto") -> None:
        """Loads the model.

        Raises:
            BrewlineError: see `load_engine`.
        """
        self._settings = settings
        self._engine: Engine = load_engine(checkpoint, settings, choose_device(device))
        self._context = self._engine.dimensions.n_audio_ctx
        self._speech_share = SpeechShare() if settings.vad == "silero" else None

    def recognise(
        self,
        waveforms: Sequence[NDArray[np.float32]],
        texts: Sequence[str | None] | None = None,
        languages: Sequence[str | None] | None = None,
    ) -> list[Recognition]:
        """Transcribes recordings of any length.

        A recording is in one language: that of `languages`, or else of the settings, or else what
        its first window sounds like.

        Args:
            waveforms: Each (num_samples,) at 16 kHz.
            texts: What is said in each, where that is known already: it is encoded only.
            languages: What is spoken in each, by its code, where that is known already.

        Returns:
            One recognition each, in the same order.

        Raises:
            BrewlineError: the model gives something that is no number.
        """
        known = texts or [None] * len(waveforms)
        spoken = [code or self._settings.spoken for code in languages or [None] * len(waveforms)]
        parts = [
            list(self._windows(number, *recording))
            for number, recording in enumerate(zip(waveforms, known, spoken, strict=True))
        ]
        # The first window of each that is decoded tells the language, where it is not known.
        leads = [next((one for one in part if one.needs_language), None) for part in parts]
        self._recognise_windows(
            window
            for part, lead in zip(parts, leads, strict=True)
            for window in (part if lead is None else [lead])
        )
        later = []
        for part, lead in zip(parts, leads, strict=True):
            for window in part:
                if lead is not None and window is not lead:
                    window.language = lead.language
                    later.append(window)
        self._recognise_windows(later)
        return [self._join(part, text) for part, text in zip(parts, known, strict=True)]

    def _windows(
        self, number: int, waveform: NDArray[np.float32], text: str | None, language: str | None
    ) -> Iterator[_Window]:
        first_frame = 0
        for part, is_spoken in self._cut(waveform, is_heard=text is None):
            window = _Window(number, part, language, first_frame, decode=text is None and is_spoken)
            if not is_spoken:
                window.reason = "no_speech"
            yield window
            first_frame += window.num_frames

    def _cut(
        self, waveform: NDArray[np.float32], is_heard: bool
    ) -> Iterator[tuple[NDArray[np.float32], bool]]:
        """The windows of a recording, and whether somebody speaks in each, as far as is known."""
        max_samples = self._context * SAMPLES_PER_FRAME
        if self._speech_share is None or not is_heard:
            for part in split_windows(waveform, max_samples):
                yield part, True
        elif len(waveform) <= max_samples:
            yield waveform, self._speech_share(waveform) > 0
        else:
            is_speech = self._speech_share.frames(waveform)
            yield from split_at_pauses(waveform, is_speech, VAD_FRAME, max_samples)

    def _recognise_windows(self, windows: Iterable[_Window]) -> None:
        by_length = sorted(windows, key=lambda window: (len(window.waveform), window.recording))
        for start in range(0, len(by_length), self._settings.batch_size):
            self._recognise_batch(by_length[start : start + self._settings.batch_size])

    def _recognise_batch(self, windows: list[_Window]) -> None:
        full = self._settings.audio_context == "full"
        context = self._context if full else max(window.num_frames for window in windows)
        states = self._engine.encode([window.waveform for window in windows], context)
        kept = states.half().cpu().numpy()
        for row, window in enumerate(windows):
            # Copied, so that a window does not hold on to its batch.
            window.states = kept[row, : self._num_kept(window)].copy()
            if not np.isfinite(window.states).all():
                raise BrewlineError("encoder states are no numbers, or too large for 16 bits")
        self._detect_languages(windows, states)
        doubtful = [row for row, window in enumerate(windows) if window.decode]
        for temperature in self._settings.temperatures:
            if not doubtful:
                break
            seeds = [_seed(windows[row].waveform, temperature) for row in doubtful]
            languages = [str(windows[row].language) for row in doubtful]
            rows = states if len(doubtful) == len(states) else states[doubtful]
            found = self._engine.decode(rows, languages, temperature, seeds)
            for row, decoding in zip(doubtful, found, strict=True):
                self._take(windows[row], decoding, temperature)
            doubtful = [row for row in doubtful if windows[row].reason in ("repetitive", "unsure")]
        if self._settings.word_times:
            for row, window in enumerate(windows):
                self._time_words(window, states[row])

    def _time_words(self, window: _Window, states: Tensor) -> None:
        if window.text and window.decoding is not None:
            window.words = self._engine.time_words(
                states,
                str(window.language),
                window.decoding.tokens,
                window.first_frame,
                window.num_frames,
            )

    def _detect_languages(self, windows: list[_Window], states: Tensor) -> None:
        unknown = [row for row, window in enumerate(windows) if window.needs_language]
        if unknown:
            found = self._engine.detect_languages(states[unknown])
            for row, language in zip(unknown, found, strict=True):
                windows[row].language = language

    def _num_kept(self, window: _Window) -> int:
        return self._context if self._settings.states == "all" else window.num_frames

    def _take(self, window: _Window, decoding: Decoding, temperature: float) -> None:
        """Keeps a decoding, with what the safeguards say of it."""
        settings = self._settings
        window.decoding, window.temperature = decoding, temperature
        window.text = self._engine.tokenizer.decode(decoding.tokens).strip()
        if not math.isfinite(decoding.avg_logprob):
            raise BrewlineError("the decoder's scores are no numbers")
        is_unlikely = decoding.avg_logprob < settings.logprob_threshold
        if is_unlikely and decoding.no_speech_prob > settings.no_speech_threshold:
            window.text, window.reason = "", "no_speech"
        elif decoding.is_loop or compression_ratio(window.text) > settings.max_compression_ratio:
            window.reason = "repetitive"
        elif is_unlikely:
            window.reason = "unsure"
        else:
            window.reason = "cut" if decoding.is_cut else None
        if not has_word(window.text):
            window.text, window.reason = "", window.reason or "no_words"

    def _join(self, windows: list[_Window], known_text: str | None) -> Recognition:
        frames = sum(window.num_frames for window in windows)
        # Frames of padding, where they are kept, come last: those inside would be gaps.
        *before, last = windows
        states = np.concatenate([w.states[: w.num_frames] for w in before] + [last.states])
        language = next((window.language for window in windows if window.language), None)
        if known_text is not None:
            # One that is empty was meant to be, or is given up.
            is_empty = bool(known_text) and not has_word(known_text)
            text, reason = ("", "no_words") if is_empty else (known_text, None)
            return Recognition(text, len(windows), states, frames, reason=reason, language=language)
        decodings = [window.decoding for window in windows if window.decoding is not None]
        sizes = [len(decoding.tokens) + 1 for decoding in decodings]
        words = [word for window in windows for word in window.words]
        if not decodings:
            # Nobody speaks in any of them.
            return Recognition(
                "",
                len(windows),
                states,
                frames,
                reason="no_speech",
                language=language,
                words=words if self._settings.word_times else None,
            )
        return Recognition(
            text=join_texts(window.text for window in windows),
            num_windows=len(windows),
            states=states,
            num_frames=frames,
            avg_logprob=float(np.average([d.avg_logprob for d in decodings], weights=sizes)),
            no_speech_prob=float(np.mean([d.no_speech_prob for d in decodings])),
            compression_ratio=max(compression_ratio(window.text) for window in windows),
            temperature=max(window.temperature for window in windows),
            reason=_worst(window.reason for window in windows),
            language=language,
            words=words if self._settings.word_times else None,
        )


def _worst(reasons: Iterable[str | None]) -> str | None:
    """Of what the safeguards say of a recording's windows, what they say of the recording.

    Silence in one window of several is a pause, and so is a window without words.
    """
    found = set(reasons)
    for reason in ("repetitive", "unsure", "cut"):
        if reason in found:
            return reason
    if None in found:
        return None
    return "no_speech" if found == {"no_speech"} else "no_words"


def _seed(waveform: NDArray[np.float32], temperature: float) -> int:
    """What the draws of a window depend on: itself alone, wherever and whenever it is decoded."""
    return zlib.crc32(waveform.tobytes(), round(temperature * 1000))


def compression_ratio(text: str) -> float:
    """Length over compressed length: high where a text repeats itself (as openai-whisper)."""
    content = text.encode()
    return len(content) / len(zlib.compress(content))
