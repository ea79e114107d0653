"""Scores of clips: a small split whose answers are seen at a glance, and slow computations."""

import numpy as np
import pytest

from brewline.config.evaluate import EvaluateParams
from brewline.config.experiments import TableParams
from brewline.core.errors import BrewlineError
from brewline.evaluation.ranks import Ranks
from brewline.evaluation.sound_scores import frame_choices, score_sounds
from brewline.evaluation.sound_table import SoundModelVectors, score_sound_table
from brewline.evaluation.sound_vectors import (
    SoundEmbeddings,
    holds_sound_vectors,
    load_sound_vectors,
    save_sound_vectors,
)

PARAMS = EvaluateParams(
    recall_at=[1, 2],
    bucket_recall_at=1,
    min_bucket_images=1,
    bootstrap_samples=50,
    bootstrap_seed=0,
    confidence=0.9,
    num_examples=1,
)


def unit(*degrees: float) -> np.ndarray:
    radians = np.radians(np.array(degrees))
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def split(sounds: np.ndarray | None = None) -> SoundEmbeddings:
    """Three clips, in directions 0, 40 and 90; the last has one frame, and no caption."""
    return SoundEmbeddings(
        clip_ids=["a", "b", "c"],
        sounds=unit(0, 40, 90) if sounds is None else sounds,
        # The middle ones (the earlier of two) lie at 45, 41 and 89.
        frame_clips=[0, 0, 0, 1, 1, 2],
        frames=unit(1, 45, 88, 41, 130, 89),
        segments=unit(2, 44, 87, 42, 128, 90),
        frame_labels=[["dog"], [], ["cat"], ["dog"], [], []],
        caption_clips=[0, 0, 1],
        captions=unit(35, 3, 46),
    )


def test_ranks_by_hand():
    metrics = score_sounds(split(), "test", [1, 2]).metrics
    # Pictures at 45, 41, 89: sound a (0) finds b's first, then its own; b and c their own.
    assert metrics["test/audio_to_image/recall_at_1"] == pytest.approx(2 / 3)
    assert metrics["test/audio_to_image/recall_at_2"] == 1
    assert metrics["test/audio_to_image/median_rank"] == 1
    assert metrics["test/audio_to_image/map_at_10"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    # Picture a (45) is nearest to sound b, then to a and c alike: ties count against us.
    assert metrics["test/image_to_audio/recall_at_1"] == pytest.approx(2 / 3)
    assert metrics["test/image_to_audio/map_at_10"] == pytest.approx((1 / 3 + 1 + 1) / 3)
    # Any of its frames: each finds its own first.
    assert metrics["test/audio_to_frame/any_hit_recall_at_1"] == 1
    assert metrics["test/frame_to_audio/num_queries"] == 6
    assert metrics["test/audio_to_frame/gallery_size"] == 6
    # Frames at 45 and 88 of a ask for b and c, 130 of b for c.
    assert metrics["test/frame_to_audio/recall_at_1"] == pytest.approx(3 / 6)
    assert metrics["test/audio_image/mean_recall_at_1"] == pytest.approx(2 / 3)


def test_captions_by_hand():
    metrics = score_sounds(split(), "test", [1, 2]).metrics
    # Clips without captions are no answers: c is not in the gallery.
    assert metrics["test/text_to_audio/gallery_size"] == 2
    # The caption at 35 is nearer to b.
    assert metrics["test/text_to_audio/recall_at_1"] == pytest.approx(2 / 3)
    # One of two captions suffices.
    assert metrics["test/audio_to_text/any_hit_recall_at_1"] == pytest.approx(1 / 2)
    assert metrics["test/audio_to_text/any_hit_recall_at_2"] == 1
    # a: ranks 1 and 2. b: the one at 35 is 5 degrees away, its own 6: rank 2.
    assert metrics["test/audio_to_text/map_at_10"] == pytest.approx((1 + 1 / 2) / 2)


def test_metrics_that_were_looked_up_are_there_and_no_other():
    alone = split()
    alone = SoundEmbeddings(
        alone.clip_ids, alone.sounds, [], alone.frames[:0], alone.segments[:0], [], [], unit()
    )
    assert score_sounds(alone, "dev", [1]).metrics == {}


def test_the_right_time_by_hand():
    metrics = score_sounds(split(), "test", [1]).metrics
    # Sound a picks the frame at 1 (dog); b the one at 41 (dog); c has no event.
    assert metrics["test/time/clip_accuracy"] == 1
    assert metrics["test/time/clip_chance"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    # Segments of dog and cat in a, of dog in b: each picks its own.
    assert metrics["test/time/segment_accuracy"] == 1
    assert metrics["test/time/segment_chance"] == pytest.approx((1 / 3 + 1 / 3 + 1 / 2) / 3)


def test_a_sound_that_hears_nothing_picks_by_chance():
    wrong = split(unit(45, 135, 90))
    metrics = score_sounds(wrong, "test", [1]).metrics
    assert metrics["test/time/clip_accuracy"] == 0


def test_choices_by_hand():
    places, shown = frame_choices(split())
    assert places.tolist() == [0, 0, 0]
    assert shown["entropy"] == 0
    assert shown["frame_1"] == 1
    margin_a = np.cos(np.radians(1)) - np.cos(np.radians(45))
    margin_b = np.cos(np.radians(1)) - np.cos(np.radians(90))
    assert shown["margin"] == pytest.approx((margin_a + margin_b) / 2, abs=1e-5)


def slow_average_precision(ranks: list[int], k: int) -> float:
    found = [place / rank for place, rank in enumerate(sorted(ranks), 1) if rank <= k]
    return sum(found) / min(len(ranks), k)


def test_average_precision_is_a_slow_one():
    rng = np.random.default_rng(3)
    of_query = [sorted(rng.permutation(12)[: 1 + n % 4] + 1) for n in range(30)]
    query = np.concatenate([np.full(len(one), n) for n, one in enumerate(of_query)])
    order = rng.permutation(len(query))
    ranks = Ranks(query[order], np.concatenate(of_query)[order], 30, 12)
    for k in (1, 3, 10):
        expected = [slow_average_precision(one, k) for one in of_query]
        np.testing.assert_allclose(ranks.average_precision(k), expected)


def test_vectors_come_back(tmp_path):
    path = tmp_path / "seed-0.safetensors"
    save_sound_vectors(path, {"dev": split(), "test": split()})
    found = load_sound_vectors(path)["test"]
    for name, value in vars(split()).items():
        assert np.array_equal(getattr(found, name), value) or getattr(found, name) == value
    assert holds_sound_vectors(path)
    path.write_bytes(path.read_bytes()[:-9])
    assert not holds_sound_vectors(path)
    with pytest.raises(BrewlineError, match="damaged"):
        load_sound_vectors(path)


def model(row: str, name: str, sounds: np.ndarray | None = None) -> SoundModelVectors:
    return SoundModelVectors(row, name, {"dev": split(sounds), "test": split(sounds)})


def test_a_table_has_means_intervals_and_differences():
    better, worse = unit(0, 40, 90), unit(90, 40, 0)
    table = TableParams(data="x", rows={"ours": "o", "theirs": "t"}, baseline="theirs")
    found = score_sound_table(
        [
            model("ours", "o/seed-0", better),
            model("ours", "o/seed-1", worse),
            model("theirs", "t/seed-0", worse),
        ],
        table,
        PARAMS,
    )
    name = "test/audio_to_image/recall_at_1"
    ours, theirs = found.metrics["ours"], found.metrics["theirs"]
    both = [found.models[f"o/seed-{seed}"][name] for seed in (0, 1)]
    assert ours[name] == pytest.approx(np.mean(both))
    assert ours[f"{name}_std"] == pytest.approx(np.std(both, ddof=1))
    assert ours[f"{name}_low"] <= ours[name] <= ours[f"{name}_high"]
    assert ours["num_seeds"] == 2
    differences = {one["metric"]: one["difference"] for one in found.comparisons}
    assert differences[name] == pytest.approx(ours[name] - theirs[name])
    assert "test/time/clip_accuracy" in differences
    assert "test/audio_to_text/any_hit_recall_at_1" in differences
    assert "test/time/clip_chance" not in differences
    assert not any("median" in one for one in differences)


def test_models_that_heard_other_clips_are_not_compared():
    other = split()
    other = SoundEmbeddings(**{**vars(other), "clip_ids": ["a", "b", "d"]})
    models = [model("x", "x/0"), SoundModelVectors("y", "y/0", {"dev": split(), "test": other})]
    with pytest.raises(BrewlineError, match="different clips"):
        score_sound_table(models, TableParams(data="x", rows={"x": "x", "y": "y"}), PARAMS)
