import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brewline.evaluation.bootstrap import (
    Bootstrap,
    average,
    bootstrap_difference,
    bootstrap_mean,
    sum_by_image,
)
from brewline.evaluation.ranks import rank_answers, rank_embeddings

# Five recordings of three images, with known recalls.
GOLDEN_UI = np.array(
    [[0.9, 0.1, 0.3], [0.2, 0.8, 0.7], [0.6, 0.5, 0.4], [0.1, 0.3, 0.2], [0.4, 0.9, 0.5]]
)
UTTERANCES = ["0", "0", "1", "1", "2"]
IMAGES = ["0", "1", "2"]


def test_golden_speech_to_image():
    ranks = rank_answers(GOLDEN_UI, UTTERANCES, IMAGES)
    assert ranks.best.tolist() == [1, 3, 2, 1, 2]
    assert [ranks.any_hit(k).mean() for k in (1, 2, 3)] == pytest.approx([0.4, 0.8, 1.0])


def test_golden_image_to_speech():
    ranks = rank_answers(GOLDEN_UI.T, IMAGES, UTTERANCES)
    hits = [ranks.any_hit(k).mean() for k in (1, 2, 3)]
    assert hits == pytest.approx([1 / 3, 2 / 3, 1.0])
    # Image 0 finds its first recording at 1 and its second at 4, image 1 at 3 and 4, image 2 at 2.
    assert ranks.rank.tolist() == [1, 4, 3, 4, 2]
    assert ranks.fraction_found(1).tolist() == [0.5, 0, 0]
    assert ranks.fraction_found(3).tolist() == [0.5, 0.5, 1]
    assert ranks.fraction_found(4).tolist() == [1, 1, 1]


def test_one_vector_for_everything_finds_nothing():
    ones = np.ones((5, 4), np.float32)
    forward = rank_embeddings(ones, ones[:3], UTTERANCES, IMAGES)
    backward = rank_embeddings(ones[:3], ones, IMAGES, UTTERANCES)
    assert forward.any_hit(1).sum() == forward.any_hit(2).sum() == 0
    assert backward.any_hit(3).sum() == 0
    # With two right answers among five equal scores the three others come first.
    assert backward.rank.tolist() == [4, 5, 4, 5, 5]


def slow_ranks(similarity: np.ndarray, query_ids: list[str], gallery_ids: list[str]) -> list[int]:
    """Sorts each gallery so that, among equals, wrong answers come first."""
    ranks = []
    for scores, query in zip(similarity, query_ids, strict=True):
        items = range(len(gallery_ids))
        order = sorted(items, key=lambda i: (-scores[i], gallery_ids[i] == query, i))
        ranks += [1 + order.index(i) for i in items if gallery_ids[i] == query]
    return ranks


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 4))
def test_ranks_equal_those_of_a_sort(seed, num_images, levels):
    rng = np.random.default_rng(seed)
    images = [f"i{n}" for n in rng.permutation(num_images)]
    utterances = images + [images[n] for n in rng.integers(0, num_images, 5)]
    similarity = rng.integers(0, levels, (len(utterances), num_images)).astype(np.float32)
    for scores, queries, gallery in (
        (similarity, utterances, images),
        (similarity.T, images, utterances),
    ):
        ranks = rank_answers(scores, queries, gallery)
        assert ranks.rank.tolist() == slow_ranks(scores, queries, gallery)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    utterances, images = rng.normal(size=(20, 4)), rng.normal(size=(5, 4))
    ids = [str(n % 5) for n in range(20)]
    whole = rank_embeddings(images, utterances, [*IMAGES, "3", "4"], ids)
    monkeypatch.setattr("brewline.evaluation.ranks._BLOCK_SCORES", 7)
    parts = rank_embeddings(images, utterances, [*IMAGES, "3", "4"], ids)
    assert np.array_equal(whole.rank, parts.rank)
    assert np.array_equal(whole.query, parts.query)


def test_ids_decide_not_positions():
    order = [2, 0, 1]
    ranks = rank_answers(GOLDEN_UI[:, order], UTTERANCES, [IMAGES[i] for i in order])
    assert ranks.best.tolist() == [1, 3, 2, 1, 2]


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(ValueError, match="finite"):
        rank_answers(GOLDEN_UI * np.nan, UTTERANCES, IMAGES)
    with pytest.raises(ValueError, match="no right answer"):
        rank_answers(GOLDEN_UI, ["0", "0", "1", "1", "7"], IMAGES)
    with pytest.raises(ValueError, match="shape"):
        rank_answers(GOLDEN_UI.T, UTTERANCES, IMAGES)


BOOTSTRAP = Bootstrap(samples=400, seed=1, confidence=0.9)


def hits(rate: float, num_images: int = 60) -> tuple[np.ndarray, list[str]]:
    values = (np.random.default_rng(5).random(num_images * 2) < rate).astype(float)
    return values, [f"i{n // 2}" for n in range(num_images * 2)]


def test_the_interval_holds_the_mean_and_is_repeatable():
    table = sum_by_image(*hits(0.4))
    low, high = bootstrap_mean(table, BOOTSTRAP)
    assert 0 < low < table.mean < high < 1
    assert bootstrap_mean(table, BOOTSTRAP) == (low, high)


def test_the_interval_is_about_as_wide_as_theory_says():
    values = np.repeat(np.arange(400) % 2, 1).astype(float)
    table = sum_by_image(values, [str(n) for n in range(400)])
    low, high = bootstrap_mean(table, Bootstrap(4000, 0, 0.95))
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.06)


def test_images_are_drawn_with_all_their_utterances():
    # Ten equal answers for each image carry no more news than one.
    values = (np.arange(50) % 2).astype(float)
    one = sum_by_image(values, [str(n) for n in range(50)])
    ten = sum_by_image(np.repeat(values, 10), [str(n) for n in range(50) for _ in range(10)])
    assert bootstrap_mean(one, BOOTSTRAP) == bootstrap_mean(ten, BOOTSTRAP)


def test_a_paired_difference_is_narrower_than_two_intervals():
    values, images = hits(0.5)
    better = values.copy()
    better[np.flatnonzero(values == 0)[:8]] = 1
    ours, theirs = sum_by_image(better, images), sum_by_image(values, images)
    difference, low, high = bootstrap_difference(ours, theirs, BOOTSTRAP)
    assert difference == pytest.approx(8 / len(values))
    assert 0 < low < difference < high
    single_low, single_high = bootstrap_mean(theirs, BOOTSTRAP)
    assert high - low < single_high - single_low


def test_order_does_not_matter_because_ids_join():
    values, images = hits(0.5)
    table = sum_by_image(values, images)
    turned = sum_by_image(values[::-1], images[::-1])
    assert bootstrap_difference(table, turned, BOOTSTRAP) == (0.0, 0.0, 0.0)


def test_different_images_cannot_be_compared():
    values, images = hits(0.5)
    with pytest.raises(ValueError, match="different images"):
        bootstrap_difference(
            sum_by_image(values, images), sum_by_image(values[2:], images[2:]), BOOTSTRAP
        )


def test_seeds_are_averaged_by_image():
    values, images = hits(0.5)
    mean = average([sum_by_image(values, images), sum_by_image(1 - values, images)])
    assert mean.mean == pytest.approx(0.5)
    assert bootstrap_mean(mean, BOOTSTRAP) == pytest.approx((0.5, 0.5))
