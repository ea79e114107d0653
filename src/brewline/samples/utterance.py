"""One sample, of several kinds: an utterance with its picture and texts, or a clip of a video."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brewline.core.errors import BrewlineError


class BadSampleError(BrewlineError):
    """A sample cannot be read, and others can; `utterance_id` is whose it is."""

    def __init__(self, utterance_id: str, why: str) -> None:
        super().__init__(why)
        self.utterance_id = utterance_id

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.utterance_id, str(self))


@dataclass(frozen=True)
class Frame:
    """A picture out of a video, a JPEG, and when it is seen, from the clip's beginning."""

    time_s: float
    image: bytes


@dataclass(frozen=True)
class Event:
    """What is heard and seen from one time to another, from the clip's beginning."""

    start_s: float
    end_s: float
    label: str


@dataclass(frozen=True)
class Utterance:
    """One recording with its picture and texts, or a clip of a video.

    `image` is a JPEG; `transcript` is "" where recognition failed; `num_frames` counts the valid
    encoder frames, 50 a second; `states` is (num_frames, width), or longer with those of padding
    behind (`asr.states: all`), present only when asked for; `confidence` is the recogniser's in the
    transcript, from 0 to 1: see `confidence_in`. `speaker_id` and `emotion` are there where the
    corpus names them. `augmented` are the states of the recording with each of `AUGMENTATIONS`,
    where they were asked for.

    A clip has its `sound` as FLAC (16 kHz, mono), `frames` in the order of their times (none where
    a corpus has sound alone), `captions`, and `events` where the corpus knows them; it has neither
    `image` nor `transcript`.
    """

    utterance_id: str
    image_id: str | None
    image: bytes | None
    transcript: str
    caption: str | None
    num_frames: int
    states: NDArray[np.float16] | None = None
    confidence: float = 1.0
    speaker_id: str | None = None
    emotion: str | None = None
    sound: bytes | None = None
    frames: tuple[Frame, ...] = ()
    captions: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    augmented: tuple[NDArray[np.float16], ...] = ()


def confidence_in(transcript: str, avg_logprob: float | None) -> float:
    """How sure a recogniser was of its text: the geometric mean of its tokens' probabilities.

    Without an average of their logarithms, a text was given, and is sure; an empty one is not.
    """
    if avg_logprob is None:
        return 1.0 if transcript else 0.0
    return math.exp(min(0.0, avg_logprob))
