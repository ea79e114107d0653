"""Intervals: images are drawn with all their queries, and seeds with all their answers."""

import numpy as np
import pytest

from brewline.evaluation.bootstrap import (
    Bootstrap,
    Statistic,
    bootstrap_mean_difference,
    median_by_image,
    sum_by_image,
)

BOOTSTRAP = Bootstrap(samples=400, seed=1, confidence=0.9)


def hits(rate: float, num_images: int = 60, seed: int = 5) -> tuple[np.ndarray, list[str]]:
    values = (np.random.default_rng(seed).random(num_images * 2) < rate).astype(float)
    return values, [f"i{n // 2}" for n in range(num_images * 2)]


def interval(statistic: Statistic, bootstrap: Bootstrap = BOOTSTRAP) -> tuple[float, float]:
    return bootstrap.interval(bootstrap.drawn(statistic))


def test_the_interval_holds_the_mean_and_is_repeatable() -> None:
    table = sum_by_image(*hits(0.4))
    low, high = interval(table)
    assert 0 < low < table.value < high < 1
    assert interval(table) == (low, high)


def test_the_interval_is_about_as_wide_as_theory_says() -> None:
    values = np.repeat(np.arange(400) % 2, 1).astype(float)
    table = sum_by_image(values, [str(n) for n in range(400)])
    low, high = interval(table, Bootstrap(4000, 0, 0.95))
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.06)


def test_images_are_drawn_with_all_their_utterances() -> None:
    # Ten equal answers for each image carry no more news than one.
    values = (np.arange(50) % 2).astype(float)
    one = sum_by_image(values, [str(n) for n in range(50)])
    ten = sum_by_image(np.repeat(values, 10), [str(n) for n in range(50) for _ in range(10)])
    assert interval(one) == interval(ten)


def test_the_median_of_a_sample_is_that_of_its_queries() -> None:
    rng = np.random.default_rng(2)
    values = rng.integers(1, 9, 41).astype(float)
    image_ids = [f"i{n}" for n in rng.integers(0, 7, 41)]
    table = median_by_image(values, image_ids)
    assert table.value == np.median(values)
    weights = BOOTSTRAP.weights(len(table.image_ids))
    for row, drawn in zip(weights, BOOTSTRAP.drawn(table), strict=True):
        times = [int(row[table.image_ids.index(one)]) for one in image_ids]
        assert drawn == np.median(np.repeat(values, times))


def test_the_median_is_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values, image_ids = hits(0.5)
    values += np.arange(len(values))
    whole = BOOTSTRAP.drawn(median_by_image(values, image_ids))
    monkeypatch.setattr("brewline.evaluation.bootstrap._CHUNK", 3000)
    assert np.array_equal(BOOTSTRAP.drawn(median_by_image(values, image_ids)), whole)


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    values, images = hits(0.5)
    better = values.copy()
    better[np.flatnonzero(values == 0)[:8]] = 1
    ours, theirs = sum_by_image(better, images), sum_by_image(values, images)
    difference, low, high = bootstrap_mean_difference([(ours, theirs)], BOOTSTRAP)
    assert difference == pytest.approx(8 / len(values))
    assert 0 < low < difference < high
    single_low, single_high = interval(theirs)
    assert high - low < single_high - single_low


def test_order_does_not_matter_because_ids_join() -> None:
    values, images = hits(0.5)
    pair = sum_by_image(values, images), sum_by_image(values[::-1], images[::-1])
    assert bootstrap_mean_difference([pair], BOOTSTRAP) == (0.0, 0.0, 0.0)


def test_different_images_cannot_be_compared() -> None:
    values, images = hits(0.5)
    pair = sum_by_image(values, images), sum_by_image(values[2:], images[2:])
    with pytest.raises(ValueError, match="different images"):
        bootstrap_mean_difference([pair], BOOTSTRAP)
    fewer = sum_by_image(values[1:], images[1:])
    with pytest.raises(ValueError, match="different images or utterances"):
        bootstrap_mean_difference([(pair[0], fewer)], BOOTSTRAP)


def test_the_interval_over_seeds_is_about_as_wide_as_theory_says() -> None:
    """Queries that all images answer alike: what varies is the seed."""
    images = [str(n) for n in range(50)]
    for levels in ([0.3, 0.5], [0.3, 0.4, 0.8], [0.1, 0.2, 0.3, 0.4, 0.9]):
        bootstrap = Bootstrap(20_000, 0, 0.95)
        drawn = [bootstrap.drawn(sum_by_image(np.full(50, one), images)) for one in levels]
        mean = bootstrap.over_seeds(drawn)
        assert mean.mean() == pytest.approx(np.mean(levels), abs=0.005)
        assert mean.std() == pytest.approx(np.std(levels, ddof=1) / len(levels) ** 0.5, rel=0.05)


def test_the_interval_of_several_seeds_covers_images_and_seeds() -> None:
    """Two seeds that are far apart say less than two that agree, on the same images."""
    values, images = hits(0.5)
    low, high = (sum_by_image(np.clip(values + by, 0, 1), images) for by in (-0.2, 0.2))
    same = [BOOTSTRAP.drawn(sum_by_image(values, images))] * 2
    apart = [BOOTSTRAP.drawn(low), BOOTSTRAP.drawn(high)]
    over_images = BOOTSTRAP.interval(BOOTSTRAP.over_seeds(same))
    assert over_images == BOOTSTRAP.interval(same[0])
    over_both = BOOTSTRAP.interval(BOOTSTRAP.over_seeds(apart))
    assert over_both[0] < over_images[0] < over_images[1] < over_both[1]


def test_the_seeds_of_two_rows_are_drawn_apart() -> None:
    values, images = hits(0.5)
    drawn = [BOOTSTRAP.drawn(sum_by_image(values + by, images)) for by in (0, 0.1, 0.3)]
    first, again, other = (BOOTSTRAP.over_seeds(drawn, stream) for stream in (0, 0, 1))
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first - drawn[0], other - drawn[0])[0, 1]) < 0.2
