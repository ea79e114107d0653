"""Ranks of both directions, and what is made of them, against values by hand and a slow version."""

import importlib.util
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brewline.evaluation.device_ranks import count_on_device
from brewline.evaluation.ranks import CountBefore, Ranks, count_before, rank_both_ways

# Five recordings of three images, with known recalls.
GOLDEN_UI = np.array(
    [[0.9, 0.1, 0.3], [0.2, 0.8, 0.7], [0.6, 0.5, 0.4], [0.1, 0.3, 0.2], [0.4, 0.9, 0.5]]
)
UTTERANCES = ["0", "0", "1", "1", "2"]
IMAGES = ["0", "1", "2"]


# In numpy, and as on a GPU.
COUNTS = {
    "numpy": count_before,
    "torch": partial(count_on_device, device=torch.device("cpu")),
}


def rank_scores(
    scores_UI: np.ndarray,
    image_of_U: list[str],
    image_ids: list[str],
    count: CountBefore = count_before,
) -> tuple[Ranks, Ranks]:
    """Ranks a matrix of scores: vectors whose products are these."""
    images = np.eye(scores_UI.shape[1], dtype=scores_UI.dtype)
    return rank_both_ways(scores_UI, images, image_of_U, image_ids, count)


def test_golden_speech_to_image():
    ranks, _ = rank_scores(GOLDEN_UI, UTTERANCES, IMAGES)
    assert ranks.best.tolist() == [1, 3, 2, 1, 2]
    assert [ranks.any_hit(k).mean() for k in (1, 2, 3)] == pytest.approx([0.4, 0.8, 1.0])
    # One right answer each: both recalls are the same, and nDCG is the discount of its rank.
    assert ranks.fraction_found(2).tolist() == ranks.any_hit(2).tolist()
    second, third = 1 / np.log2(3), 1 / np.log2(4)
    assert ranks.ndcg(10).tolist() == pytest.approx([1, third, second, 1, second])
    assert ranks.ndcg(2).tolist() == pytest.approx([1, 0, second, 1, second])


def test_golden_image_to_speech():
    _, ranks = rank_scores(GOLDEN_UI, UTTERANCES, IMAGES)
    hits = [ranks.any_hit(k).mean() for k in (1, 2, 3)]
    assert hits == pytest.approx([1 / 3, 2 / 3, 1.0])
    # Image 0 finds its first recording at 1 and its second at 4, image 1 at 3 and 4, image 2 at 2.
    assert ranks.rank.tolist() == [1, 4, 3, 4, 2]
    assert ranks.best.tolist() == [1, 3, 2]
    assert ranks.fraction_found(1).tolist() == [0.5, 0, 0]
    assert ranks.fraction_found(3).tolist() == [0.5, 0.5, 1]
    assert ranks.fraction_found(4).tolist() == [1, 1, 1]
    discount = 1 / np.log2(np.arange(2, 6))
    two = discount[0] + discount[1]
    assert ranks.ndcg(10).tolist() == pytest.approx(
        [(discount[0] + discount[3]) / two, (discount[2] + discount[3]) / two, discount[1]]
    )
    # Of two right answers only one can be in the top 1.
    assert ranks.ndcg(1).tolist() == [1, 0, 0]


@pytest.mark.parametrize("dimension", [4, 64, 768, 1152])
@pytest.mark.parametrize("direction", ["even", "drawn"])
@pytest.mark.parametrize("count", COUNTS.values(), ids=COUNTS)
def test_one_vector_for_everything_finds_nothing(count: Any, dimension: int, direction: str):
    """Of any vector: its products are not equal to the bit, since where they stand matters."""
    rng = np.random.default_rng(dimension)
    vector = np.ones(dimension) if direction == "even" else rng.normal(size=dimension)
    vector = (vector / np.linalg.norm(vector)).astype(np.float32)
    num_images = 301
    images = [str(n) for n in range(num_images)]
    utterances = images + images
    forward, backward = rank_both_ways(
        np.tile(vector, (2 * num_images, 1)),
        np.tile(vector, (num_images, 1)),
        utterances,
        images,
        count,
    )
    assert set(forward.rank) == {num_images}
    # With two right answers among equals all others come first.
    assert set(backward.rank) == {2 * num_images - 1, 2 * num_images}
    assert set(backward.best) == {2 * num_images - 1}


def test_the_same_vector_under_another_id_counts_against_us():
    rng = np.random.default_rng(3)
    images = rng.normal(size=(257, 768)).astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    ids = [str(n) for n in range(257)]
    images[200] = images[3]
    forward, backward = rank_both_ways(images, images, ids, ids)
    assert [forward.rank[n] for n in (3, 200, 5)] == [2, 2, 1]
    assert [backward.rank[n] for n in (3, 200, 5)] == [2, 2, 1]


def slow_ranks(similarity: np.ndarray, query_ids: list[str], gallery_ids: list[str]) -> list[Any]:
    """Sorts each gallery so that, among equals, wrong answers come first; (item, rank) by query."""
    ranks = []
    for scores, query in zip(similarity, query_ids, strict=True):
        items = range(len(gallery_ids))
        order = sorted(items, key=lambda i: (-scores[i], gallery_ids[i] == query, i))
        ranks += [(i, 1 + order.index(i)) for i in items if gallery_ids[i] == query]
    return ranks


@pytest.mark.parametrize("count", COUNTS.values(), ids=COUNTS)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 4), st.integers(1, 9))
def test_ranks_equal_those_of_a_sort(count, seed, num_images, levels, strip):
    rng = np.random.default_rng(seed)
    images = [f"i{n}" for n in rng.permutation(num_images)]
    utterances = images + [images[n] for n in rng.integers(0, num_images, 5)]
    rng.shuffle(utterances)
    scores = rng.integers(0, levels, (len(utterances), num_images)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brewline.evaluation.ranks._STRIP_SCORES", strip)
        forward, backward = rank_scores(scores, utterances, images, count)
    slow = slow_ranks(scores, utterances, images)
    assert forward.rank.tolist() == [rank for _, rank in slow]
    assert (forward.num_queries, forward.gallery_size) == scores.shape
    # By utterance, each of which is the right answer of one image.
    slow = slow_ranks(scores.T, images, utterances)
    assert backward.rank.tolist() == [rank for _, rank in sorted(slow)]
    assert [images[query] for query in backward.query] == utterances
    assert (backward.gallery_size, backward.num_queries) == scores.shape


def test_ids_decide_not_positions():
    order = [2, 0, 1]
    ranks, _ = rank_scores(GOLDEN_UI[:, order], UTTERANCES, [IMAGES[i] for i in order])
    assert ranks.best.tolist() == [1, 3, 2, 1, 2]


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(ValueError, match="finite"):
        rank_scores(GOLDEN_UI * np.nan, UTTERANCES, IMAGES)
    with pytest.raises(ValueError, match="finite"):
        rank_both_ways(GOLDEN_UI, np.full((3, 3), np.inf), UTTERANCES, IMAGES)
    with pytest.raises(ValueError, match=r"no right answer in the gallery for \['1'\]"):
        rank_scores(GOLDEN_UI, ["0", "0", "2", "2", "2"], IMAGES)
    with pytest.raises(ValueError, match="no right answer"):
        rank_scores(GOLDEN_UI, ["0", "0", "1", "2", "7"], IMAGES)
    with pytest.raises(ValueError, match="shapes"):
        rank_scores(GOLDEN_UI.T, UTTERANCES, IMAGES)
    with pytest.raises(ValueError, match="twice"):
        rank_scores(GOLDEN_UI, UTTERANCES, ["0", "1", "1"])
    with pytest.raises(ValueError, match="no queries"):
        rank_both_ways(np.zeros((0, 3)), np.zeros((0, 3)), [], [])


def drawn_scores(seed: int) -> tuple[np.ndarray, list[str], list[str]]:
    """Scores of few levels, so that many are equal, of images with one to six recordings."""
    rng = np.random.default_rng(seed)
    images = [f"i{n}" for n in range(30)]
    utterances = [one for one in images for _ in range(rng.integers(1, 7))]
    rng.shuffle(utterances)
    return rng.integers(0, 12, (len(utterances), 30)).astype(np.float32), utterances, images


@pytest.mark.skipif(importlib.util.find_spec("mteb") is None, reason="mteb is not installed")
@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_mteb(seed: int):
    """It has no rule for ties, so it gets the ranks as scores."""
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores

    scores, utterances, images = drawn_scores(seed)
    names = [f"u{n}" for n in range(len(utterances))]
    forward, backward = rank_scores(scores, utterances, images)
    for ours, matrix, queries, gallery, query_names, item_names in (
        (forward, scores, utterances, images, names, images),
        (backward, scores.T, images, utterances, images, names),
    ):
        results, relevant = {}, {}
        for name, query, row in zip(query_names, queries, matrix, strict=True):
            items = range(len(gallery))
            order = sorted(items, key=lambda i: (-row[i], gallery[i] == query, i))
            results[name] = {item_names[i]: float(-place) for place, i in enumerate(order)}
            relevant[name] = {item_names[i]: 1 for i in items if gallery[i] == query}
        found = calculate_retrieval_scores(results, relevant, [1, 5, 10, len(gallery)])
        for k in (1, 5, 10):
            theirs = found.recall[f"Recall@{k}"], found.ndcg[f"NDCG@{k}"]
            own = ours.fraction_found(k).mean(), ours.ndcg(k).mean()
            assert own == pytest.approx(theirs, abs=1e-5)
            assert ours.any_hit(k).mean() == pytest.approx(found.hit_rate[f"HitRate@{k}"], abs=1e-5)
        assert (1 / ours.best).mean() == pytest.approx(found.mrr[f"MRR@{len(gallery)}"])


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_open_clip(seed: int):
    """It knows pairs alone, and lets a sort decide ties, which count against us."""
    from open_clip_train.train import get_clip_metrics

    scores = np.random.default_rng(seed).integers(0, 8, (40, 40)).astype(np.float32)
    names = [f"i{n}" for n in range(40)]
    forward, backward = rank_scores(scores, names, names)
    # A right answer that lost its ties: by less than there is between two levels.
    lost = torch.from_numpy(scores - 0.5 * np.eye(40, dtype=np.float32))
    # Its rows are images; the scores stand for features of them.
    theirs = get_clip_metrics(lost.t(), torch.eye(40), 1.0)
    for ours, name in ((forward, "text_to_image"), (backward, "image_to_text")):
        for k in (1, 5, 10):
            assert ours.any_hit(k).mean() == pytest.approx(theirs[f"{name}_R@{k}"])
        assert ours.best.mean() == pytest.approx(theirs[f"{name}_mean_rank"])
        # It rounds the median of an even number down.
        assert np.floor(np.median(ours.best)) == theirs[f"{name}_median_rank"]
