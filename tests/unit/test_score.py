"""Scores of a table from vectors made by hand, and the file that holds vectors."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from brewline.config.evaluate import EvaluateParams
from brewline.config.experiments import TableParams
from brewline.core.errors import BrewlineError
from brewline.evaluation.asr_metrics import align_texts
from brewline.evaluation.examples import Texts, choose_examples, choose_pictures
from brewline.evaluation.model_scores import ModelScores
from brewline.evaluation.outputs import (
    PICTURE_EXAMPLES_FILE,
    TEST_RANKS_FILE,
    Evaluation,
    read_examples,
    read_test_ranks,
    write_evaluation,
)
from brewline.evaluation.query_facts import QueryFacts, read_query_facts
from brewline.evaluation.query_metrics import parts_of
from brewline.evaluation.score import ModelVectors, score_table
from brewline.evaluation.texts import read_texts, read_word_errors
from brewline.evaluation.vectors import (
    SplitEmbeddings,
    closest,
    holds_vectors,
    load_vectors,
    save_vectors,
)
from brewline.speech.error_rates import Errors
from brewline.tables.parquet import FLOAT, TEXT, table_schema, write_table
from brewline.tables.transcripts import WORD_ERRORS

PARAMS = EvaluateParams(
    recall_at=[1, 3],
    bucket_recall_at=1,
    min_bucket_images=2,
    bootstrap_samples=50,
    bootstrap_seed=0,
    confidence=0.9,
    num_examples=2,
)
TABLE = TableParams(
    data="tiny", rows={"base": "a", "ours": "b"}, baseline="base", compare=[["base", "ours"]]
)
S2I, I2S = "test/speech_to_image/recall_at_1", "test/image_to_speech/any_hit_recall_at_1"
TEXTS = {
    f"{split}-{number}": Texts("a bad dog" if number == 0 else "a red dog", "A red dog.", "en")
    for split in ("dev", "test")
    for number in range(3)
}
FACTS = {f"test-{number}": QueryFacts("anna", 1.0 + number, 20.0) for number in range(3)}
ERRORS = {one.utterance_id: one for one in align_texts(TEXTS)}
EYE = np.eye(3, dtype=np.float32)


def vectors(split: str, targets: Sequence[int]) -> SplitEmbeddings:
    """Three pictures, and for each a recording that points at one of them: its own, or another."""
    images = [f"{split}-image-{number}" for number in range(3)]
    return SplitEmbeddings(
        [f"{split}-{number}" for number in range(3)], images, EYE[list(targets)], images, EYE
    )


def model(row: str, name: str, targets: Sequence[int]) -> ModelVectors:
    return ModelVectors(row, name, {split: vectors(split, targets) for split in ("dev", "test")})


MODELS = [
    model("base", "a/seed-0", [0, 2, 1]),
    model("base", "a/seed-1", [0, 2, 1]),
    model("ours", "b/seed-0", [0, 1, 2]),
    model("ours", "b/seed-1", [0, 1, 1]),
]


def score(table: TableParams = TABLE) -> Evaluation:
    return score_table(iter(MODELS), TEXTS, FACTS, ERRORS, table, [*table.rows], PARAMS)


def test_a_row_is_the_mean_of_its_seeds_with_their_deviation() -> None:
    found = score()
    # Of two recordings that point at a picture as much, the wrong one stands first.
    by_model = {name: (one[S2I], one[I2S]) for name, one in found.models.items()}
    assert by_model == {
        "a/seed-0": (1 / 3, 1 / 3),
        "a/seed-1": (1 / 3, 1 / 3),
        "b/seed-0": (1, 1),
        "b/seed-1": (2 / 3, 1 / 3),
    }
    ours, base = found.metrics["ours"], found.metrics["base"]
    assert (ours[S2I], base[S2I]) == pytest.approx((5 / 6, 1 / 3))
    assert (ours[f"{S2I}_std"], base[f"{S2I}_std"]) == pytest.approx((1 / 18**0.5, 0))
    assert ours[f"{S2I}_low"] <= ours[S2I] <= ours[f"{S2I}_high"]
    assert ours["num_seeds"] == 2
    assert ours["dev/mean_recall_at_1"] == pytest.approx(3 / 4)
    assert ours["test/speech_to_image/recall_at_3"] == 1


def test_the_ranks_of_dev_give_its_metrics_again() -> None:
    found = score()
    assert list(found.dev_ranks) == list(found.models)
    for name, ranks in found.dev_ranks.items():
        assert set(ranks.of_image) == {f"dev-image-{number}" for number in range(3)}
        for metric, value in found.models[name].items():
            if not metric.startswith("dev/") or "recall" not in metric:
                continue
            parts = parts_of(metric, ranks)
            assert np.mean([part.value for part in parts]) == pytest.approx(value), metric


def test_rows_are_compared_with_the_baseline_and_as_the_table_says() -> None:
    found = {
        (one["row"], one["baseline"], one["metric"]): one["difference"]
        for one in score().comparisons
    }
    assert len(found) == 8
    assert found["ours", "base", S2I] == pytest.approx(1 / 2)
    assert found["base", "ours", S2I] == pytest.approx(-1 / 2)
    assert found["ours", "base", I2S] == pytest.approx(1 / 3)
    assert found["ours", "base", S2I.replace("test", "dev")] == pytest.approx(1 / 2)


def test_a_row_is_split_up_by_what_its_recordings_are_like() -> None:
    found = {(one["kind"], one["bucket"], one["row"]): one for one in score().bucket_rows}
    everybody = found["speaker", "anna", "ours"]
    assert (everybody["num_queries"], everybody["num_images"], everybody["k"]) == (3, 3, 1)
    assert everybody["recall"] == pytest.approx(5 / 6)
    assert everybody["low"] <= everybody["recall"] <= everybody["high"]
    # One of its three words is another, in one recording of three: of one there is no recall.
    assert found["wer", "25 to 50 %", "base"]["recall"] is None
    assert found["wer", "no error", "base"]["recall"] == pytest.approx(0)
    assert found["wer", "no error", "base"]["num_queries"] == 2


def test_examples_show_the_first_model_of_each_row() -> None:
    examples = score().examples
    drawn, differs = (one["utterance_id"] for one in examples["base"])
    assert [one["utterance_id"] for one in examples["ours"]] == [drawn, differs]
    assert [one["kind"] for one in examples["base"]] == ["lot", "differs"]
    # After one by lot, one of those on which the two differ most.
    number = 2 if drawn == "test-1" else 1
    assert differs == f"test-{number}"
    base, ours = (examples[row][1] for row in ("base", "ours"))
    assert (base["rank"], ours["rank"]) == (3, 1)
    assert base["top"][0] == {"image_id": f"test-image-{3 - number}", "score": 1.0}
    assert ours["top"][0] == {"image_id": f"test-image-{number}", "score": 1.0}
    assert (base["caption"], base["transcript"]) == ("A red dog.", "a red dog")


def many(ranks: Sequence[int], by_image: Sequence[int]) -> ModelScores:
    """A model's ranks of recordings and pictures that are numbered."""
    return ModelScores(
        {},
        {},
        {f"u{number:02d}": rank for number, rank in enumerate(ranks)},
        {f"i{number:02d}": rank for number, rank in enumerate(by_image)},
        None,
    )


def test_examples_are_the_best_the_worst_and_those_in_the_middle() -> None:
    ranks = [*range(1, 21)]
    shown = {"base": many(ranks[::-1], ranks), "ours": many(ranks, ranks)}
    params = PARAMS.model_copy(update={"num_examples": 8})
    chosen = choose_examples(shown, "ours", "base", params)
    kinds = [one.kind for one in chosen]
    assert [kinds.count(kind) for kind in ("lot", "differs", "best", "median", "worst")] == [
        4, 4, 2, 2, 2,
    ]  # fmt: skip
    names = {kind: [one.name for one in chosen if one.kind == kind] for kind in kinds}
    assert len({one.name for one in chosen}) == len(chosen)
    # Those that are shown already are left out.
    left = [f"u{n:02d}" for n in range(20) if f"u{n:02d}" not in names["lot"] + names["differs"]]
    assert names["best"] == left[:2]
    assert names["worst"] == left[-2:][::-1]
    assert names["median"] == left[len(left) // 2 - 1 : len(left) // 2 + 1]
    # It is not always those of the first ids: of equal ranks the lot decides.
    equal = {"ours": many([1] * 20, [1] * 20)}
    best = [one.name for one in choose_examples(equal, "ours", None, params) if one.kind == "best"]
    assert best != ["u00", "u01"] and len(best) == 2


def test_few_queries_are_shown_once() -> None:
    shown = {"ours": many([1, 2, 3], [1, 2])}
    params = PARAMS.model_copy(update={"num_examples": 8})
    assert [one.kind for one in choose_examples(shown, "ours", None, params)] == ["lot"] * 3
    assert [one.kind for one in choose_pictures(shown["ours"], params)] == ["lot"] * 2


def test_pictures_are_chosen_by_their_best_recording_and_show_what_was_heard() -> None:
    pictures = choose_pictures(many([], [*range(1, 13)]), PARAMS)
    assert [one.kind for one in pictures] == ["lot", "best", "median", "worst"]
    left = [f"i{n:02d}" for n in range(12) if f"i{n:02d}" != pictures[0].name]
    assert pictures[1].name == left[0] and pictures[3].name == left[-1]
    (one,) = score().picture_examples["base"]
    number = int(one["image_id"][-1])
    # Its first picture is found by its recording, the other two by one another's.
    assert one["rank"] == (1 if number == 0 else 3)
    first = one["top"][0]
    assert first["utterance_id"] == f"test-{(0, 2, 1)[number]}"
    assert (first["transcript"], first["score"]) == (TEXTS[first["utterance_id"]].transcript, 1.0)
    assert len(one["top"]) == 3


def test_the_best_row_is_looked_for_among_contenders() -> None:
    """What reads captions is best on dev, and chooses nothing."""
    table = TableParams(data="tiny", rows=TABLE.rows, baseline="ours")
    found = score_table(iter(MODELS), TEXTS, FACTS, ERRORS, table, ["base"], PARAMS)
    (differs,) = [one for one in found.examples["base"] if one["kind"] == "differs"]
    assert differs["rank"] == 3


def test_ranks_of_test_come_back(tmp_path: Path) -> None:
    found = score()
    assert found.test_ranks["a/seed-0"] == {"test-0": 1, "test-1": 3, "test-2": 3}
    write_evaluation(found, tmp_path / "metrics.json", tmp_path / "tiny")
    assert read_test_ranks(tmp_path / "tiny" / TEST_RANKS_FILE) == found.test_ranks
    examples = read_examples(tmp_path / "tiny" / PICTURE_EXAMPLES_FILE, ["base", "ours"])
    assert examples == [{row: found.picture_examples[row][0] for row in ("base", "ours")}]


def test_without_a_baseline_nothing_is_compared() -> None:
    found = score(TableParams(data="tiny", rows=TABLE.rows))
    assert found.comparisons == []
    assert [len(rows) for rows in found.examples.values()] == [2, 2]


def test_word_error_rates_are_those_of_the_utterances() -> None:
    asr = score().asr
    assert asr["dev/asr/wer"] == asr["test/asr/wer"] == pytest.approx(1 / 9)
    assert asr["test/asr/num_utterances"] == 3


def test_models_of_different_utterances_are_one_sentence() -> None:
    other = model("ours", "b/seed-0", [0, 1, 2])
    fewer = SplitEmbeddings(["test-0"], ["test-image-0"], EYE[:1], ["test-image-0"], EYE[:1])
    models = [MODELS[0], ModelVectors("ours", "b/seed-0", {**other.splits, "test": fewer})]
    with pytest.raises(BrewlineError) as caught:
        score_table(models, TEXTS, FACTS, ERRORS, TABLE, [*TABLE.rows], PARAMS)
    assert str(caught.value) == (
        "b/seed-0 and a/seed-0 were measured on different utterances; run `dvc repro`"
    )


def test_the_order_of_utterances_is_no_difference() -> None:
    turned = {
        split: SplitEmbeddings(
            one.utterance_ids[::-1],
            one.utterance_image_ids[::-1],
            one.utterance_embeddings[::-1],
            one.image_ids,
            one.image_embeddings,
        )
        for split, one in MODELS[3].splits.items()
    }
    models = [*MODELS[:3], ModelVectors("ours", "b/seed-1", turned)]
    found = score_table(models, TEXTS, FACTS, ERRORS, TABLE, [*TABLE.rows], PARAMS)
    assert found.models["b/seed-1"] == score().models["b/seed-1"]
    assert found.comparisons == score().comparisons


def test_texts_are_those_of_dev_and_test(tmp_path: Path) -> None:
    for folder, column in (("manifest", "caption"), ("transcripts", "text")):
        schema = table_schema(utterance_id=TEXT, split=TEXT, language=TEXT, **{column: TEXT})
        rows = [
            {
                "utterance_id": split,
                "split": split,
                "language": f"that of {folder}",
                column: f"{column} of {split}",
            }
            for split in ("train", "dev", "test")
        ]
        write_table(tmp_path / f"data/{folder}/tiny.parquet", schema, rows)
    assert read_texts("tiny", tmp_path) == {
        split: Texts(f"text of {split}", f"caption of {split}", "that of transcripts")
        for split in ("dev", "test")
    }


def test_facts_are_those_of_test_by_the_hash_of_the_recording(tmp_path: Path) -> None:
    """The manifest says where the corpus lists a recording, the facts where it is stored."""
    facts = table_schema(path=TEXT, sha256=[TEXT], level_dbfs=[FLOAT], noise_dbfs=[FLOAT])
    stored = [
        {"path": "loud.ogg", "sha256": "aa", "level_dbfs": -20.0, "noise_dbfs": -45.5},
        {"path": "broken.ogg", "sha256": None, "level_dbfs": None, "noise_dbfs": None},
    ]
    write_table(tmp_path / "data/facts/tiny/recordings.parquet", facts, stored)
    manifest = table_schema(
        utterance_id=TEXT, split=TEXT, speaker_id=TEXT, duration_s=FLOAT, audio_sha256=TEXT
    )
    listed = [
        {
            "utterance_id": f"{split}-{digest}",
            "split": split,
            "speaker_id": "anna",
            "duration_s": 2.5,
            "audio_sha256": digest,
        }
        for split in ("dev", "test")
        for digest in ("aa", "bb")
    ]
    write_table(tmp_path / "data/manifest/tiny.parquet", manifest, listed)
    assert read_query_facts("tiny", tmp_path) == {
        "test-aa": QueryFacts("anna", 2.5, 25.5),
        "test-bb": QueryFacts("anna", 2.5, None),
    }


def test_word_errors_are_those_that_the_corpus_was_assessed_with(tmp_path: Path) -> None:
    path = tmp_path / "reports/transcription/tiny/word_errors.parquet"
    with pytest.raises(BrewlineError, match=r"word_errors.parquet is missing; run `dvc repro`"):
        read_word_errors("tiny", tmp_path)
    one = Errors("test-0", 3, 1, 9, 2)
    write_table(path, WORD_ERRORS, [asdict(one)])
    assert read_word_errors("tiny", tmp_path) == {"test-0": one}


def test_vectors_come_back_as_they_were(tmp_path: Path) -> None:
    splits = {"dev": vectors("dev", [2, 0, 1]), "test": vectors("tést/1", [0, 0, 0])}
    path = tmp_path / "a/seed-0.safetensors"
    save_vectors(path, splits)
    found = load_vectors(path)
    assert [*found] == ["dev", "test"]
    for split, one in splits.items():
        for name, value in vars(one).items():
            np.testing.assert_array_equal(getattr(found[split], name), value)
        assert found[split].utterance_embeddings.dtype == np.float32
    before = path.read_bytes()
    save_vectors(path, splits)
    assert path.read_bytes() == before


def test_channels_come_back_to_who_asks_for_them(tmp_path: Path) -> None:
    channels = {name: np.arange(6, dtype=np.float32).reshape(3, 2) for name in ("acoustic", "text")}
    one = replace(vectors("test", [0, 1, 2]), channels=channels)
    path = tmp_path / "seed-0.safetensors"
    save_vectors(path, {"dev": vectors("dev", [0, 1, 2]), "test": one})
    assert load_vectors(path)["test"].channels == {}
    found = load_vectors(path, with_channels=True)
    assert found["dev"].channels == {}
    for name, value in channels.items():
        np.testing.assert_array_equal(found["test"].channels[name], value)
    save_vectors(path, {"test": replace(one, channels={"acoustic": channels["text"][:2]})})
    with pytest.raises(BrewlineError, match="for other numbers of ids; run `dvc repro`"):
        load_vectors(path, with_channels=True)


def test_a_damaged_file_of_vectors_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "seed-0.safetensors"
    save_vectors(path, {"dev": vectors("dev", [0, 1, 2])})
    whole = path.read_bytes()
    lists = [["a"], ["i"], ["i"]]
    for damage in (
        path.unlink,
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(b"nonsense"),
        lambda: path.write_bytes(whole[:-10]),
        lambda: save_file({"dev/images": EYE}, path),
        lambda: save_file({"dev/images": EYE}, path, {"ids": "{"}),
        lambda: save_file({"dev/images": EYE}, path, {"ids": '{"dev": [[]]}'}),
        lambda: save_file({"dev/images": EYE}, path, {"ids": json.dumps({"dev": lists})}),
    ):
        damage()
        with pytest.raises(
            BrewlineError, match=r"is missing or damaged: .*; run `dvc repro`$"
        ) as e:
            load_vectors(path)
        assert "\n" not in str(e.value)


def test_the_closest_come_first_and_equal_ones_in_their_order() -> None:
    targets = np.array([[0, 1], [1, 0], [0.6, 0.8], [1, 0]], np.float32)
    found = closest(targets, np.array([1, 0], np.float32), 9)
    assert [row for row, _ in found] == [1, 3, 2, 0]
    assert [score for _, score in found] == pytest.approx([1, 1, 0.6, 0])
    assert closest(targets, np.array([1, 0], np.float32), 1) == [(1, 1.0)]


def test_ids_without_vectors_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "seed-0.safetensors"
    arrays = {f"test/{kind}": np.zeros((2, 3), np.float32) for kind in ("utterances", "images")}
    for ids in ('["a"]', '{"test": [["u1"], ["i1"], ["i1", "i2"]]}'):
        save_file(arrays, path, metadata={"ids": ids})
        with pytest.raises(BrewlineError, match="run `dvc repro`"):
            load_vectors(path)


def test_vectors_of_other_pairs_are_one_sentence() -> None:
    """An utterance that is said to describe another picture is another question."""
    one = MODELS[0].splits["test"]
    swapped = replace(one, utterance_image_ids=one.utterance_image_ids[::-1])
    models = [MODELS[0], ModelVectors("ours", "b/x", {**MODELS[0].splits, "test": swapped})]
    with pytest.raises(BrewlineError, match="b/x and a/seed-0 were measured on different"):
        score_table(models, TEXTS, FACTS, ERRORS, TABLE, [*TABLE.rows], PARAMS)


def test_vectors_of_other_utterances_than_the_manifest_has_are_one_sentence() -> None:
    texts = {one: text for one, text in TEXTS.items() if one != "dev-0"}
    with pytest.raises(BrewlineError, match="measured on utterance 'dev-0', which the manifest"):
        score_table(iter(MODELS), texts, FACTS, ERRORS, TABLE, [*TABLE.rows], PARAMS)


def test_partial_vectors_are_taken_if_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "seed-0.safetensors"
    assert not holds_vectors(path)
    save_vectors(path, MODELS[0].splits)
    assert holds_vectors(path)
    path.write_bytes(path.read_bytes()[:-8])
    assert not holds_vectors(path)
