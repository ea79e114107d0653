"""The checks on one utterance, each with its reason code and its threshold in `params.yaml`.

To add one: a function that gives a number, and a line in `AUDIO_CHECKS` or `IMAGE_CHECKS`. What
must be known of a recording beforehand is gathered in `signals.py`.
"""

import hashlib
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from brewline.config.validate import ValidateParams
from brewline.media.audio import AudioError
from brewline.media.pictures import PictureError, open_picture
from brewline.quality.signals import Signal, read_signal
from brewline.tables.listing import Listing

_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Fault(NamedTuple):
    """Why something is dropped: a reason code, and a sentence with numbers."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Check:
    """A quantity, and when it fails its threshold, which is a key of `validate`.

    `detail` is the sentence about a failure; it may use `value`, `threshold` and the facts `f`.
    """

    quantity: Callable[[Any], float]
    fails: Callable[[float, float], bool]
    threshold: str
    detail: str

    def outcome(self, facts: Any, limits: ValidateParams) -> "Outcome":
        """Compares the quantity with the threshold."""
        value, threshold = self.quantity(facts), getattr(limits, self.threshold)
        return Outcome(value, threshold, self.fails(value, threshold))

    def say(self, facts: Any, outcome: "Outcome") -> str:
        """The sentence about a failure."""
        return self.detail.format(f=facts, value=outcome.value, threshold=outcome.threshold)


class Outcome(NamedTuple):
    """What a check found, against what, and whether that is a failure."""

    value: float
    threshold: float
    failed: bool


def _has_end(signal: Signal) -> float:
    return signal.has_end


def _missing_s(signal: Signal) -> float:
    return signal.promised_duration_s - signal.duration_s


def _duration_s(signal: Signal) -> float:
    return signal.duration_s


def _sample_rate_hz(signal: Signal) -> float:
    return signal.sample_rate_hz


def _num_channels(signal: Signal) -> float:
    return signal.num_channels


def _non_finite_fraction(signal: Signal) -> float:
    return signal.num_non_finite / max(signal.num_samples, 1)


def _dbfs(level: float) -> float:
    return 20 * math.log10(max(level, 1e-10))


def _peak_dbfs(signal: Signal) -> float:
    return _dbfs(max(signal.high, -signal.low))


def _swing_dbfs(signal: Signal) -> float:
    """The peak that is left without the offset: that of a constant is nothing."""
    return _dbfs((signal.high - signal.low) / 2)


def _clipped_fraction(signal: Signal) -> float:
    return signal.num_clipped / max(signal.num_samples, 1)


def _dc_offset(signal: Signal) -> float:
    return abs(signal.mean)


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
    "clipped": Check(
        _clipped_fraction,
        operator.gt,
        "max_clipped_fraction",
        "{value:.0%} of the samples are clipped",
    ),
    "dc_offset": Check(
        _dc_offset, operator.gt, "max_dc_offset", "the mean is {value:.2f} of full scale"
    ),
}


@dataclass(frozen=True)
class Picture:
    """A picture that opened fully, upright."""

    width_px: int
    height_px: int


def _short_side_px(picture: Picture) -> float:
    return min(picture.width_px, picture.height_px)


def _aspect(picture: Picture) -> float:
    return max(picture.width_px, picture.height_px) / _short_side_px(picture)


IMAGE_CHECKS: dict[str, Check] = {
    "small_image": Check(
        _short_side_px,
        operator.lt,
        "min_image_side_px",
        "the short side is {value} px, under {threshold} px",
    ),
    "extreme_shape": Check(
        _aspect,
        operator.gt,
        "max_image_aspect",
        "{f.width_px} x {f.height_px} px: one side is {value:.0f} times the other, over "
        "{threshold:g}",
    ),
}


class Finding(NamedTuple):
    """What was found out about a file; without `facts` it could not be decoded."""

    fault: Fault | None
    facts: Signal | Picture | None = None
    sha256: str = ""


def first_fault(checks: Mapping[str, Check], facts: Any, limits: ValidateParams) -> Fault | None:
    """The first check that fails."""
    for reason, check in checks.items():
        outcome = check.outcome(facts, limits)
        if outcome.failed:
            return Fault(reason, check.say(facts, outcome))
    return None


def check_audio(content: bytes, limits: ValidateParams) -> Finding:
    """Decodes a recording to its end and checks it."""
    try:
        signal = read_signal(content)
    except AudioError as error:
        return Finding(Fault(error.reason, error.detail))
    fault = first_fault(AUDIO_CHECKS, signal, limits)
    return Finding(fault, signal, "" if fault else hashlib.sha256(content).hexdigest())


def check_image(content: bytes, limits: ValidateParams) -> Finding:
    """Opens a picture fully and checks it."""
    try:
        opened = open_picture(content, limits.max_image_megapixels, needed_px=1)
    except PictureError as error:
        return Finding(Fault(error.reason, error.detail))
    picture = Picture(opened.width_px, opened.height_px)
    return Finding(first_fault(IMAGE_CHECKS, picture, limits), picture)


def check_listing(listing: Listing) -> Fault | None:
    """Checks what the corpus says of an utterance, before anything of it is opened."""
    if not _KEY.fullmatch(listing.utterance_id):
        return Fault("bad_key", "an id may hold letters, digits, _ and - only")
    if listing.caption is not None:
        if not _is_text(listing.caption):
            return Fault("bad_text", "the caption is not UTF-8 text")
        if not listing.caption.strip():
            return Fault("empty_caption", "the caption has no text")
    if listing.transcript is not None and not _is_text(listing.transcript):
        return Fault("bad_text", "the transcript is not UTF-8 text")
    return None


def _is_text(text: str) -> bool:
    """Whether text was UTF-8 when it was read.

    Bytes that were not are lone surrogates, or U+FFFD, by now: see `errors="surrogateescape"` and
    `errors="replace"` of `bytes.decode`.
    """
    return text.isascii() or not any("\ud800" <= c <= "\udfff" or c == "\ufffd" for c in text)
