"""Recordings and pictures from outside: the same checks as on a corpus, and the same words.

`brewline search` and a served model ask here. What comes from outside is hostile until shown
otherwise: it is decoded in a process of its own, which is ended if it takes too long, and what a
recording costs is bounded while it is decoded.
"""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brewline.config.validate import ValidateParams
from brewline.core.errors import BrewlineError
from brewline.core.workers import Lost, Worker
from brewline.media.audio import AudioError, open_recording, to_16k
from brewline.media.pictures import PictureError, is_picture
from brewline.quality.checks import (
    AUDIO_CHECKS,
    IMAGE_CHECKS,
    SOUND_CHECKS,
    Check,
    Fault,
    first_fault,
)
from brewline.quality.picture_facts import read_picture_facts
from brewline.quality.recording_facts import RecordingMeter, read_recording_facts
from brewline.tables.facts import PictureFacts, RecordingFacts

# Of one channel, as float32: 400 MB.
_MAX_SAMPLES = 100_000_000
# These need no sample.
_KNOWN_BEFORE = ("low_sample_rate", "too_many_channels")


class Finding(NamedTuple):
    """What was found out about a file; without `facts` it could not be opened."""

    fault: Fault | None
    facts: RecordingFacts | PictureFacts | None = None


def check_audio(content: bytes, limits: ValidateParams) -> Finding:
    """Decodes a recording to its end and checks it."""
    try:
        facts = read_recording_facts(content)
    except AudioError as error:
        return Finding(Fault(error.reason, error.detail))
    return Finding(first_fault(AUDIO_CHECKS, facts, limits), facts)


def check_image(content: bytes, limits: ValidateParams) -> Finding:
    """Opens a picture fully and checks it."""
    try:
        facts = read_picture_facts(content, limits.max_image_megapixels)
    except PictureError as error:
        return Finding(Fault(error.reason, error.detail))
    return Finding(first_fault(IMAGE_CHECKS, facts, limits), facts)


class RefusedError(BrewlineError):
    """A recording or a picture fails a check; `reason` is the code that a quarantine has."""

    def __init__(self, what: str, fault: Fault) -> None:
        super().__init__(f"the {what} is refused (`{fault.reason}`): {fault.detail}")
        self.reason = fault.reason


@dataclass(frozen=True)
class _Query:
    # A file may be either: what it is, is asked.
    kind: Literal["recording", "picture", "file"]
    content: bytes


# Of a file, whether it is a picture; of a recording, its samples; of a good picture, nothing.
_Answer = NDArray[np.float32] | Fault | bool | None


class GuardedChecks:
    """Decodes and checks in a process of its own, which no file holds for long; one at a time."""

    def __init__(self, limits: ValidateParams, limit_s: float, is_sound: bool = False) -> None:
        """Starts the process.

        Args:
            limits: Thresholds.
            limit_s: Seconds that a file may take.
            is_sound: Nobody has to speak in a recording, as in a clip of a corpus of sounds.
        """
        self._worker: Worker[_Query, _Answer] = Worker(
            partial(_answers, limits, is_sound), limit_s, chunk_size=1, knows_main=False
        )
        weakref.finalize(self, self._worker.close)

    def hear(self, content: bytes) -> NDArray[np.float32]:
        """A recording from outside as models hear it, (num_samples,) at 16 kHz.

        Raises:
            RefusedError: it fails a check; see `AUDIO_CHECKS` and `SOUND_CHECKS`, and docs/guide.md
                for all reasons.
        """
        waveform = self._ask(_Query("recording", content))
        assert isinstance(waveform, np.ndarray)
        return waveform

    def look(self, content: bytes) -> None:
        """Checks a picture from outside.

        Raises:
            RefusedError: it fails a check; see `IMAGE_CHECKS`, and docs/guide.md for all reasons.
        """
        self._ask(_Query("picture", content))

    def is_picture(self, content: bytes) -> bool:
        """Whether a file from outside begins like a picture; it may be damaged, or a recording.

        Raises:
            RefusedError: that could not be found out.
        """
        return self._ask(_Query("file", content)) is True

    def _ask(self, query: _Query) -> NDArray[np.float32] | bool | None:
        (answer,) = self._worker.map([query])
        if isinstance(answer, Lost):
            answer = Fault(f"decoder_{answer.how}", answer.detail)
        if isinstance(answer, Fault):
            raise RefusedError(query.kind, answer)
        return answer


def _answers(limits: ValidateParams, is_sound: bool) -> Callable[[_Query], _Answer]:
    """Called in the process of `GuardedChecks`, gives what answers a query there."""
    checks = SOUND_CHECKS if is_sound else AUDIO_CHECKS

    def answer(query: _Query) -> _Answer:
        if query.kind == "file":
            return is_picture(query.content)
        if query.kind == "picture":
            return check_image(query.content, limits).fault
        try:
            return _heard(query.content, checks, limits)
        except AudioError as error:
            return Fault(error.reason, error.detail)

    return answer


def _heard(
    content: bytes, checks: Mapping[str, Check], limits: ValidateParams
) -> NDArray[np.float32]:
    """Decodes a recording, and stops where it is longer than it may be."""
    with open_recording(content) as recording:
        rate_hz = recording.sample_rate_hz
        for reason in _KNOWN_BEFORE:
            check = checks[reason]
            outcome = check.outcome(recording, limits)
            if outcome.failed:
                raise AudioError(reason, check.say(recording, outcome))
        most = min(int(limits.max_duration_s * rate_hz), _MAX_SAMPLES)
        meter = RecordingMeter(recording, most_kept=most)
        for num_samples in meter.listen():
            if num_samples > most:
                raise AudioError("too_long", f"it goes on after {most / rate_hz:.0f} s")
        facts = meter.facts(content)
    if fault := first_fault(checks, facts, limits):
        raise AudioError(*fault)
    mono = meter.mono()
    assert mono is not None
    return to_16k(mono, rate_hz)
