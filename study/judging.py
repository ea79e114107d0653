"""Judges the claims of the study by what its parts left: values with paired intervals, and bounds.

Suffixes: S samples of the bootstrap, Q queries.
"""

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from brewline.analysis.word_errors import recall_over_wer, select_queries
from brewline.config.loading import parse, read_yaml
from brewline.config.types import Section
from brewline.core.errors import BrewlineError
from brewline.evaluation.bootstrap import Bootstrap, ByImage, sum_by_image
from brewline.evaluation.outputs import IMAGE_TO_SPEECH, SPEECH_TO_IMAGE
from brewline.evaluation.sound_scores import AUDIO_TO_TEXT, TEXT_TO_AUDIO
from study.definition import Study

Floats = NDArray[np.float64]
SpeechDirection = Literal["speech_to_image", "image_to_speech"]
SoundDirection = Literal["audio_to_image", "image_to_audio", "audio_to_text", "text_to_audio"]
# Stands among the models of a check.
CHANCE = "chance"
# In place of a direction, where sounds are asked for the right time.
TIME = "time"


class Interval(Section):
    """How intervals are estimated; see `Bootstrap`."""

    samples: int
    seed: int
    confidence: float


class Range(Section):
    """Recordings whose word error rate lies between two, both included."""

    start: float = Field(alias="from", default=0.0)
    end: float = Field(alias="to", default=math.inf)


class Check(Section):
    """A sum of models in one metric, and where its interval has to lie; claims.yaml explains it."""

    of: str
    models: dict[str, float]
    hit_at: int | None = None
    directions: list[SpeechDirection] | list[SoundDirection] = Field(
        default_factory=lambda: list(get_args(SpeechDirection))
    )
    word_error_rate: Range | None = None
    slope_over: Literal["word_error_rate"] | None = None
    right_time: Literal["clip", "segment"] | None = None
    probe: str | None = None
    protocol: str = "emobox"
    labels: str | None = None
    above: float | None = None
    below: float | None = None
    within: float | None = None

    @model_validator(mode="after")
    def _is_one_question(self) -> Self:
        if (self.hit_at, self.right_time, self.probe).count(None) != 2:
            raise ValueError(
                "a check has either hit_at, of models of retrieval, or right_time, of sounds, "
                "or a probe"
            )
        if (self.probe is None) != (self.labels is None):
            raise ValueError("a check of a probe, and no other one, has labels")
        return self

    @property
    def problem(self) -> str:
        """Which emotions are told apart, and who is held out, as a probe names it."""
        return f"{self.protocol}/{self.labels}"

    def holds(self, low: float, high: float) -> bool:
        """Whether an interval lies where it has to."""
        if self.within is not None:
            return -self.within < low and high < self.within
        return low > self.above if self.above is not None else high < (self.below or 0.0)

    def is_contradicted(self, low: float, high: float) -> bool:
        """Whether the whole interval lies where it must not."""
        if self.within is not None:
            return low > self.within or high < -self.within
        return high < self.above if self.above is not None else low > (self.below or 0.0)


class Claim(Section):
    """What is claimed, by whom, and the checks that all have to hold."""

    says: str
    source: str
    checks: Annotated[list[Check], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_bounds(self) -> Self:
        for one in self.checks:
            if (one.above, one.below, one.within).count(None) != 2:
                raise ValueError(f"check {one.of!r} has to have one of above, below and within")
        return self


class Claims(Section):
    """`claims.yaml`."""

    interval: Interval
    claims: dict[str, Claim]


class _Remarks(Section):
    remarks: dict[str, str]


@dataclass(frozen=True)
class Finding:
    """What came out of a check in one direction."""

    check: Check
    direction: str
    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`yes`, `no`, or `the contrary` where the whole interval lies on the wrong side."""
        if self.check.holds(self.low, self.high):
            return "yes"
        return "the contrary" if self.check.is_contradicted(self.low, self.high) else "no"


@dataclass(frozen=True)
class Verdict:
    """What became of a claim; `missing` are the models that the study does not have (yet)."""

    name: str
    claim: Claim
    findings: list[Finding]
    missing: list[str]

    @property
    def words(self) -> str:
        """Of all of its checks."""
        if self.missing:
            return "not yet measured"
        found = {finding.verdict for finding in self.findings}
        if found == {"yes"}:
            return "shown"
        return "partly shown" if "yes" in found else "not shown"


class Outcomes:
    """What the parts left, and the samples of the bootstrap that all models of a corpus share.

    Args:
        found: See `study.parts.finished_outcomes`.
        interval: How intervals are estimated.

    Raises:
        BrewlineError: a model was asked something else than its corpus lists.
    """

    def __init__(self, found: Mapping[str, Mapping[str, Any]], interval: Interval) -> None:
        self.interval = interval
        self.corpora, self.models, self.probes = (
            found[kind] for kind in ("corpora", "models", "probes")
        )
        for name, one in self.models.items():
            if self.corpora[one["data"]]["test"]["asked"] != one["asked"]:
                raise BrewlineError(
                    f"models/{name} was measured on other queries than corpora/{one['data']} "
                    "lists, or these were heard otherwise; make both again: remove their files in "
                    "the study's results, and run `make study`"
                )

    def bootstrap(self, corpus: str) -> Bootstrap:
        """Of a corpus: those of two draw apart, whichever others there are."""
        interval, own = self.interval, zlib.crc32(corpus.encode())
        return Bootstrap(interval.samples, interval.seed + own, interval.confidence)

    def has_clips(self, corpus: str) -> bool:
        """Whether a corpus is of clips: sounds instead of speech."""
        return "num_captions" in self.corpora[corpus]["test"]

    def knows_times(self, model: str) -> bool:
        """Whether a model's clips can be asked for the right time."""
        return all("clip" in one["time"] for one in self.models[model]["models"].values())

    def image_of(self, corpus: str, direction: str) -> list[str]:
        """The picture, or the clip, that each query belongs to."""
        test = self.corpora[corpus]["test"]
        if self.has_clips(corpus):
            counts = test["num_captions"]
            repeats = counts if direction == TEXT_TO_AUDIO else 1
            return [f"{place:06d}" for place in np.repeat(range(len(counts)), repeats)]
        places = test["image"]
        if direction == IMAGE_TO_SPEECH:
            places = range(max(places) + 1)
        return [f"{place:06d}" for place in places]

    def picks(self, model: str, kind: str, what: str = "right") -> list[ByImage]:
        """Of each seed, how often sounds pick the right time, or `chance` does, by clip."""
        found = [one["time"][kind] for one in self.models[model]["models"].values()]
        asked = np.array(found[0]["asked"], np.float64)
        # Their order is that of their ids.
        ids = tuple(f"{place:06d}" for place in range(len(asked)))
        return [ByImage(ids, np.array(one[what], np.float64), asked) for one in found]

    def wer(self, corpus: str) -> Floats:
        """The word error rate of each utterance of test."""
        test = self.corpora[corpus]["test"]
        words = np.maximum(1, np.array(test["num_words"], np.float64))
        rates: Floats = np.array(test["word_errors"], np.float64) / words
        return rates

    def ranks(self, model: str, direction: str) -> list[Floats]:
        """Of each seed, in the order of `image_of`."""
        found = self.models[model]["models"].values()
        return [np.array(one[direction], np.float64) for one in found]

    def chance(self, corpus: str, direction: str, k: int) -> float:
        """What a guess of k hits: the right answer, or any of several.

        A picture has several utterances, a clip several captions.
        """
        test = self.corpora[corpus]["test"]
        counts = np.array(test.get("num_captions") or np.bincount(test["image"]))
        if direction not in (IMAGE_TO_SPEECH, AUDIO_TO_TEXT):
            return min(1.0, k / len(counts))
        total = int(counts.sum())
        k = min(k, total)
        misses = [math.comb(total - int(own), k) / math.comb(total, k) for own in counts]
        return 1 - float(np.mean(misses))


def load_claims(study: Study) -> Claims:
    """Reads `claims.yaml`.

    Raises:
        BrewlineError: it is not valid.
    """
    path = study.folder / "claims.yaml"
    return parse(Claims, read_yaml(path), str(path))


def load_remarks(study: Study, claims: Claims) -> dict[str, str]:
    """Reads `remarks.yaml`: what people make of outcomes, by the names of claims; none without it.

    Raises:
        BrewlineError: it is not valid, or says something of a claim that there is not.
    """
    path = study.folder / "remarks.yaml"
    if not path.exists():
        return {}
    remarks = parse(_Remarks, read_yaml(path), str(path)).remarks
    unknown = sorted(remarks.keys() - claims.claims.keys())
    if unknown:
        raise BrewlineError(f"{path}: claims.yaml has no claim {', '.join(unknown)}", "settings")
    return remarks


def judge(claims: Claims, outcomes: Outcomes) -> list[Verdict]:
    """Judges every claim."""
    verdicts = []
    for name, claim in claims.claims.items():
        missing = sorted({one for check in claim.checks for one in _missing(check, outcomes)})
        findings = [] if missing else [f for c in claim.checks for f in find(c, outcomes)]
        verdicts.append(Verdict(name, claim, findings, missing))
    return verdicts


def _missing(check: Check, outcomes: Outcomes) -> Iterator[str]:
    if check.probe is None:
        yield from set(check.models) - {*outcomes.models, CHANCE}
    elif check.probe not in outcomes.probes:
        yield f"probe {check.probe}"
    else:
        right = outcomes.probes[check.probe]["right"]
        yield from (name for name in check.models if check.problem not in right.get(name, {}))


def find(check: Check, outcomes: Outcomes) -> Iterator[Finding]:
    """What comes out of a check, in each of its directions."""
    if check.probe is not None:
        yield Finding(check, "accuracy", *_accuracy(check, outcomes.probes[check.probe], outcomes))
        return
    for direction in [TIME] if check.right_time else check.directions:
        found = _slope if check.slope_over else _sum
        yield Finding(check, direction, *found(check, direction, outcomes))


def _sum(check: Check, direction: str, outcomes: Outcomes) -> tuple[float, float, float]:
    """The weighted sum of recalls, or of shares of the right time, and its interval."""
    total, drawn_S = 0.0, np.zeros(outcomes.interval.samples)
    names = [name for name in check.models if name != CHANCE]
    for stream, name in enumerate(names):
        corpus = outcomes.models[name]["data"]
        bootstrap = outcomes.bootstrap(corpus)
        if check.right_time:
            sums = outcomes.picks(name, check.right_time)
        else:
            sums = _hits(check, name, direction, outcomes)
        if not sums:
            return math.nan, math.nan, math.nan
        weight = check.models[name]
        total += weight * float(np.mean([one.value for one in sums]))
        drawn_S += weight * bootstrap.over_seeds([bootstrap.drawn(one) for one in sums], stream)
    if CHANCE in check.models:
        weight, corpus = check.models[CHANCE], outcomes.models[names[0]]["data"]
        if check.right_time:
            # It is the same of all models, and differs between clips.
            guess = outcomes.picks(names[0], check.right_time, CHANCE)[0]
            total += weight * guess.value
            drawn_S += weight * outcomes.bootstrap(corpus).drawn(guess)
        else:
            share = weight * outcomes.chance(corpus, direction, check.hit_at or 1)
            total, drawn_S = total + share, drawn_S + share
    return total, *bootstrap.interval(drawn_S)


def _hits(check: Check, model: str, direction: str, outcomes: Outcomes) -> list[ByImage]:
    """Of each seed, which queries of a check are hit; nothing where there are no such queries."""
    corpus, k = outcomes.models[model]["data"], check.hit_at
    assert k is not None, check.of
    image_of = np.array(outcomes.image_of(corpus, direction))
    chosen_Q = np.ones(len(image_of), bool)
    if check.word_error_rate is not None:
        rates = outcomes.wer(corpus)
        chosen_Q = (rates >= check.word_error_rate.start) & (rates <= check.word_error_rate.end)
    if not chosen_Q.any():
        return []
    return [
        sum_by_image((ranks[chosen_Q] <= k).astype(np.float64), image_of[chosen_Q].tolist())
        for ranks in outcomes.ranks(model, direction)
    ]


def _slope(check: Check, direction: str, outcomes: Outcomes) -> tuple[float, float, float]:
    """How much flatter the log-odds of a hit fall over the word error rate."""
    (ours, _), (theirs, _) = sorted(check.models.items(), key=lambda item: -item[1])
    found = word_error_curves([ours, theirs], check.hit_at or 1, outcomes)["differences"][0]
    # What cannot be said is neither shown nor contradicted.
    value, low, high = (
        math.nan if found[key] is None else found[key] for key in ("difference", "low", "high")
    )
    return value, low, high


def word_error_curves(models: Sequence[str], k: int, outcomes: Outcomes) -> dict[str, Any]:
    """Hits over word errors of models of one corpus; the first two are compared."""
    corpus = outcomes.models[models[0]]["data"]
    images = outcomes.image_of(corpus, SPEECH_TO_IMAGE)
    names = [f"{place:06d}" for place in range(len(images))]
    image_of = dict(zip(names, images, strict=True))
    rates = dict(zip(names, outcomes.wer(corpus).tolist(), strict=True))
    ranks = {
        model: [
            dict(zip(names, ranks.astype(int).tolist(), strict=True))
            for ranks in outcomes.ranks(model, SPEECH_TO_IMAGE)
        ]
        for model in models
    }
    queries = select_queries(rates, image_of)
    pair = (models[0], models[1])
    return recall_over_wer(ranks, queries, [pair], k, 10, outcomes.bootstrap(corpus))


def _accuracy(
    check: Check, probe: Mapping[str, Any], outcomes: Outcomes
) -> tuple[float, float, float]:
    """The weighted sum of accuracies, and its interval over speakers and runs."""
    problem, bootstrap = check.problem, outcomes.bootstrap(probe["data"])
    recordings = np.array([*probe["recordings"][problem].values()], np.float64)
    weights_SG = bootstrap.weights(len(recordings))
    total, drawn_S = 0.0, np.zeros(len(weights_SG))
    for stream, (name, weight) in enumerate(check.models.items()):
        right = [np.array(one, np.float64) for one in probe["right"][name][problem].values()]
        drawn = [(weights_SG @ one) / (weights_SG @ recordings) for one in right]
        total += weight * float(np.mean([one.sum() / recordings.sum() for one in right]))
        drawn_S += weight * bootstrap.over_seeds(drawn, stream)
    return total, *bootstrap.interval(drawn_S)
