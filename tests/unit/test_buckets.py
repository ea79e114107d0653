"""Recall by what recordings are like: buckets made by hand."""

import numpy as np
import pytest

from brewline.config.evaluate import EvaluateParams
from brewline.evaluation.bootstrap import Bootstrap
from brewline.evaluation.buckets import Bucket, make_buckets, score_buckets
from brewline.evaluation.model_scores import ModelScores
from brewline.evaluation.query_facts import QueryFacts
from brewline.speech.error_rates import Errors

BOOTSTRAP = Bootstrap(200, 0, 0.9)
PARAMS = EvaluateParams(
    recall_at=[1],
    bucket_recall_at=2,
    min_bucket_images=3,
    bootstrap_samples=1,
    bootstrap_seed=0,
    confidence=0.9,
    num_examples=1,
)


def errors(name: str, num_words: int, word_errors: int) -> Errors:
    return Errors(name, num_words, word_errors, 1, 0)


def buckets_of(
    facts: dict[str, QueryFacts], texts: list[Errors], min_images: int = 1
) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    by_id = {one.utterance_id: one for one in texts}
    image_of = {name: name.replace("u", "image") for name in facts}
    for one in make_buckets(facts, by_id, image_of, min_images):
        assert one.name not in found.setdefault(one.kind, {})
        found[one.kind][one.name] = one.utterance_ids
    return found


def test_every_recording_is_in_one_bucket_of_each_kind() -> None:
    rng = np.random.default_rng(0)
    facts = {
        f"u{n}": QueryFacts(f"s{n % 30}", float(rng.integers(1, 6)), None if n % 7 == 0 else n / 3)
        for n in range(150)
    }
    texts = [errors(f"u{n}", int(rng.integers(3, 9)), int(rng.integers(0, 5))) for n in range(120)]
    found = buckets_of(facts, texts)
    assert set(found) == {"duration_s", "level_range_db", "caption_words", "wer", "speaker"}
    for groups in found.values():
        assert sorted(name for group in groups.values() for name in group) == sorted(facts)
        assert all(groups.values())


def test_lengths_are_cut_into_quarters_with_their_own_ends() -> None:
    facts = {f"u{n}": QueryFacts("a", n / 2, 10.0 * n) for n in range(1, 9)}
    found = buckets_of(facts, [errors("u1", 4, 0), errors("u2", 9, 0)])
    assert found["duration_s"] == {
        "0.5 to 1.0": ["u1", "u2"],
        "1.5 to 2.0": ["u3", "u4"],
        "2.5 to 3.0": ["u5", "u6"],
        "3.5 to 4.0": ["u7", "u8"],
    }
    assert [*found["level_range_db"]][-1] == "70.0 to 80.0"
    assert found["caption_words"]["4"] == ["u1"]
    assert found["caption_words"]["9"] == ["u2"]
    assert len(found["caption_words"]["not known"]) == 6


def test_equal_values_are_never_torn_apart() -> None:
    facts = {f"u{n}": QueryFacts("a", 2.0 if n < 7 else 3.0, None) for n in range(9)}
    found = buckets_of(facts, [])
    assert {name: len(group) for name, group in found["duration_s"].items()} == {"2.0": 7, "3.0": 2}
    assert [*found["level_range_db"]] == ["not known"]
    assert [*found["wer"]] == ["no caption"]


def test_no_two_buckets_look_alike() -> None:
    """A bucket is known by its name, which is rounded."""
    facts = {f"u{n}": QueryFacts("a", 2 + n / 1000, None) for n in range(40)}
    found = buckets_of(facts, [])["duration_s"]
    assert {name: len(group) for name, group in found.items()} == {"2.0": 40}


def test_error_rates_have_fixed_places() -> None:
    rates = {"a": (10, 0), "b": (10, 1), "c": (100, 11), "d": (4, 1), "e": (10, 5), "f": (2, 6)}
    facts = {name: QueryFacts("s", 1.0, None) for name in (*rates, "g")}
    found = buckets_of(facts, [errors(name, *rate) for name, rate in rates.items()])
    assert found["wer"] == {
        "no error": ["a"],
        "up to 10 %": ["b"],
        "10 to 25 %": ["c", "d"],
        "25 to 50 %": ["e"],
        "over 50 %": ["f"],
        "no caption": ["g"],
    }


def test_speakers_with_few_recordings_are_taken_together() -> None:
    speakers = ["bea"] * 3 + ["ada"] * 4 + ["cid"] * 2 + ["dan"]
    facts = {f"u{n}": QueryFacts(one, 1.0, None) for n, one in enumerate(speakers)}
    found = buckets_of(facts, [], min_images=3)["speaker"]
    assert {name: len(group) for name, group in found.items()} == {
        "ada": 4,
        "bea": 3,
        "2 others": 3,
    }
    # Ten recordings of one picture say as much as one.
    takes = {f"u{n}": QueryFacts("ada" if n else "bea", 1.0, None) for n in range(9)}
    few = make_buckets(takes, {}, dict.fromkeys(takes, "image"), 2)
    assert [one.name for one in few if one.kind == "speaker"] == ["2 others"]
    many = {f"u{n}": QueryFacts(f"s{n // 2:02}", 1.0, None) for n in range(50)}
    found = buckets_of(many, [], min_images=1)["speaker"]
    assert [*found] == [*(f"s{n:02}" for n in range(20)), "5 others"]


def model(ranks: list[int]) -> ModelScores:
    return ModelScores({}, {}, {f"u{n}": rank for n, rank in enumerate(ranks)}, {}, None)


def test_recall_of_a_bucket_by_hand() -> None:
    names = [f"u{n}" for n in range(4)]
    image_of = {"u0": "x", "u1": "x", "u2": "y", "u3": "z"}
    scores = {"base": [model([3, 3, 3, 3])], "ours": [model([1, 2, 3, 1]), model([2, 2, 2, 9])]}
    buckets = [Bucket("wer", "few", names[:2]), Bucket("wer", "all", names)]
    rows = list(score_buckets(scores, buckets, image_of, PARAMS, BOOTSTRAP))
    assert [(row["bucket"], row["row"]) for row in rows] == [
        ("few", "base"),
        ("few", "ours"),
        ("all", "base"),
        ("all", "ours"),
    ]
    few, _, base, ours = rows
    assert (few["num_queries"], few["num_images"], few["recall"], few["low"]) == (2, 1, None, None)
    assert (ours["num_queries"], ours["num_images"], ours["k"]) == (4, 3, 2)
    assert (base["recall"], base["low"], base["high"]) == (0, 0, 0)
    # Three hits of four with each seed.
    assert ours["recall"] == pytest.approx(3 / 4)
    assert ours["low"] < 3 / 4 < ours["high"]
