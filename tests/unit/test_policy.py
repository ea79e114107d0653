"""The policy of promotion, on values made by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
import report_world

from brewline.core.errors import BrewlineError
from brewline.registry.policy import WER, Evidence, Policy, decide, load_policy

R1, R5 = "dev/mean_recall_at_1", "dev/speech_to_image/recall_at_5"
POLICY = Policy(
    metric=R1,
    margin=0.02,
    must_not_drop={R5: 0.01},
    max_wer=0.3,
    max_quarantine_rate=0.05,
    max_latency_ms=1000,
)
CHAMPION = Evidence("version 3 (full)", "d" * 64, {R1: 0.40, R5: 0.70})
CHALLENGER = Evidence("version 4 (full)", "d" * 64, {R1: 0.42, R5: 0.70, WER: 0.1}, 0.01, 250.0)


def with_metrics(**values: float) -> Evidence:
    names = {"r1": R1, "r5": R5, "wer": WER}
    return replace(
        CHALLENGER, metrics={**CHALLENGER.metrics, **{names[k]: v for k, v in values.items()}}
    )


def test_a_challenger_that_keeps_to_everything_is_promoted() -> None:
    decision = decide(CHALLENGER, CHAMPION, POLICY)
    assert decision.promote
    assert len(decision.reasons) == 5
    assert decision.reasons[0] == (
        "dev/mean_recall_at_1 is 0.4200, version 3 (full) has 0.4000: a difference of +0.0200, "
        "where at least +0.0200 is asked for."
    )


@pytest.mark.parametrize(
    ("challenger", "reason"),
    [
        (with_metrics(r1=0.4199), "difference of +0.0199, where at least +0.0200 is asked for"),
        (with_metrics(r1=0.1), "difference of -0.3000"),
        (
            with_metrics(r5=0.68),
            "difference of -0.0200, where -0.0100 is the most that it may drop",
        ),
        (
            with_metrics(wer=0.31),
            "The word error rate on dev is 0.310, where 0.3 is the most allowed",
        ),
        (
            replace(CHALLENGER, quarantine_rate=0.06),
            "The share in quarantine is 0.0600, where 0.05 is",
        ),
        (replace(CHALLENGER, latency_ms=1500), "The time of an answer in ms is 1500, where 1000"),
        (replace(CHALLENGER, latency_ms=None), "was not measured, and max_latency_ms limits it"),
        (
            replace(CHALLENGER, metrics={R1: 0.9, WER: 0.1}),
            f"{R5} of version 4 (full) was not meas",
        ),
    ],
)
def test_each_objection_is_a_sentence_with_numbers(challenger: Evidence, reason: str) -> None:
    decision = decide(challenger, CHAMPION, POLICY)
    assert not decision.promote
    (found,) = decision.reasons
    assert reason in found
    assert found.endswith(".")


def test_a_drop_within_its_tolerance_is_allowed() -> None:
    assert decide(with_metrics(r5=0.69), CHAMPION, POLICY).promote


def test_equal_is_not_better_whatever_the_margin() -> None:
    policy = POLICY.model_copy(update={"margin": 0.0})
    assert not decide(with_metrics(r1=0.40), CHAMPION, policy).promote
    assert decide(with_metrics(r1=0.4001), CHAMPION, policy).promote


def test_other_dev_manifests_are_not_compared() -> None:
    decision = decide(replace(CHALLENGER, dev_digest="e" * 64), CHAMPION, POLICY)
    assert not decision.promote
    assert "eeeeeeeeeeee" in decision.reasons[0] and "cannot be compared" in decision.reasons[0]


def test_null_switches_a_limit_off() -> None:
    policy = POLICY.model_copy(update={"max_wer": None, "max_latency_ms": None})
    unmeasured = replace(CHALLENGER, latency_ms=None, metrics={R1: 0.5, R5: 0.7})
    assert decide(unmeasured, CHAMPION, policy).promote


def test_the_shipped_policy_reads() -> None:
    policy = load_policy(report_world.PROJECT / "mlflow/promotion.yaml")
    assert policy.metric == R1
    assert set(policy.must_not_drop) == {R5, "dev/image_to_speech/any_hit_recall_at_5"}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("margin:", "magin:", "unknown key in .* 'magin'; did you mean 'margin'.*max_latency_ms"),
        ("margin: 0.005\n", "", "margin: is missing"),
        ("margin: 0.005", "margin: much", "margin: .*number"),
        ("metric: dev/", "metric: test/", "metric: .*dev/"),
        ("  dev/speech", "  test/speech", "must_not_drop.test/speech.*dev/"),
    ],
)
def test_a_bad_policy_is_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    text = (report_world.PROJECT / "mlflow/promotion.yaml").read_text()
    assert before in text
    path = tmp_path / "promotion.yaml"
    path.write_text(text.replace(before, after))
    with pytest.raises(BrewlineError, match=rf"(?s){message}"):
        load_policy(path)


def test_a_missing_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrewlineError, match=r"promotion.yaml is missing"):
        load_policy(tmp_path / "promotion.yaml")
