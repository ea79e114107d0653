"""The whole line on the tiny world: nothing is lost, everything joins, and interruption is safe."""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import open_clip
import pandas
import pytest
import torch
import yaml
from PIL import Image
from tiny_project import Line, changed_params, make_tracked, run_line, run_stage

from brewline.core.files import sha256_tree
from brewline.models.card import load_card
from brewline.models.folder import load_tensors
from brewline.samples.shards import read_corpus, read_split
from brewline.tables.features import load_features
from brewline.tables.parquet import read_table
from brewline.training import loop

CORPORA = ("mini-flickr8k", "mini-lncoco", "mini-ravdess")


@pytest.mark.parametrize("corpus", CORPORA)
def test_manifest_and_quarantine_account_for_every_utterance(line: Line, corpus: str) -> None:
    manifest = read_table(line.folder / f"data/manifest/{corpus}.parquet")
    quarantine = read_table(line.folder / f"data/quarantine/{corpus}.parquet")
    results = json.loads((line.folder / f"reports/validation/{corpus}/results.json").read_text())
    assert len(manifest) + len(quarantine) == results["num_listed"]
    assert all(outcome["success"] for outcome in results["expectations"])
    dropped = {row["utterance_id"]: row["reason"] for row in quarantine}
    assert dropped == (line.planted if corpus == "mini-lncoco" else {})


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_good_utterance_has_a_transcript_and_a_sample(line: Line, corpus: str) -> None:
    manifest = read_table(line.folder / f"data/manifest/{corpus}.parquet")
    transcripts = read_table(line.folder / f"data/transcripts/{corpus}.parquet")
    ids = [row["utterance_id"] for row in manifest]
    assert [row["utterance_id"] for row in transcripts] == ids
    shards, states = line.folder / "data/shards" / corpus, line.folder / "data/states" / corpus
    samples = [u for s in ("train", "dev", "test") for u in read_split(shards, s, states)]
    assert [sample.utterance_id for sample in samples] == ids
    for sample, row in zip(samples, manifest, strict=True):
        assert sample.caption == row["caption"]
        assert sample.states is not None
        # 50 frames a second, the last one perhaps not full.
        assert sample.num_frames == len(sample.states)
        assert abs(sample.num_frames - 50 * row["duration_s"]) < 2
        assert (sample.image is None) == (row["image_path"] is None)


def test_metrics_have_every_row_and_its_interval(line: Line) -> None:
    params = yaml.safe_load((line.folder / "params.yaml").read_text())
    for name, table in params["tables"].items():
        metrics = json.loads((line.folder / f"metrics/{name}.json").read_text())
        assert set(metrics) == {*table["rows"], "asr"}
        for row in table["rows"]:
            for split in ("dev", "test"):
                name = f"{split}/speech_to_image/recall_at_5"
                assert metrics[row][f"{name}_low"] <= metrics[row][name]
                assert metrics[row][name] <= metrics[row][f"{name}_high"]
        assert metrics["full"]["num_seeds"] == 2
        assert metrics["asr"]["test/asr/wer"] >= 0


def test_every_recording_has_its_vectors_and_layers_and_a_probe_measures_them(line: Line) -> None:
    manifest = read_table(line.folder / "data/manifest/mini-ravdess.parquet")
    ids = [row["utterance_id"] for row in manifest]
    layers = load_features(line.folder / "data/layers/mini-ravdess.safetensors")
    assert layers.utterance_ids == ids
    # Of one layer, and of what the convolutions give.
    assert {name: array.shape for name, array in layers.arrays.items()} == {
        name: (len(ids), 2, 32) for name in ("mean", "deviation")
    }
    states = line.folder / "data/states/mini-ravdess"
    utterances = list(read_corpus(line.folder / "data/shards/mini-ravdess", states))
    assert [one.utterance_id for one in utterances] == ids
    means = [np.asarray(one.states, np.float64).mean(axis=0) for one in utterances]
    # What the acoustic channel reads is the last layer; there it is stored in 16 bits, and padded
    # to the longest of a batch before it is encoded.
    assert np.allclose(layers.arrays["mean"][:, -1], means, atol=0.05)
    for seed in (0, 1):
        folder = line.folder / "data/embeddings/mini-ravdess/mini-ravdess-full"
        found = load_features(folder / f"seed-{seed}.safetensors")
        assert found.utterance_ids == ids
        norms = np.linalg.norm(found.arrays["fused"], axis=1)
        assert np.allclose(norms, 1, atol=1e-5)
        both = found.arrays["acoustic"] + found.arrays["text"]
        assert np.allclose(
            both / np.linalg.norm(both, axis=1)[:, None], found.arrays["fused"], atol=1e-5
        )
        captions = {row["caption"] for row in manifest}
        assert len(np.unique(found.arrays["caption"].round(4), axis=0)) == len(captions)
    metrics = json.loads((line.folder / "metrics/probe/mini-ravdess.json").read_text())
    assert metrics["majority"]["by_speaker/strict4/num_recordings"] == len(ids)
    assert {"full/fused", "e2e/acoustic", "whisper/mean+std/weighted"} <= set(metrics)


def test_what_is_analysed_belongs_to_what_was_measured(line: Line) -> None:
    params = yaml.safe_load((line.folder / "params.yaml").read_text())
    for name, table in params["tables"].items():
        folder = line.folder / "reports/analysis" / name
        read = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
        metrics = json.loads((line.folder / f"metrics/{name}.json").read_text())
        assert [fit["row"] for fit in read["word_errors"]["fits"]] == [*table["rows"]]
        # What the sum finds is what the row is worth.
        for row, found in read["channels"].items():
            one = found["recall"]["fused"]["speech_to_image/recall_at_5"]
            assert one["value"] == pytest.approx(metrics[row]["test/speech_to_image/recall_at_5"])
            assert one["low"] == pytest.approx(metrics[row]["test/speech_to_image/recall_at_5_low"])
        assert "full" in read["channels"] and "zero-shot" not in read["channels"]
        # Pictures of 48 by 40 pixels lose a sixth, less than what is looked at.
        assert {one["row"] for one in read["crops"]["rates"]} == {*table["rows"]}
        assert len(read["attention"]) == params["analyse"]["attention_queries"]
        for one in read["attention"]:
            assert one["row"].startswith("full")
            assert {"picture", "sound"} == {*one["figures"]}
            assert one["words"]


def test_trained_models_hold_only_what_was_trained(line: Line) -> None:
    for seed in (0, 1):
        folder = line.folder / f"models/mini-lncoco-full/seed-{seed}"
        card = json.loads((folder / "model.json").read_text())
        assert card["seed"] == seed
        assert (folder / "model.safetensors").stat().st_size < 6 * card["num_trained_parameters"]
        assert len((folder / "history.jsonl").read_text().splitlines()) > 6
    frozen = line.folder / "models/mini-lncoco-zero-shot/frozen"
    assert [path.name for path in frozen.iterdir()] == ["model.json"]


def test_no_partial_work_is_left(line: Line) -> None:
    left = [path for path in line.folder.rglob("*") if path.name.endswith(".partial")]
    assert not left
    for stage in ("transcribe", "shard", "layers", "embed"):
        assert not [p for p in (line.folder / "work" / stage).rglob("*") if p.is_file()]
    # Of a seed that is finished the model stays, for a run with more seeds, and no checkpoint.
    seeds = list(line.folder.glob("work/train/*/*"))
    assert seeds
    for seed in seeds:
        assert {path.name for path in seed.iterdir()} == {"model", "finished.json", "run.json"}


def test_the_report_shows_every_row(line: Line) -> None:
    page = (line.folder / "reports/index.html").read_text()
    for name in ("mini-flickr8k", "mini-lncoco", "zero-shot", "prompted", "e2e", "full"):
        assert name in page


@pytest.mark.parametrize(
    ("stage_name", "arguments", "outputs"),
    [
        ("inspect", ["mini-lncoco"], ["data/facts/mini-lncoco"]),
        (
            "validate",
            ["mini-lncoco"],
            ["data/manifest/mini-lncoco.parquet", "reports/validation/mini-lncoco"],
        ),
        (
            "transcribe",
            ["mini-lncoco"],
            ["data/transcripts/mini-lncoco.parquet", "data/states/mini-lncoco"],
        ),
        ("shard", ["mini-lncoco"], ["data/shards/mini-lncoco"]),
        ("train", ["mini-lncoco-full"], ["models/mini-lncoco-full"]),
        ("train", ["mini-flickr8k-full-of-lncoco"], ["models/mini-flickr8k-full-of-lncoco"]),
        ("embed", ["mini-lncoco-full"], ["data/embeddings/mini-lncoco/mini-lncoco-full"]),
        ("layers", ["mini-ravdess"], ["data/layers/mini-ravdess.safetensors"]),
        ("embed", ["mini-ravdess-full"], ["data/embeddings/mini-ravdess/mini-ravdess-full"]),
        ("probe", ["mini-ravdess"], ["metrics/probe/mini-ravdess.json", "reports/emotion"]),
        ("score", ["mini-lncoco"], ["metrics/mini-lncoco.json", "reports/evaluation"]),
        ("analyse", ["mini-lncoco"], ["reports/analysis/mini-lncoco"]),
        ("register", [], ["reports/registration.json"]),
        ("report", [], ["reports/index.html"]),
    ],
)
def test_a_stage_repeats_itself_to_the_byte(
    line: Line,
    tmp_path: Path,
    stage: Callable[..., None],
    stage_name: str,
    arguments: list[str],
    outputs: list[str],
) -> None:
    folder = line.copy(tmp_path / "project")
    before = [sha256_tree(folder / path) for path in outputs]
    # Else seeds that are finished would not be trained.
    shutil.rmtree(folder / "work")
    stage(folder, stage_name, *arguments)
    assert [sha256_tree(folder / path) for path in outputs] == before


def test_too_many_corrupted_recordings_stop_the_line(
    line: Line, tmp_path: Path, stage: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = line.copy(tmp_path / "project")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["validate"]["max_quarantine_rate"] = 0.1
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    # As DVC does before it runs a stage.
    for name in ("data/manifest", "data/quarantine"):
        (folder / name / "mini-lncoco.parquet").unlink()
    with pytest.raises(SystemExit):
        stage(folder, "validate", "mini-lncoco")
    said = capsys.readouterr().err
    assert "no more than 10 % of the utterances are quarantined" in said
    assert "Most are dropped as `" in said
    assert not (folder / "data/manifest/mini-lncoco.parquet").exists()
    assert not (folder / "data/quarantine/mini-lncoco.parquet").exists()
    # The page is there to look at.
    assert "1 not met" in (folder / "reports/validation/mini-lncoco/index.html").read_text()


@pytest.mark.parametrize("raised", [False, True], ids=["same-version", "raised-version"])
def test_transcription_goes_on_after_a_crash(
    line: Line,
    tmp_path: Path,
    stage: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    raised: bool,
) -> None:
    from brewline.speech.batch_plan import RecordingBatch
    from brewline.speech.batch_results import BatchResults

    folder = line.copy(tmp_path / "project")
    outputs = ("data/transcripts/mini-lncoco.parquet", "data/states/mini-lncoco")
    before = [sha256_tree(folder / path) for path in outputs]
    save = BatchResults.save
    batches = []

    def crash_at_the_third_batch(self: BatchResults, batch: RecordingBatch, found: list) -> None:  # type: ignore[type-arg]
        batches.append(batch.name)
        if len(batches) == 3:
            raise RuntimeError("the power went out")
        save(self, batch, found)

    monkeypatch.setattr(BatchResults, "save", crash_at_the_third_batch)
    with pytest.raises(RuntimeError, match="the power went out"):
        stage(folder, "transcribe", "mini-lncoco")
    tried = len(batches)
    assert (
        json.loads((folder / "work/failures/transcribe@mini-lncoco.json").read_text())["kind"]
        == "crash"
    )
    if raised:
        versions = yaml.safe_load((folder / "versions.yaml").read_text())
        versions["transcribe"] += 1
        (folder / "versions.yaml").write_text(yaml.safe_dump(versions))
    stage(folder, "transcribe", "mini-lncoco")
    # The third of all again; whatever else was done was kept, unless it is that of another version.
    assert len(batches) == len(set(batches)) + (tried if raised else 1)
    assert [sha256_tree(folder / path) for path in outputs] == before


@pytest.mark.parametrize(
    ("name", "arguments", "first_work"),
    [
        ("transcribe", ["mini-lncoco"], "stages.transcribe.CorpusTranscription"),
        ("shard", ["mini-lncoco"], "stages.shard.pack_corpus"),
        ("train", ["mini-lncoco-full"], "training.processes.in_processes"),
        ("embed", ["mini-lncoco-full"], "stages.embed.load_clip"),
    ],
)
def test_no_shard_or_archive_is_read_before_the_work_begins(
    line: Line,
    tmp_path: Path,
    stage: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    arguments: list[str],
    first_work: str,
) -> None:
    """What a run depends on is named by what is small: tables, and the indices of shards."""
    folder = line.copy(tmp_path / "project")
    hashed = []
    file_digest = hashlib.file_digest

    def watch(file: BinaryIO, algorithm: str) -> Any:
        hashed.append(Path(file.name))
        return file_digest(file, algorithm)  # type: ignore[arg-type]

    def stop(*_: object) -> None:
        raise RuntimeError("far enough")

    monkeypatch.setattr(hashlib, "file_digest", watch)
    monkeypatch.setattr(f"brewline.{first_work}", stop)
    with pytest.raises(RuntimeError, match="far enough"):
        stage(folder, name, *arguments)
    data = {path for path in hashed if path.parts[0] == "data"}
    assert data
    assert all(path.suffix == ".parquet" or path.name == "index.json" for path in data)


def test_imported_transcripts_are_taken_instead_of_whispers(
    line: Line, tmp_path: Path, stage: Callable[..., None]
) -> None:
    folder = line.copy(tmp_path / "project")
    table, states = "data/transcripts/mini-flickr8k.parquet", "data/states/mini-flickr8k"
    before, states_before = read_table(folder / table), sha256_tree(folder / states)
    first, second, third, *_ = (row["utterance_id"] for row in before)
    name = "aud2trans_mini-flickr8k.txt"
    (folder / name).write_text(f"{first}# A dog\n{third}#\n")
    values = yaml.safe_load((folder / "params.yaml").read_text())
    source = values["sources"]["mini-flickr8k"]
    source["files"][name] = {"url": name, "sha256": None}
    source["transcripts"] = [name]
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    for each in ("download", "validate", "transcribe"):
        stage(folder, each, "mini-flickr8k")
    after = {row["utterance_id"]: row for row in read_table(folder / table)}
    assert (after[first]["text"], after[third]["text"]) == ("A dog", "")
    assert after[first]["asr_model"] == "imported"
    assert after[first]["avg_logprob"] is None
    # In another batch now: equal but for rounding.
    scores = ("avg_logprob", "no_speech_prob", "compression_ratio")
    for name, value in before[1].items():
        expected = pytest.approx(value, rel=1e-3) if name in scores else value
        assert after[second][name] == expected, name
    # The acoustic channel hears everything as before.
    assert sha256_tree(folder / states) == states_before


def test_the_other_engine_fills_the_same_rows(
    line: Line, tmp_path: Path, stage: Callable[..., None]
) -> None:
    pytest.importorskip("ctranslate2")
    folder = line.copy(tmp_path / "project")
    table = folder / "data/transcripts/mini-ravdess.parquet"
    before = read_table(table)
    values = yaml.safe_load((folder / "params.yaml").read_text())
    values["asr"] |= {"engine": "faster-whisper", "precision": "fp32"}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    stage(folder, "transcribe", "mini-ravdess")
    after = read_table(table)
    told = ("utterance_id", "text", "num_windows", "num_frames", "status", "temperature")
    assert [[row[key] for key in told] for row in after] == [
        [row[key] for key in told] for row in before
    ]
    assert {row["asr_model"] for row in after} == {"mini-whisper (faster-whisper)"}


@pytest.mark.slow
def test_two_processes_transcribe_as_one_does(
    line: Line, tmp_path: Path, stage: Callable[..., None]
) -> None:
    folder = line.copy(tmp_path / "project")
    outputs = ("data/transcripts/mini-lncoco.parquet", "data/states/mini-lncoco")
    before = [sha256_tree(folder / path) for path in outputs]
    values = yaml.safe_load((folder / "params.yaml").read_text())
    values["runtime"]["transcribe_workers"] = 2
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    stage(folder, "transcribe", "mini-lncoco")
    assert [sha256_tree(folder / path) for path in outputs] == before


@pytest.mark.slow
def test_two_processes_train_the_same_models_with_the_same_threads(
    line: Line, tmp_path: Path, stage: Callable[..., None]
) -> None:
    folder = line.copy(tmp_path / "project")
    values = yaml.safe_load((folder / "params.yaml").read_text())
    threads = torch.get_num_threads()
    made = []
    try:
        for workers, num_threads in ((1, 1), (2, 2)):
            values["runtime"]["train_workers"] = workers
            (folder / "params.yaml").write_text(yaml.safe_dump(values))
            torch.set_num_threads(num_threads)
            shutil.rmtree(folder / "work/train")
            stage(folder, "train", "mini-flickr8k-full")
            made.append(sha256_tree(folder / "models/mini-flickr8k-full"))
    finally:
        torch.set_num_threads(threads)
    assert made[0] == made[1]


@pytest.mark.slow
def test_processes_that_share_each_batch_make_the_models_of_the_stage(
    line: Line, tmp_path: Path
) -> None:
    """Of every seed, one; what torchrun has to say of it is not for whoever reads the terminal."""
    folder = line.copy(tmp_path / "project")
    values = yaml.safe_load((folder / "params.yaml").read_text())
    values["runtime"]["train_processes"] = 2
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    shutil.rmtree(folder / "work/train")
    command = [sys.executable, "-m", "brewline.stages.train", "mini-lncoco-full"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "torch" not in done.stderr
    made = sorted((folder / "models/mini-lncoco-full").iterdir())
    assert [load_card(model).seed for model in made] == [0, 1]
    values["recipes"]["mini"]["batch_size"] = 5
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "error: a batch of 5 cannot be shared equally by 2 processes; change the recipe's "
        "batch_size or runtime.train_processes"
    ]


@pytest.mark.slow
def test_training_goes_on_after_kill_9(line: Line, tmp_path: Path) -> None:
    folder = line.copy(tmp_path / "project")
    before = sha256_tree(folder / "models/mini-lncoco-full")
    shutil.rmtree(folder / "work/train")
    command = [sys.executable, "-m", "brewline.stages.train", "mini-lncoco-full"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(folder.glob("work/train/*/seed-*/checkpoint.pt")):
        pass
    process.kill()
    process.wait()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    assert sha256_tree(folder / "models/mini-lncoco-full") == before


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that are trained from now on, in their order."""
    seeds = []
    train = loop.train

    def watch(job: loop.TrainingJob, *others: Any, **named: Any) -> Any:
        seeds.append(job.seed)
        return train(job, *others, **named)

    monkeypatch.setattr(loop, "train", watch)
    return seeds


def test_one_more_seed_trains_that_seed_alone(
    line: Line, tmp_path: Path, stage: Callable[..., None], trained: list[int]
) -> None:
    folder = line.copy(tmp_path / "project")
    models = folder / "models/mini-lncoco-full"
    before = [sha256_tree(models / f"seed-{seed}") for seed in (0, 1)]
    with changed_params(folder) as values:
        values["recipes"]["mini"]["seeds"] = [0, 1, 2]
    # As DVC does before it runs a stage.
    shutil.rmtree(models)
    stage(folder, "train", "mini-lncoco-full")
    assert trained == [2]
    assert sorted(path.name for path in models.iterdir()) == ["seed-0", "seed-1", "seed-2"]
    assert [sha256_tree(models / f"seed-{seed}") for seed in (0, 1)] == before
    assert sha256_tree(models / "seed-2") not in before


@pytest.mark.parametrize(
    "damaged", ["model/model.safetensors", "model/model.json", "finished.json"]
)
def test_a_damaged_finished_seed_is_trained_anew(
    line: Line, tmp_path: Path, stage: Callable[..., None], trained: list[int], damaged: str
) -> None:
    folder = line.copy(tmp_path / "project")
    before = sha256_tree(folder / "models/mini-lncoco-prompted")
    (kept,) = folder.glob("work/train/mini-lncoco-prompted/seed-1-*")
    content = (kept / damaged).read_bytes()
    (kept / damaged).write_bytes(content[: len(content) // 2])
    stage(folder, "train", "mini-lncoco-prompted")
    assert trained == [1]
    assert sha256_tree(folder / "models/mini-lncoco-prompted") == before
    stage(folder, "train", "mini-lncoco-prompted")
    assert trained == [1]


def test_without_a_recipe_the_models_of_another_experiment_are_measured(line: Line) -> None:
    for name in ("seed-0", "seed-1"):
        theirs = line.folder / "models/mini-lncoco-full" / name
        ours = line.folder / "models/mini-flickr8k-full-of-lncoco" / name
        tensors = [(folder / "model.safetensors").read_bytes() for folder in (ours, theirs)]
        assert tensors[0] == tensors[1]
        card, theirs_card = load_card(ours), load_card(theirs)
        assert (card.corpus, card.trained_on) == ("mini-flickr8k", "mini-lncoco")
        assert card.init == {"experiment": "mini-lncoco-full", "sha256": sha256_tree(theirs)}
        assert (card.data, card.recipe) == (theirs_card.data, theirs_card.recipe)


def vectors_by_open_clip(folder: Path, corpus: str) -> dict[str, dict[str, np.ndarray]]:
    """What somebody without Brewline makes of transcripts and pictures: open_clip as it is."""
    clip, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}/published/clip")
    tokenise = open_clip.get_tokenizer(f"local-dir:{folder}/published/clip")
    clip.eval()
    heard = pandas.read_parquet(folder / f"data/transcripts/{corpus}.parquet")
    manifest = pandas.read_parquet(folder / f"data/manifest/{corpus}.parquet")
    image_of = dict(zip(manifest.utterance_id, manifest.image_id, strict=True))
    found: dict[str, dict[str, np.ndarray]] = {"utterances": {}, "images": {}}
    with torch.no_grad():
        for name, text in zip(heard.utterance_id, heard.text, strict=True):
            found["utterances"][name] = clip.encode_text(tokenise([text]))[0].numpy()
        for shard in sorted((folder / "data/shards" / corpus).rglob("*.tar")):
            with tarfile.open(shard) as archive:
                for member in archive:
                    key, _, suffix = Path(member.name).name.partition(".")
                    if suffix == "jpg":
                        picture = Image.open(archive.extractfile(member))
                        pixels = preprocess(picture)[None]
                        found["images"][image_of[key]] = clip.encode_image(pixels)[0].numpy()
    return found


def test_vectors_of_others_are_measured_as_ours_are(line: Line, tmp_path: Path) -> None:
    """Those that open_clip gives, of another length and in another order, are our zero-shot row."""
    folder = line.copy(tmp_path / "project")
    rng = np.random.default_rng(0)
    for name, vectors in vectors_by_open_clip(folder, "mini-flickr8k").items():
        ids = rng.permutation(sorted(vectors))
        frame = pandas.DataFrame({"id": ids, "vector": [3.5 * vectors[one] for one in ids]})
        frame.to_parquet(folder / f"{name}.parquet")
    before = (folder / "reports/registration.json").read_bytes()
    with changed_params(folder) as values:
        files = {"utterances": "utterances.parquet", "images": "images.parquet"}
        values["external"]["peer"] = {"data": "mini-flickr8k", **files}
        values["tables"]["mini-flickr8k"]["rows"]["speechclip"] = "peer"
    run_stage(folder, "external", "peer")
    for stage in ("score", "analyse"):
        run_stage(folder, stage, "mini-flickr8k")
    for stage in ("register", "report"):
        run_stage(folder, stage)
    metrics = json.loads((folder / "metrics/mini-flickr8k.json").read_text())
    theirs, ours = metrics["speechclip"], metrics["zero-shot"]
    assert theirs.keys() == ours.keys()
    assert theirs == pytest.approx(ours, abs=1e-6)
    ranks = pandas.read_parquet(folder / "reports/evaluation/mini-flickr8k/test_ranks.parquet")
    by_model = {name: list(one["rank"]) for name, one in ranks.groupby("model")}
    assert by_model["peer/external"] == by_model["mini-flickr8k-zero-shot/frozen"]
    buckets = (folder / "reports/evaluation/mini-flickr8k/buckets.csv").read_text()
    assert "speechclip" in buckets
    assert (folder / "reports/registration.json").read_bytes() == before
    page = (folder / "reports/index.html").read_text()
    assert "computed by others, from speech" in page
    # Its interval covers no other training, so nobody says that it is better or worse.
    assert "speechclip is better" not in page
    assert "speechclip is worse" not in page


def test_an_experiment_that_takes_models_over_reads_its_own_states(
    line: Line, tmp_path: Path, stage: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = line.copy(tmp_path / "project")
    name = "mini-flickr8k-full-of-lncoco"
    vectors = folder / "data/embeddings/mini-flickr8k" / name
    before = sha256_tree(vectors)
    for kind in ("shards", "states"):
        shutil.rmtree(folder / "data" / kind / "mini-lncoco")
    stage(folder, "train", name)
    stage(folder, "embed", name)
    assert sha256_tree(vectors) == before
    shutil.rmtree(folder / "data/states/mini-flickr8k")
    with pytest.raises(SystemExit):
        stage(folder, "embed", name)
    assert "data/states/mini-flickr8k" in capsys.readouterr().err


def test_training_starts_from_the_models_of_init(
    line: Line, tmp_path: Path, stage: Callable[..., None]
) -> None:
    folder = line.copy(tmp_path / "project")
    with changed_params(folder) as values:
        # So slow that a model stays where it began.
        values["recipes"]["still"] = values["recipes"]["mini"] | {"learning_rate": 1e-12}
        start = values["experiments"]["mini-lncoco-full"]
        values["experiments"]["more"] = start | {"recipe": "still", "init": "mini-lncoco-full"}
        values["experiments"]["scratch"] = start | {"recipe": "still"}
    for name in ("scratch", "more"):
        stage(folder, "train", name)

    def first_loss(experiment: str, seed: str) -> float:
        history = folder / "models" / experiment / seed / "history.jsonl"
        return float(json.loads(history.read_text().splitlines()[0])["loss"])

    for seed in ("seed-0", "seed-1"):
        theirs = folder / "models/mini-lncoco-full" / seed
        assert first_loss("scratch", seed) == first_loss("mini-lncoco-full", seed)
        assert first_loss("more", seed) != first_loss("scratch", seed)
        ours, start = load_tensors(folder / "models/more" / seed), load_tensors(theirs)
        torch.testing.assert_close(ours, start)
        card = load_card(folder / "models/more" / seed)
        assert card.init == {"experiment": "mini-lncoco-full", "sha256": sha256_tree(theirs)}
        assert card.trained_on == "mini-lncoco"


@pytest.mark.slow
def test_every_stage_works_where_work_is_another_disk(line: Line, tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("this machine has no second file system at /dev/shm")
    outputs = ("data", "metrics", "models", "reports")
    folder = tmp_path / "project"
    shutil.copytree(
        line.folder, folder, ignore=shutil.ignore_patterns(*outputs, "work", "mlflow.db*")
    )
    make_tracked(folder)
    with tempfile.TemporaryDirectory(dir=other) as work:
        (folder / "work").symlink_to(work)
        run_line(folder)
        # It was there that they worked.
        assert list(Path(work).glob("train/*/*/finished.json"))
    for name in outputs:
        assert sha256_tree(folder / name) == sha256_tree(line.folder / name), name


def test_too_many_dropped_recordings_stop_the_line_and_say_why(
    line: Line, tmp_path: Path, stage: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = line.copy(tmp_path / "project")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["validate"]["max_quarantine_rate"] = 0.05
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(SystemExit) as stop:
        stage(folder, "validate", "mini-lncoco")
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert "quarantine_rate" in message
    assert "Traceback" not in message
    assert (
        json.loads((folder / "work/failures/validate@mini-lncoco.json").read_text())["kind"]
        == "data"
    )


@pytest.mark.parametrize("name", ["weights", "download"])
def test_a_damaged_source_is_named_and_leaves_the_outputs(
    line: Line,
    tmp_path: Path,
    stage: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    folder = line.copy(tmp_path / "project")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    if name == "weights":
        source, arguments = folder / "published/whisper.pt", []
        entry = params["backbones"]["whisper"]
        output = "models/backbones"
    else:
        source, arguments = folder / "published/mini-flickr8k/Images.tar", ["mini-flickr8k"]
        entry = params["sources"]["mini-flickr8k"]["files"]["Images.tar"]
        output = "data/raw/mini-flickr8k"
    # A new version, of which less arrived than was published.
    new = source.read_bytes() + bytes(512)
    entry["sha256"] = hashlib.sha256(new).hexdigest()
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    before = sha256_tree(folder / output)
    source.write_bytes(new[:-1])
    with pytest.raises(SystemExit):
        stage(folder, name, *arguments)
    message = capsys.readouterr().err
    assert source.name in message
    assert entry["sha256"] in message
    assert sha256_tree(folder / output) == before


def test_an_unknown_corpus_lists_the_known_ones(
    line: Line, stage: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        stage(line.folder, "validate", "mini-lcoco")
    message = capsys.readouterr().err
    assert "did you mean 'mini-lncoco'? known: mini-flickr8k, mini-lncoco" in message


def test_emotions_are_fine_tuned_by_fold_and_stand_beside_the_probe(
    line: Line, tmp_path: Path
) -> None:
    folder = line.copy(tmp_path / "project")
    with changed_params(folder) as values:
        tuned = values["experiments"]["mini-ravdess-full"] | {"recipe": "mini"}
        folds = {"labels": "strict4", "protocol": "by_speaker", "speaker_folds": 2}
        values["experiments"]["tuned"] = tuned | {"fine_tuning": folds}
        values["probes"]["mini-ravdess"]["rows"]["tuned"] = "tuned"
    for stage in ("train", "embed"):
        run_stage(folder, stage, "tuned")
    run_stage(folder, "probe", "mini-ravdess")
    run_stage(folder, "report")
    places = {
        path.parent.relative_to(folder / "models/tuned")
        for path in (folder / "models/tuned").rglob("model.json")
    }
    assert {place.as_posix() for place in places} == {
        f"seed-{seed}/fold-{fold}" for seed in (0, 1) for fold in (0, 1)
    }
    cards = [load_card(folder / "models/tuned" / place) for place in places]
    assert all(card.init["experiment"] == "mini-lncoco-full" for card in cards)
    # Each recording is answered by the model that did not hear its speaker.
    manifest = read_table(folder / "data/manifest/mini-ravdess.parquet")
    for seed in (0, 1):
        path = folder / f"data/embeddings/mini-ravdess/tuned/seed-{seed}.safetensors"
        found = load_features(path)
        assert sorted(found.utterance_ids) == sorted(row["utterance_id"] for row in manifest)
    metrics = json.loads((folder / "metrics/probe/mini-ravdess.json").read_text())
    assert metrics["tuned/fine-tuned"]["num_seeds"] == 2
    assert "tuned: fine-tuned" in (folder / "reports/index.html").read_text()
    assert "fine-tuned" in (folder / "reports/papers/table-3.md").read_text()
