from dataclasses import asdict

import numpy as np
import pytest
import torch
from tiny_models import E2E, FULL, PROMPTED, STATE_WIDTH, ZERO_SHOT, make_world, world_data

from brewline.config.evaluate import EvaluateParams
from brewline.config.experiments import TableParams
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json
from brewline.evaluation.asr_metrics import align_texts, asr_metrics
from brewline.evaluation.embedding import embed_split
from brewline.evaluation.examples import Texts
from brewline.evaluation.outputs import read_buckets, write_evaluation
from brewline.evaluation.query_facts import QueryFacts
from brewline.evaluation.score import ModelVectors, score_table
from brewline.evaluation.scores import score_retrieval
from brewline.models.brewclip import BrewClip
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator

PARAMS = EvaluateParams(
    recall_at=[1, 2],
    bucket_recall_at=1,
    min_bucket_images=1,
    bootstrap_samples=50,
    bootstrap_seed=0,
    confidence=0.9,
    num_examples=4,
)
TABLE = TableParams(
    data="tiny",
    rows={"zero-shot": "tiny-zero-shot", "prompted": "tiny-prompted", "full": "tiny-full"},
    baseline="zero-shot",
    compare=[["full", "prompted"]],
)
TEXTS = {
    one.utterance_id: Texts(one.transcript, one.caption, "en")
    for split in ("dev", "test")
    for one in world_data().read_split(split)
}
ERRORS = {one.utterance_id: one for one in align_texts(TEXTS)}
FACTS = {name: QueryFacts("anna", 1.0, None) for name in TEXTS}


def model_of(backbone, switches, seed=0):
    torch.manual_seed(seed)
    model = BrewClip(backbone, switches, (STATE_WIDTH,))
    return model, Collator(input_transforms(backbone, switches), switches)


def vectors(backbone, row, name, switches, seed=0):
    model, collator = model_of(backbone, switches, seed)
    read = world_data().read_split
    splits = {split: embed_split(model, collator, read(split), 3) for split in ("dev", "test")}
    return ModelVectors(row, name, splits)


@pytest.fixture(scope="module")
def evaluation(backbone):
    models = [
        vectors(backbone, "zero-shot", "tiny-zero-shot/frozen", ZERO_SHOT),
        vectors(backbone, "prompted", "tiny-prompted/seed-0", PROMPTED),
        vectors(backbone, "full", "tiny-full/seed-0", FULL),
        vectors(backbone, "full", "tiny-full/seed-1", FULL, 1),
    ]
    return score_table(iter(models), TEXTS, FACTS, ERRORS, TABLE, [*TABLE.rows], PARAMS)


def test_images_come_once_and_embeddings_do_not_depend_on_batches(backbone):
    model, collator = model_of(backbone, FULL)
    world = make_world(5)
    small, large = (embed_split(model, collator, iter(world), size) for size in (2, 99))
    assert small.image_ids == [f"i{n}" for n in range(5)]
    assert small.utterance_ids == [u.utterance_id for u in world]
    assert small.utterance_image_ids == [u.image_id for u in world]
    for name in ("utterance_embeddings", "image_embeddings"):
        np.testing.assert_allclose(getattr(small, name), getattr(large, name), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(getattr(small, name), axis=1), 1, rtol=1e-5)


def test_the_order_of_a_split_does_not_change_its_metrics(backbone):
    model, collator = model_of(backbone, E2E)
    found = [
        score_retrieval(embed_split(model, collator, world, 4), "dev", [1, 2]).metrics
        for world in (make_world(6), make_world(6)[::-1])
    ]
    assert found[0] == pytest.approx(found[1])


def test_an_empty_split_and_a_broken_model_are_one_sentence(backbone):
    model, collator = model_of(backbone, FULL)
    with pytest.raises(BrewlineError, match="no utterances"):
        embed_split(model, collator, [], 4)
    with torch.no_grad():
        model.prompt_tokens.fill_(torch.nan)
    with pytest.raises(BrewlineError, match="not finite"):
        embed_split(model, collator, make_world(2), 4)


def test_metrics_have_the_names_that_reports_read(evaluation):
    found = evaluation.metrics["full"]
    for split, queries in (("dev", 8), ("test", 16)):
        assert found[f"{split}/speech_to_image/num_queries"] == queries
        assert found[f"{split}/speech_to_image/gallery_size"] == 8
        assert found[f"{split}/image_to_speech/num_queries"] == 8
        for name in (
            "speech_to_image/recall_at_1",
            "image_to_speech/any_hit_recall_at_2",
            "image_to_speech/recall_at_2",
        ):
            value = found[f"{split}/{name}"]
            assert found[f"{split}/{name}_low"] <= value <= found[f"{split}/{name}_high"]
            assert f"{split}/{name}_std" in found
        for direction in ("speech_to_image", "image_to_speech"):
            median, mean, reciprocal, ndcg = (
                found[f"{split}/{direction}/{name}"]
                for name in ("median_rank", "mean_rank", "mean_reciprocal_rank", "ndcg_at_10")
            )
            assert 1 <= median <= queries
            assert 1 <= mean <= queries
            assert 0 < reciprocal <= 1
            assert 0 <= ndcg <= 1
        for name in ("median_rank", "mean_rank", "mean_reciprocal_rank", "ndcg_at_10"):
            name = f"{split}/image_to_speech/{name}"
            assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    assert found["num_seeds"] == 2
    assert "test/speech_to_image/num_queries_std" not in found
    assert "test/speech_to_image/recall_at_1_std" not in evaluation.metrics["prompted"]


def test_selection_reads_dev_alone(evaluation):
    names = {name for name in evaluation.metrics["full"] if "mean_recall_at_1" in name}
    assert names == {"dev/mean_recall_at_1", "dev/mean_recall_at_1_std"}


def test_a_row_is_the_mean_of_its_seeds(evaluation):
    name = "test/speech_to_image/recall_at_2"
    seeds = [evaluation.models[f"tiny-full/seed-{n}"][name] for n in (0, 1)]
    assert evaluation.metrics["full"][name] == pytest.approx(np.mean(seeds))
    assert evaluation.metrics["full"][f"{name}_std"] == pytest.approx(np.std(seeds, ddof=1))
    assert set(evaluation.models) == {
        "tiny-zero-shot/frozen",
        "tiny-prompted/seed-0",
        "tiny-full/seed-0",
        "tiny-full/seed-1",
    }


def test_comparisons_are_those_of_the_table(evaluation):
    pairs = {(c["row"], c["baseline"]) for c in evaluation.comparisons}
    assert pairs == {("prompted", "zero-shot"), ("full", "zero-shot"), ("full", "prompted")}
    assert len(evaluation.comparisons) == 3 * 4
    for one in evaluation.comparisons:
        ours, theirs = (evaluation.metrics[one[k]][one["metric"]] for k in ("row", "baseline"))
        assert one["difference"] == pytest.approx(ours - theirs)
        assert one["low"] <= one["difference"] <= one["high"]


def test_examples_are_the_same_utterances_for_every_row(evaluation):
    chosen = {name: [e["utterance_id"] for e in rows] for name, rows in evaluation.examples.items()}
    assert set(chosen) == {"zero-shot", "prompted", "full"}
    assert len(set(map(tuple, chosen.values()))) == 1
    # Half by lot and half where rows differ, and one each that is answered best, so-so and worst.
    assert len(set(chosen["full"])) == 4 + 3
    for example in evaluation.examples["full"]:
        scores = [item["score"] for item in example["top"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 5
        top = [item["image_id"] for item in example["top"]]
        if example["rank"] <= 5:
            assert top[example["rank"] - 1] == example["image_id"]


def test_recall_rows_cover_both_splits_and_directions(evaluation):
    rows = evaluation.recall_rows
    assert len(rows) == 3 * 2 * 2 * 2
    assert set(rows[0]) == {"row", "split", "direction", "k", "recall"}


def test_files_hold_what_was_found(evaluation, tmp_path):
    metrics, folder = tmp_path / "metrics/tiny.json", tmp_path / "reports/tiny"
    write_evaluation(evaluation, metrics, folder)
    assert read_json(metrics) == {**evaluation.metrics, "asr": evaluation.asr}
    assert evaluation.asr["test/asr/num_utterances"] == 16
    assert read_json(folder / "models.json") == evaluation.models
    assert read_json(folder / "comparisons.json") == evaluation.comparisons
    assert read_json(folder / "examples.json") == evaluation.examples
    ranks = {name: asdict(one) for name, one in evaluation.dev_ranks.items()}
    assert read_json(folder / "dev_ranks.json") == ranks
    lines = (folder / "recall.csv").read_text().splitlines()
    assert lines[0] == "row,split,direction,k,recall"
    assert len(lines) == 1 + len(evaluation.recall_rows)
    assert list(read_buckets(folder / "buckets.csv")) == evaluation.bucket_rows


def test_word_errors_are_counted_after_normalising():
    heard = {
        "a": Texts(" it is mister Smith's color!", "It's Mr. Smith's colour", "en"),
        "b": Texts("a red bowl", "a red ball", "en"),
        "c": Texts("", "two boxes", "en"),
        "d": Texts("not counted", None, "en"),
    }
    found = asr_metrics("dev", align_texts(heard))
    assert found["dev/asr/num_utterances"] == 3
    assert found["dev/asr/wer"] == pytest.approx(3 / 11)
    assert 0 < found["dev/asr/cer"] < 1


def test_no_captions_no_word_errors():
    assert asr_metrics("dev", align_texts({"a": Texts("something", None, "en")})) == {}
