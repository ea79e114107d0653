"""The checks on one utterance, each with its reason code and its threshold in `params.yaml`.

To add one: a function that gives a number, and a line in `AUDIO_CHECKS` or `IMAGE_CHECKS`. What is
known of a file is in `recording_facts.py` and `picture_facts.py`; no file is opened here.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brewline.config.validate import ValidateParams
from brewline.tables.facts import PictureFacts, RecordingFacts, VideoFacts, dbfs
from brewline.tables.listing import Listing

# Of a text that is named in a sentence.
_MAX_SAID = 300
_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Fault(NamedTuple):
    """Why something is dropped: a reason code, and a sentence with numbers."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Check:
    """A quantity, and when it fails its threshold, which is a key of `validate`.

    The quantity is that of one file, or of many: of facts whose fields are columns it is a column.
    `detail` is the sentence about a failure; it may use `value`, `threshold` and the facts `f`.
    """

    quantity: Callable[[Any], Any]
    fails: Callable[[Any, float], Any]
    threshold: str
    detail: str

    def outcome(self, facts: Any, limits: ValidateParams) -> "Outcome":
        """Compares the quantity with the threshold."""
        value, threshold = self.quantity(facts), getattr(limits, self.threshold)
        return Outcome(value, threshold, self.fails(value, threshold))

    def say(self, facts: Any, outcome: "Outcome") -> str:
        """The sentence about a failure of one file."""
        return self.detail.format(f=facts, value=outcome.value, threshold=outcome.threshold)


class Outcome(NamedTuple):
    """What a check found, against what, and whether that is a failure; of many files, columns."""

    value: Any
    threshold: float
    failed: Any


def _has_end(facts: RecordingFacts) -> Any:
    return facts.has_end


def _missing_s(facts: RecordingFacts) -> Any:
    return facts.promised_duration_s - facts.duration_s


def _duration_s(facts: RecordingFacts) -> Any:
    return facts.duration_s


def _sample_rate_hz(facts: RecordingFacts) -> Any:
    return facts.sample_rate_hz


def _num_channels(facts: RecordingFacts) -> Any:
    return facts.num_channels


def _non_finite_fraction(facts: RecordingFacts) -> Any:
    return facts.num_non_finite / np.maximum(facts.num_samples, 1)


def _peak_dbfs(facts: RecordingFacts) -> Any:
    return dbfs(np.maximum(facts.high, -facts.low))


def _swing_dbfs(facts: RecordingFacts) -> Any:
    """The peak that is left without the offset: that of a constant is nothing."""
    return dbfs((facts.high - facts.low) / 2)


def _mono_peak_dbfs(facts: RecordingFacts) -> Any:
    return dbfs(facts.mono_peak)


def _burst_share(facts: RecordingFacts) -> Any:
    return facts.burst_share


def _level_range_db(facts: RecordingFacts) -> Any:
    """Speech has syllables and pauses; noise and hum have one level."""
    return facts.level_dbfs - facts.noise_dbfs


def _speech_share(facts: RecordingFacts) -> Any:
    """What was not looked for counts as there."""
    share = np.asarray(facts.speech_share, np.float64)
    return np.where(np.isnan(share), 1.0, share)[()]


def _clipped_fraction(facts: RecordingFacts) -> Any:
    return facts.num_clipped / np.maximum(facts.num_samples, 1)


def _dc_offset(facts: RecordingFacts) -> Any:
    return np.abs(facts.mean)


# In this order; the first that fails gives the reason. Those after `non_finite` need finite
# samples, those after `too_short` need some.
AUDIO_CHECKS: dict[str, Check] = {
    "truncated": Check(
        _has_end,
        operator.lt,
        "require_stream_end",
        "the stream stops after {f.duration_s:.2f} s without its end mark",
    ),
    "shorter_than_header": Check(
        _missing_s,
        operator.gt,
        "max_duration_mismatch_s",
        "{f.duration_s:.2f} s of the {f.promised_duration_s:.2f} s promised",
    ),
    "too_short": Check(
        _duration_s, operator.lt, "min_duration_s", "{value:.3f} s, under {threshold} s"
    ),
    "too_long": Check(
        _duration_s, operator.gt, "max_duration_s", "{value:.0f} s, over {threshold:.0f} s"
    ),
    "low_sample_rate": Check(
        _sample_rate_hz, operator.lt, "min_sample_rate_hz", "{value} Hz, under {threshold} Hz"
    ),
    "too_many_channels": Check(
        _num_channels, operator.gt, "max_channels", "{value} channels, over {threshold}"
    ),
    "non_finite": Check(
        _non_finite_fraction,
        operator.gt,
        "max_non_finite_fraction",
        "{f.num_non_finite} samples of {f.num_samples} are NaN or infinite",
    ),
    "silent": Check(
        _peak_dbfs, operator.lt, "silence_dbfs", "the loudest sample is at {value:.0f} dBFS"
    ),
    "constant": Check(
        _swing_dbfs,
        operator.lt,
        "silence_dbfs",
        "the samples swing by {value:.0f} dBFS about their middle",
    ),
    # Two channels of which one is the other upside down: people hear them, and models nothing.
    "channels_cancel": Check(
        _mono_peak_dbfs,
        operator.lt,
        "silence_dbfs",
        "the mean of the {f.num_channels} channels, which is what models hear, is at {value:.0f} "
        "dBFS",
    ),
    "clipped": Check(
        _clipped_fraction,
        operator.gt,
        "max_clipped_fraction",
        "{value:.0%} of the samples are clipped",
    ),
    "dc_offset": Check(
        _dc_offset, operator.gt, "max_dc_offset", "the mean is {value:.2f} of full scale"
    ),
    "click": Check(
        _burst_share,
        operator.gt,
        "max_burst_share",
        "{value:.0%} of the energy is in the loudest 60 ms",
    ),
    "noise": Check(
        _level_range_db,
        operator.lt,
        "min_level_range_db",
        "from its quietest to its loudest the level changes by {value:.1f} dB: noise or a hum",
    ),
    "no_speech": Check(
        _speech_share, operator.lt, "min_speech_share", "{value:.0%} of it is speech"
    ),
}

# Of sounds that nobody speaks: a hammer clicks, and rain is noise.
SOUND_CHECKS = {
    reason: check
    for reason, check in AUDIO_CHECKS.items()
    if reason not in ("click", "noise", "no_speech")
}


def _short_side_px(facts: PictureFacts) -> Any:
    return np.minimum(facts.width_px, facts.height_px)


def _aspect(facts: PictureFacts) -> Any:
    return np.maximum(facts.width_px, facts.height_px) / _short_side_px(facts)


_SMALL_IMAGE = Check(
    _short_side_px,
    operator.lt,
    "min_image_side_px",
    "the short side is {value} px, under {threshold} px",
)
_EXTREME_SHAPE = Check(
    _aspect,
    operator.gt,
    "max_image_aspect",
    "{f.width_px} x {f.height_px} px: one side is {value:.0f} times the other, over {threshold:g}",
)
IMAGE_CHECKS: dict[str, Check] = {
    "small_image": _SMALL_IMAGE,
    "extreme_shape": _EXTREME_SHAPE,
}


def _num_missing(facts: VideoFacts) -> Any:
    return facts.num_asked - facts.num_found


def _picture_change(facts: VideoFacts) -> Any:
    return facts.picture_change


# Of the picture track of a video.
VIDEO_CHECKS: dict[str, Check] = {
    "pictures_end": Check(
        _num_missing,
        operator.gt,
        "max_missing_frames",
        "{value} of {f.num_asked} pictures are missing: they stop before the sound does",
    ),
    "frozen_picture": Check(
        _picture_change,
        operator.lt,
        "min_picture_change",
        "nothing moves: no part of the picture changes by more than {value:.1f} of 255",
    ),
    "small_image": _SMALL_IMAGE,
    "extreme_shape": _EXTREME_SHAPE,
}


def first_fault(checks: Mapping[str, Check], facts: Any, limits: ValidateParams) -> Fault | None:
    """The first check that fails."""
    for reason, check in checks.items():
        outcome = check.outcome(facts, limits)
        if outcome.failed:
            return Fault(reason, check.say(facts, outcome))
    return None


def any_fault(
    checks: Mapping[str, Check], columns: Any, limits: ValidateParams
) -> NDArray[np.bool_]:
    """Which of many files fail a check, (num_files,)."""
    failed: NDArray[np.bool_] = np.logical_or.reduce(
        [check.outcome(columns, limits).failed for check in checks.values()]
    )
    return failed


def check_listing(listing: Listing) -> Fault | None:
    """Checks what the corpus says of an utterance, before anything of it is opened."""
    if listing.fault:
        return Fault(listing.fault_reason, printable(listing.fault))
    if not _KEY.fullmatch(listing.utterance_id):
        return Fault("bad_key", "an id may hold letters, digits, _ and - only")
    for name, text in () if listing.is_ascii() else listing.texts():
        if not _is_text(text, is_path=name.endswith("_path")):
            return Fault("bad_text", f"its {name} is no UTF-8 text: {printable(text)}")
    captions = listing.captions if listing.caption is None else (listing.caption,)
    if not all(map(str.strip, captions)):
        return Fault("empty_caption", "the caption has no text")
    return None


def printable(text: str) -> str:
    """Returns a text with what is no UTF-8 in it as escapes, and not too long for a sentence."""
    escaped = text.encode("utf-8", "backslashreplace").decode()
    return escaped if len(escaped) <= _MAX_SAID else f"{escaped[:_MAX_SAID]}..."


def _is_text(text: str, is_path: bool) -> bool:
    """Whether text was UTF-8 when it was read.

    Bytes that were not are lone surrogates, or U+FFFD, by now: see `errors="surrogateescape"` and
    `errors="replace"` of `bytes.decode`. In the name of a file U+FFFD is a sign like others.
    """
    return not any("\ud800" <= c <= "\udfff" or (c == "\ufffd" and not is_path) for c in text)
