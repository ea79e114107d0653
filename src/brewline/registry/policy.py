"""The policy of promotion: which model is put forward, and when it becomes champion.

Values in, a decision with its reasons out; nothing here knows MLflow. Choices read dev only.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated

from pydantic import Field

from brewline.config.evaluate import EvaluateParams
from brewline.config.loading import parse, read_yaml
from brewline.config.types import Fraction, PositiveFloat, Section
from brewline.evaluation.bootstrap import Bootstrap, bootstrap_mean_difference
from brewline.evaluation.query_metrics import QUERY_METRIC, parts_of
from brewline.evaluation.query_ranks import QueryRanks

POLICY_FILE = Path("mlflow/promotion.yaml")
WER = "dev/asr/wer"

# What is on the test split is shown, and never decides.
QueryMetric = Annotated[str, Field(pattern=QUERY_METRIC)]


class Policy(Section):
    """What `mlflow/promotion.yaml` says; see the comments there."""

    metric: QueryMetric
    confidence: Annotated[float, Field(gt=0, lt=1)]
    margin: Fraction
    must_not_drop: dict[QueryMetric, Fraction]
    max_wer: PositiveFloat | None
    max_quarantine_rate: Fraction | None
    max_latency_ms: PositiveFloat | None


@dataclass(frozen=True)
class Evidence:
    """What is known of a model when promotion is decided.

    `name` is how reasons call it; `metrics` are those of dev, with `dev/asr/wer` where the corpus
    has captions; `dev_digest` names the dev manifest that they were measured on, and `ranks` say
    how each of its queries was answered, None where nobody kept them. `chosen_among` is how many
    models it was the best of on dev.
    """

    name: str
    dev_digest: str
    metrics: Mapping[str, float]
    ranks: QueryRanks | None = None
    chosen_among: int = 1
    quarantine_rate: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class Decision:
    """`reasons` are sentences: what speaks against promotion, or, with none of these, for it.

    The last one may be a caution that decides nothing.
    """

    promote: bool
    reasons: list[str] = field(default_factory=list)


def load_policy(path: Path = POLICY_FILE) -> Policy:
    """Reads and checks the policy.

    Raises:
        BrewlineError: naming every bad key with its value and the choices.
    """
    return parse(Policy, read_yaml(path), str(path))


def decide(
    challenger: Evidence, champion: Evidence, policy: Policy, evaluate: EvaluateParams
) -> Decision:
    """Decides whether the challenger takes the champion's place.

    Args:
        challenger: The model that is put forward.
        champion: The one in place; where there is none, the baseline of the table.
        policy: What is asked of the challenger.
        evaluate: How many samples the bootstrap draws, and its seed.
    """
    incomparable = _incomparable(challenger, champion)
    if incomparable:
        return Decision(False, [incomparable])
    bootstrap = Bootstrap(evaluate.bootstrap_samples, evaluate.bootstrap_seed, policy.confidence)
    checks = [
        _is_better(challenger, champion, policy, bootstrap),
        *_has_not_dropped(challenger, champion, policy, bootstrap),
        *_within_limits(challenger, policy),
    ]
    objections = [reason for passed, reason in checks if not passed]
    reasons = objections or [reason for _, reason in checks]
    return Decision(not objections, [*reasons, *_caution(challenger, policy)])


def _incomparable(challenger: Evidence, champion: Evidence) -> str | None:
    """Why the two cannot be compared query by query, or None."""
    if challenger.dev_digest != champion.dev_digest:
        return (
            f"{challenger.name} was measured on the dev manifest {challenger.dev_digest[:12]}, "
            f"{champion.name} on {champion.dev_digest[:12]}: they cannot be compared."
        )
    if challenger.ranks is None or champion.ranks is None:
        lacking = challenger if challenger.ranks is None else champion
        return (
            f"Of {lacking.name} nobody kept how it answered each query of dev, without which no "
            "interval of the difference can be given."
        )
    if not challenger.ranks.asks_the_same_as(champion.ranks):
        return (
            f"{challenger.name} and {champion.name} were asked other queries of the same dev "
            "manifest, since recordings were left out of one: they cannot be compared."
        )
    return None


@dataclass(frozen=True)
class _Comparison:
    """Two models in one metric of dev; `difference` is with its interval, (difference, low, high).

    Rounded: a difference of fractions such as 0.3 - 0.2 misses 0.1 by a rounding error.
    """

    ours: float
    theirs: float
    difference: tuple[float, float, float]
    num_images: int


def _compare(
    challenger: Evidence, champion: Evidence, metric: str, bootstrap: Bootstrap
) -> _Comparison:
    assert challenger.ranks is not None and champion.ranks is not None
    ours, theirs = (parts_of(metric, one) for one in (challenger.ranks, champion.ranks))
    found = bootstrap_mean_difference(list(zip(ours, theirs, strict=True)), bootstrap)
    difference, low, high = (round(value, 9) for value in found)
    our_mean, their_mean = (fmean(part.value for part in parts) for parts in (ours, theirs))
    return _Comparison(our_mean, their_mean, (difference, low, high), len(ours[0].image_ids))


def _say(metric: str, champion: str, found: _Comparison, confidence: float) -> str:
    difference, low, high = found.difference
    return (
        f"{metric} is {found.ours:.4f}, {champion} has {found.theirs:.4f}: a difference of "
        f"{difference:+.4f} ({100 * confidence:g} % interval {low:+.4f} to {high:+.4f} over "
        f"{found.num_images} pictures)"
    )


def _is_better(
    challenger: Evidence, champion: Evidence, policy: Policy, bootstrap: Bootstrap
) -> tuple[bool, str]:
    """Whether all of the interval of the difference lies above the margin, and a sentence."""
    found = _compare(challenger, champion, policy.metric, bootstrap)
    difference, low, high = found.difference
    than = f"better by more than {policy.margin:g}" if policy.margin else "better"
    if low > policy.margin:
        meaning = f"it is {than}, and not by chance alone"
    elif high < 0:
        meaning = "it is worse, and not by chance alone"
    elif difference <= policy.margin:
        meaning = f"it is not {than}"
    else:
        meaning = f"that it is {than} may be chance"
    said = _say(policy.metric, champion.name, found, policy.confidence)
    return low > policy.margin, f"{said}; {meaning}."


def _has_not_dropped(
    challenger: Evidence, champion: Evidence, policy: Policy, bootstrap: Bootstrap
) -> Iterator[tuple[bool, str]]:
    """Yields whether each metric has kept within its tolerance, and a sentence about it.

    The difference itself is asked: an interval of a few hundred queries is wider than a tolerance.
    """
    for metric, tolerance in policy.must_not_drop.items():
        found = _compare(challenger, champion, metric, bootstrap)
        said = _say(metric, champion.name, found, policy.confidence)
        yield (
            found.difference[0] >= -tolerance,
            f"{said}, where {-tolerance:+.4f} is the most that it may drop.",
        )


def _caution(challenger: Evidence, policy: Policy) -> Iterator[str]:
    """What the interval does not know: that the model was picked for this very number."""
    if challenger.chosen_among > 1:
        yield (
            f"It was picked as the best on dev of up to {challenger.chosen_among} "
            f"models: part of its {policy.metric} may be luck, which the interval does not count."
        )


def _within_limits(challenger: Evidence, policy: Policy) -> Iterator[tuple[bool, str]]:
    """Yields whether each limit that is on is kept, and a sentence about it."""
    wer, rate, latency = (
        challenger.metrics.get(WER),
        challenger.quarantine_rate,
        challenger.latency_ms,
    )
    limits = [
        ("max_wer", "The word error rate on dev", wer, policy.max_wer, ".3f"),
        ("max_quarantine_rate", "The share in quarantine", rate, policy.max_quarantine_rate, ".4f"),
        ("max_latency_ms", "The time of an answer in ms", latency, policy.max_latency_ms, ".0f"),
    ]
    for key, what, value, limit, shown in limits:
        if limit is None:
            continue
        if value is None:
            yield False, f"{what} was not measured, and {key} limits it to {limit:g}."
        else:
            yield value <= limit, f"{what} is {value:{shown}}, where {limit:g} is the most allowed."
