"""The whole line over a dozen videos: from files to a table of sounds, and to what words find."""

import csv
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_project import PROJECT, inside, make_tracked, run_stage
from world import make_clip, make_whisper

from brewline import cli
from brewline.tables.parquet import read_table

pytestmark = pytest.mark.slow

CORPUS = "mini-videos"
SAMPLE = PROJECT / "sample/corpora" / CORPUS
NUM_CLIPS = {"train": 12, "dev": 4, "test": 5}
ROWS = {"multiframe": f"{CORPUS}-multiframe", "text": f"{CORPUS}-text"}


def write_corpus(folder: Path) -> dict[str, str]:
    """Some videos of the miniature world.

    Returns:
        The videos that no model may hear, and why: one is cut, and one is not there.
    """
    folder.mkdir(parents=True)
    with (SAMPLE / "clips.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    chosen: list[str] = []
    for split, number in NUM_CLIPS.items():
        names = dict.fromkeys(row["video"] for row in listed if row["split"] == split)
        chosen += [*names][:number]
    cut, missing = chosen[0], chosen[1]
    with (folder / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, listed[0])
        table.writeheader()
        table.writerows(row for row in listed if row["video"] in chosen)
    shutil.copy(SAMPLE / "events.csv", folder)
    with (
        tarfile.open(SAMPLE / "videos.tar") as old,
        tarfile.open(folder / "videos.tar", "w") as new,
    ):
        for member in old:
            if member.name not in chosen or member.name == missing:
                continue
            source = old.extractfile(member)
            assert source is not None
            content = source.read()
            content = content[: len(content) // 2] if member.name == cut else content
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return {cut: "truncated", missing: "missing_audio"}


def write_params(folder: Path) -> None:
    values: dict[str, Any] = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    for name in ("encoded", "external", "tables", "probes"):
        values[name] = {}
    text = {"task": "audio_text", "init": ROWS["multiframe"], "recipe": "mini-sounds"}
    kept = values["experiments"][ROWS["multiframe"]]
    values |= {
        "corpora": [CORPUS],
        "probed_corpora": [],
        "experiments": {ROWS["multiframe"]: kept, ROWS["text"]: kept | text},
        "sound_tables": {CORPUS: {"data": CORPUS, "rows": ROWS, "baseline": "multiframe"}},
    }
    values["recipes"]["mini-sounds"] |= {"seeds": [0], "steps": 4, "batch_size": 4}
    values["recipes"]["mini-sounds"] |= {"warmup_steps": 1, "evaluate_every": 2}
    sound = values["variants"]["multiframe"]["sound"]
    # Of a tower that sees pictures of 32 pixels.
    sound |= {"patch": [32, 32], "stride": [32, 32]}
    files = values["sources"][CORPUS]["files"]
    for name in files:
        files[name] = {"url": f"published/{name}", "sha256": None}
    for role, name in (("whisper", "whisper.pt"), ("clip", "clip")):
        values["backbones"][role] |= {"source": f"published/{name}", "sha256": None}
    values["validate"]["max_quarantine_rate"] = 0.2
    values["evaluate"]["bootstrap_samples"] = 50
    values["tracking"]["system_metrics"] = False
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The finished line, and what was planted."""
    folder = tmp_path_factory.mktemp("clips")
    planted = write_corpus(folder / "published")
    make_whisper(folder / "published/whisper.pt")
    make_clip(folder / "published/clip")
    write_params(folder)
    shutil.copytree(PROJECT / "mlflow", folder / "mlflow")
    for name in ("published.yaml", "requirements.lock", "versions.yaml"):
        shutil.copy(PROJECT / name, folder)
    make_tracked(folder)
    run_stage(folder, "weights")
    for stage in ("places", "download", "inspect", "validate", "transcribe", "assess", "shard"):
        run_stage(folder, stage, CORPUS)
    for experiment in ROWS.values():
        run_stage(folder, "train", experiment)
        run_stage(folder, "embed", experiment)
    run_stage(folder, "score_sounds", CORPUS)
    run_stage(folder, "register")
    run_stage(folder, "report")
    return folder, planted


def test_what_cannot_be_heard_is_told_and_no_more(project: tuple[Path, dict[str, str]]) -> None:
    folder, planted = project
    kept = read_table(folder / f"data/manifest/{CORPUS}.parquet")
    dropped = read_table(folder / f"data/quarantine/{CORPUS}.parquet")
    assert {row["audio_path"]: row["reason"] for row in dropped} == planted
    splits = [row["split"] for row in kept]
    wanted = NUM_CLIPS | {"train": NUM_CLIPS["train"] - len(planted)}
    assert {split: splits.count(split) for split in wanted} == wanted


def test_both_tasks_are_measured_in_every_direction(project: tuple[Path, dict[str, str]]) -> None:
    folder, _ = project
    metrics = json.loads((folder / f"metrics/sounds/{CORPUS}.json").read_text())
    assert metrics.keys() == ROWS.keys()
    for row in metrics.values():
        for there, back in (("audio", "image"), ("audio", "frame"), ("audio", "text")):
            assert row[f"test/{there}_to_{back}/num_queries"] > 0
            assert row[f"test/{back}_to_{there}/num_queries"] > 0
        assert 0 <= row["test/time/segment_accuracy"] <= 1
    page = (folder / "reports/index.html").read_text(encoding="utf-8")
    assert f"Sounds: {CORPUS}" in page
    for row in ROWS:
        assert f">{row}<" in page


def test_words_find_the_clips(
    project: tuple[Path, dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = project
    model = f"{ROWS['text']}/seed-0"
    with inside(folder):
        assert cli.main(["search", "--text", "a red ball", "--model", f"models/{model}"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == f"best of {NUM_CLIPS['test']} clips ({CORPUS}, test, model {model}):"
    assert len(lines) == NUM_CLIPS["test"]
