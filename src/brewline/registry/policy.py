"""The policy of promotion: which model is put forward, and when it becomes champion.

Values in, a decision with its reasons out; nothing here knows MLflow. Choices read dev only.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from brewline.config import choose
from brewline.config.types import Fraction, PositiveFloat
from brewline.core.errors import BrewlineError

POLICY_FILE = Path("mlflow/promotion.yaml")
WER = "dev/asr/wer"

# What is on the test split is shown, and never decides.
DevMetric = Annotated[str, Field(pattern=r"^dev/")]


class Policy(BaseModel):
    """What `mlflow/promotion.yaml` says; see the comments there."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    metric: DevMetric
    margin: Fraction
    must_not_drop: dict[DevMetric, Fraction]
    max_wer: PositiveFloat | None
    max_quarantine_rate: Fraction | None
    max_latency_ms: PositiveFloat | None


@dataclass(frozen=True)
class Evidence:
    """What is known of a model when promotion is decided.

    `name` is how reasons call it; `metrics` are those of dev, with `dev/asr/wer` where the corpus
    has captions; `dev_digest` names the dev manifest that they were measured on.
    """

    name: str
    dev_digest: str
    metrics: Mapping[str, float]
    quarantine_rate: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class Decision:
    """`reasons` are sentences: what speaks against promotion, or, with none of these, for it."""

    promote: bool
    reasons: list[str] = field(default_factory=list)


def load_policy(path: Path = POLICY_FILE) -> Policy:
    """Reads and checks the policy.

    Raises:
        BrewlineError: naming every bad key with its value, or an unknown one with the choices.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BrewlineError(f"{path} is missing; it says when to promote", "settings") from None
    except yaml.YAMLError as error:
        raise BrewlineError(f"{path} is not valid YAML: {error}", "settings") from None
    for key in values if isinstance(values, dict) else ():
        choose(f"key in {path}", str(key), list(Policy.model_fields))
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc']))}: "
            + ("is missing" if problem["type"] == "missing" else f"{problem['msg']}")
            for problem in error.errors()
        ]
        raise BrewlineError("\n  ".join([f"{path} is not valid:", *problems]), "settings") from None


def decide(challenger: Evidence, champion: Evidence, policy: Policy) -> Decision:
    """Decides whether the challenger takes the champion's place.

    Args:
        challenger: The model that is put forward.
        champion: The one in place; where there is none, the baseline of the table.
        policy: What is asked of the challenger.
    """
    if challenger.dev_digest != champion.dev_digest:
        return Decision(
            False,
            [
                f"{challenger.name} was measured on the dev manifest {challenger.dev_digest[:12]}, "
                f"{champion.name} on {champion.dev_digest[:12]}: they cannot be compared."
            ],
        )
    checks = [*_against(challenger, champion, policy), *_within_limits(challenger, policy)]
    objections = [reason for passed, reason in checks if not passed]
    return Decision(not objections, objections or [reason for _, reason in checks])


def _against(
    challenger: Evidence, champion: Evidence, policy: Policy
) -> Iterator[tuple[bool, str]]:
    """Yields whether each comparison is passed, and a sentence about it."""
    asked = {policy.metric: policy.margin}
    asked |= {name: -tolerance for name, tolerance in policy.must_not_drop.items()}
    for metric, least in asked.items():
        ours, theirs = challenger.metrics.get(metric), champion.metrics.get(metric)
        if ours is None or theirs is None:
            lacking = challenger if ours is None else champion
            yield False, f"{metric} of {lacking.name} was not measured."
            continue
        # A difference of fractions such as 0.3 - 0.2 misses 0.1 by a rounding error.
        difference = round(ours - theirs, 9)
        passed = difference >= least and (metric != policy.metric or difference > 0)
        yield (
            passed,
            f"{metric} is {ours:.4f}, {champion.name} has {theirs:.4f}: a difference of "
            f"{difference:+.4f}, where {'more than 0' if least == 0 else f'at least {least:+.4f}'} "
            "is asked for."
            if metric == policy.metric
            else f"{metric} is {ours:.4f}, {champion.name} has {theirs:.4f}: a difference of "
            f"{difference:+.4f}, where {least:+.4f} is the most that it may drop.",
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
