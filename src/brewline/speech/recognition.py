"""What recognition gives, in arrays and plain types: no model is needed to read it."""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray


class Word(TypedDict):
    """A word of a text: when it was said, in seconds of its recording, and how likely it is."""

    word: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True)
class Recognition:
    """What Whisper made of one recording.

    `words` are there where they were asked for and the text was decoded.
    `language` is what its text was decoded in, or else what is known of it; None: nothing.
    `states` is (at least num_frames, width) float16: the encoder frames of all windows; those from
    `num_frames` on are of padding. What decoding tells about its text is None where the text was
    known before. `reason` says what is still wrong with the text: `no_speech`, `no_words`,
    `repetitive`, `unsure` or `cut`.
    """

    text: str
    num_windows: int
    states: NDArray[np.float16]
    num_frames: int
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    compression_ratio: float | None = None
    temperature: float | None = None
    reason: str | None = None
    language: str | None = None
    words: list[Word] | None = None
