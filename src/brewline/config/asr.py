"""Section `asr`."""

from typing import Annotated, Literal

from pydantic import Field

from brewline.config.types import LANGUAGE_CODE, Fraction, PositiveFloat, PositiveInt, Section

OnFailure = Literal["keep", "drop", "stop"]
# Whisper tells the language of each recording by itself.
AUTO = "auto"


class AsrParams(Section):
    """How Whisper is run over a corpus."""

    # openai-whisper: its own modules; faster-whisper: the engine CTranslate2, an extra to install.
    engine: Literal["openai-whisper", "faster-whisper"]
    # Of recordings whose corpus does not say: a code, or auto.
    language: Annotated[str, Field(pattern=f"^({AUTO}|{LANGUAGE_CODE})$")]
    # silero: long recordings are cut at pauses, and windows in which nobody speaks are not decoded,
    # and get no words (an extra).
    vad: Literal["none", "silero"]
    # full: every window is padded to Whisper's 30 s; utterance: to the longest of its batch.
    audio_context: Literal["full", "utterance"]
    # Encoder frames that are stored. valid: the recording's own; all: those of padding too, as the
    # paper has them.
    states: Literal["valid", "all"]
    # Windows at a time.
    batch_size: PositiveInt
    # auto: what the device does best; int8 is for faster-whisper.
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"]
    # Hypotheses at temperature 0; 1 is greedy.
    beam_size: PositiveInt
    # Where the text of a window is cut off at the latest.
    max_tokens: PositiveInt
    # The first is that of every window; the next ones, in turn, of those that the safeguards doubt.
    temperatures: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]
    # The safeguards, as in openai-whisper's `transcribe`: a text is doubted below this average
    # log-probability or above this compression ratio; below the one and with a no-speech
    # probability above its threshold, the window is silent.
    logprob_threshold: Annotated[float, Field(le=0)]
    max_compression_ratio: PositiveFloat
    no_speech_threshold: Fraction
    # A phrase said so many times in a row is a loop: it is kept once, and the text is doubted.
    max_repeats: Annotated[int, Field(ge=2)]
    # When each word was said is written beside the text: it is read once more by the decoder.
    word_times: bool
    # A recording that cannot be recognised: keep, with an empty text and whatever the encoder
    # made of it; drop it from the shards; or stop.
    on_failure: OnFailure

    @property
    def spoken(self) -> str | None:
        """The language of recordings whose corpus does not say; None: Whisper tells it."""
        return None if self.language == AUTO else self.language
