"""The policy of promotion, on values made by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import report_world

from brewline.config.evaluate import EvaluateParams
from brewline.core.errors import BrewlineError
from brewline.evaluation.bootstrap import Bootstrap, bootstrap_mean_difference
from brewline.evaluation.query_metrics import parts_of
from brewline.evaluation.query_ranks import QueryRanks
from brewline.registry.policy import WER, Decision, Evidence, Policy, decide, load_policy

R1, R5 = "dev/mean_recall_at_1", "dev/speech_to_image/recall_at_5"
POLICY = Policy(
    metric=R1,
    confidence=0.95,
    margin=0.0,
    must_not_drop={R5: 0.01},
    max_wer=0.3,
    max_quarantine_rate=0.05,
    max_latency_ms=1000,
)
EVALUATE = EvaluateParams(
    recall_at=[1, 5],
    bucket_recall_at=1,
    min_bucket_images=1,
    bootstrap_samples=1000,
    bootstrap_seed=0,
    confidence=0.5,
    num_examples=1,
)


def ranks(found: Sequence[bool], near: Sequence[bool] | None = None) -> QueryRanks:
    """One utterance for each image: found at once, among the first five, or far away."""
    near = found if near is None else near
    values = {
        f"image-{number:03d}": [1 if hit else 4 if close else 60]
        for number, (hit, close) in enumerate(zip(found, near, strict=True))
    }
    return QueryRanks(values, values)


def first(count: int, of: int = 200) -> list[bool]:
    return [number < count for number in range(of)]


CHAMPION = Evidence("version 3 (full)", "d" * 64, {}, ranks(first(80)))
CHALLENGER = Evidence(
    "version 4 (full)",
    "d" * 64,
    {WER: 0.1},
    ranks(first(100)),
    quarantine_rate=0.01,
    latency_ms=250.0,
)


def judge(challenger: Evidence, champion: Evidence = CHAMPION, policy: Policy = POLICY) -> Decision:
    return decide(challenger, champion, policy, EVALUATE)


def with_ranks(found: Sequence[bool], near: Sequence[bool] | None = None) -> Evidence:
    return replace(CHALLENGER, ranks=ranks(found, near))


def test_a_challenger_that_keeps_to_everything_is_promoted() -> None:
    decision = judge(CHALLENGER)
    assert decision.promote
    assert len(decision.reasons) == 5
    assert decision.reasons[0].startswith(
        "dev/mean_recall_at_1 is 0.5000, version 3 (full) has 0.4000: a difference of +0.1000 "
        "(95 % interval +0.06"
    )
    assert decision.reasons[0].endswith(
        "over 200 pictures); it is better, and not by chance alone."
    )


def test_one_query_more_is_no_reason_whatever_the_margin() -> None:
    """One of 200 is 0.005; on other pictures it would as likely be one fewer."""
    decision = judge(with_ranks(first(81)))
    assert not decision.promote
    (found,) = decision.reasons
    assert "a difference of +0.0050 (95 % interval +0.0000 to +0.0150" in found
    assert found.endswith("that it is better may be chance.")


def test_a_difference_is_judged_by_how_queries_moved_and_not_by_its_size() -> None:
    """Six queries of 200 that only got better are surer than twenty of which nine got worse."""
    few = judge(with_ranks(first(86)))
    assert few.promote
    moved = first(80)
    moved[:9] = [False] * 9
    moved[80:100] = [True] * 20
    many = judge(with_ranks(moved, near=first(100)))
    assert "difference of +0.0550" in judge(with_ranks(moved, near=first(100))).reasons[0]
    assert "difference of +0.0300" in few.reasons[0]
    sure = POLICY.model_copy(update={"confidence": 0.99})
    assert not judge(with_ranks(moved, near=first(100)), policy=sure).promote
    assert many.reasons[0].count("interval") == 1


def test_the_policy_says_how_sure() -> None:
    three = with_ranks(first(83))
    assert not judge(three).promote
    less = judge(three, policy=POLICY.model_copy(update={"confidence": 0.8}))
    assert less.promote and "(80 % interval" in less.reasons[0]


def test_the_interval_has_to_lie_above_the_margin() -> None:
    wanted = POLICY.model_copy(update={"margin": 0.08})
    decision = judge(CHALLENGER, policy=wanted)
    assert not decision.promote
    assert decision.reasons[0].endswith("that it is better by more than 0.08 may be chance.")
    small = judge(with_ranks(first(90)), policy=wanted)
    assert small.reasons[0].endswith("it is not better by more than 0.08.")


def test_the_mean_of_both_directions_draws_the_same_pictures_for_both() -> None:
    """Against a slow way: each sample's means written out."""
    rng = np.random.default_rng(5)
    ours, theirs = (
        QueryRanks(
            {f"i{n}": rng.integers(1, 4, 1 + n % 3).tolist() for n in range(30)},
            {f"i{n}": sorted(rng.integers(1, 4, 1 + n % 3).tolist()) for n in range(30)},
        )
        for _ in range(2)
    )
    bootstrap = Bootstrap(200, 3, 0.9)
    pairs = list(zip(parts_of(R1, ours), parts_of(R1, theirs), strict=True))
    found = bootstrap_mean_difference(pairs, bootstrap)

    def mean(one: QueryRanks, drawn: Sequence[str]) -> float:
        heard = [rank == 1 for image in drawn for rank in one.of_image[image]]
        shown = [one.of_utterances[image][0] == 1 for image in drawn]
        return float((np.mean(heard) + np.mean(shown)) / 2)

    images = sorted(ours.of_image)
    samples = [
        [image for image, times in zip(images, row, strict=True) for _ in range(int(times))]
        for row in bootstrap.weights(30)
    ]
    values = [mean(ours, drawn) - mean(theirs, drawn) for drawn in samples]
    expected = mean(ours, images) - mean(theirs, images), *np.quantile(values, [0.05, 0.95])
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("challenger", "reason"),
    [
        (with_ranks(first(80)), "difference of +0.0000 (95 % interval +0.0000 to +0.0000"),
        (with_ranks(first(20), first(80)), "it is worse, and not by chance alone."),
        (
            replace(CHALLENGER, metrics={WER: 0.31}),
            "The word error rate on dev is 0.310, where 0.3 is the most allowed",
        ),
        (
            replace(CHALLENGER, quarantine_rate=0.06),
            "The share in quarantine is 0.0600, where 0.05 is",
        ),
        (replace(CHALLENGER, latency_ms=1500), "The time of an answer in ms is 1500, where 1000"),
        (replace(CHALLENGER, latency_ms=None), "was not measured, and max_latency_ms limits it"),
        (
            replace(CHALLENGER, ranks=None),
            "Of version 4 (full) nobody kept how it answered each query of dev",
        ),
        (
            replace(CHALLENGER, ranks=ranks(first(100, of=199))),
            "were asked other queries of the same dev manifest",
        ),
    ],
)
def test_each_objection_is_a_sentence_with_numbers(challenger: Evidence, reason: str) -> None:
    decision = judge(challenger)
    assert not decision.promote
    (found,) = decision.reasons
    assert reason in found
    assert found.endswith(".")


def test_a_drop_within_its_tolerance_is_allowed() -> None:
    worse = Evidence("version 3 (full)", "d" * 64, {}, ranks(first(80), first(102)))
    decision = judge(CHALLENGER, worse)
    assert decision.promote
    assert "where -0.0100 is the most that it may drop" in decision.reasons[1]
    worse = replace(worse, ranks=ranks(first(80), first(103)))
    assert not judge(CHALLENGER, worse).promote


def test_the_best_of_many_is_said_to_be_lucky_and_decided_alike() -> None:
    many = judge(replace(CHALLENGER, chosen_among=6))
    assert many.promote
    assert many.reasons[:-1] == judge(CHALLENGER).reasons
    assert many.reasons[-1] == (
        "It was picked as the best on dev of up to 6 models: part of its "
        "dev/mean_recall_at_1 may be luck, which the interval does not count."
    )
    refused = judge(replace(CHALLENGER, chosen_among=6, ranks=ranks(first(81))))
    assert not refused.promote and "of up to 6 models" in refused.reasons[-1]


def test_other_dev_manifests_are_not_compared() -> None:
    decision = judge(replace(CHALLENGER, dev_digest="e" * 64))
    assert not decision.promote
    assert "eeeeeeeeeeee" in decision.reasons[0] and "cannot be compared" in decision.reasons[0]


def test_null_switches_a_limit_off() -> None:
    policy = POLICY.model_copy(update={"max_wer": None, "max_latency_ms": None})
    unmeasured = replace(CHALLENGER, latency_ms=None, metrics={})
    assert judge(unmeasured, policy=policy).promote


def test_the_shipped_policy_reads() -> None:
    policy = load_policy(report_world.PROJECT / "mlflow/promotion.yaml")
    assert (policy.metric, policy.confidence) == (R1, 0.95)
    assert set(policy.must_not_drop) == {R5, "dev/image_to_speech/any_hit_recall_at_5"}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("margin:", "magin:", "magin: unknown key.*did you mean 'margin'.*max_latency_ms"),
        ("margin: 0.0\n", "", "margin: is missing"),
        ("margin: 0.0", "margin: much", "margin: 'much': .*number"),
        ("margin: 0.0", "margin: .nan", "margin: nan: .*finite"),
        ("confidence: 0.95", "confidence: 1.0", "confidence: 1.0: .*less than 1"),
        ("metric: dev/", "metric: test/", "metric: .*dev/"),
        # No mean over queries, of which an interval could be given.
        ("metric: dev/mean_recall_at_1", "metric: dev/asr/wer", "metric: 'dev/asr/wer'"),
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


def test_a_missing_or_empty_policy_is_named(tmp_path: Path) -> None:
    path = tmp_path / "promotion.yaml"
    with pytest.raises(BrewlineError, match=r"promotion.yaml is not here"):
        load_policy(path)
    path.write_text("")
    with pytest.raises(BrewlineError, match=r"promotion.yaml is empty"):
        load_policy(path)
    path.write_bytes(b"metric: \xff\n")
    with pytest.raises(BrewlineError, match=r"promotion.yaml is no text in UTF-8"):
        load_policy(path)
