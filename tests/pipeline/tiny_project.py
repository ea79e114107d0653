"""A tiny project: its corpora and weights, the whole line over it in this process, DVC and git."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from world import make_clip, make_flickr8k, make_lncoco, make_ravdess, make_whisper, tone_limits

PROJECT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# In git, so that the folders are there: what stands for nothing, and what may stay empty.
TRACKED = (
    "data/states/none/.gitkeep",
    "metrics/.gitkeep",
    "models/none/.gitkeep",
    "reports/analysis/.gitkeep",
    "reports/emotion/.gitkeep",
    "reports/evaluation/.gitkeep",
    "reports/sounds/.gitkeep",
)


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Works in `folder`, with its MLflow store."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_stage(folder: Path, stage: str, *arguments: str) -> None:
    """Runs a stage's program in this process, as DVC would in another."""
    module = __import__(f"brewline.stages.{stage}", fromlist=["main"])
    before = sys.argv
    sys.argv = [stage, *arguments]
    try:
        with inside(folder):
            module.main()
    finally:
        sys.argv = before


def tiny_params(folder: Path) -> dict[str, Any]:
    """The shipped parameters over the tiny corpora, at sizes that take seconds."""
    values: dict[str, Any] = yaml.safe_load((PROJECT / "params.yaml").read_text())
    drop_clips(values)
    for corpus, source in values["sources"].items():
        files = sorted(p for p in (folder / "published" / corpus).rglob("*") if p.is_file())
        source["files"] = {
            path.relative_to(folder / "published" / corpus).as_posix(): {
                "url": path.relative_to(folder).as_posix(),
                "sha256": None,
            }
            for path in files
        }
    # A speaker of four is a third of the training speakers.
    values["sources"]["mini-ravdess"]["dev_fraction"] = 0.34
    values["backbones"]["whisper"] |= {"source": "published/whisper.pt", "sha256": None}
    values["backbones"]["clip"] |= {"source": "published/clip", "sha256": None}
    values["validate"] = tone_limits() | {"max_quarantine_rate": 0.3}
    # A random model is sure of nothing.
    values["asr"] |= {"max_tokens": 5, "batch_size": 4, "temperatures": [0.0]}
    values["shard"]["utterances_per_shard"] = 5
    for variant in values["variants"].values():
        if "acoustic" in variant:
            small = {"heads": 2, "feedforward_width": 32}
            variant["acoustic"] |= {key: small[key] for key in small if key in variant["acoustic"]}
    for recipe in ("mini", "mini-e2e"):
        values["recipes"][recipe] |= {"seeds": [0, 1], "steps": 6, "batch_size": 4}
        values["recipes"][recipe] |= {"warmup_steps": 2, "evaluate_every": 3, "precision": "fp32"}
    # Four speakers, and two emotions that are in every label set.
    values["probes"]["mini-ravdess"] |= {"speaker_folds": 2, "labels": ["strict4"]}
    values["evaluate"] |= {"bootstrap_samples": 50, "num_examples": 4}
    values["tracking"]["system_metrics"] = False
    values["runtime"] |= {"checkpoint_every_s": 0, "transcribe_workers": 1, "train_workers": 1}
    return values


def drop_clips(values: dict[str, Any]) -> None:
    """Takes out the corpus of clips and its models, which are tested by themselves."""
    clips = {table["data"] for table in values["sound_tables"].values()}
    values["corpora"] = [name for name in values["corpora"] if name not in clips]
    kept = {k: one for k, one in values["experiments"].items() if one["data"] not in clips}
    values |= {"experiments": kept, "sound_tables": {}}


def make_project(folder: Path) -> dict[str, str]:
    """Writes the corpora, the weights and `params.yaml`.

    Returns:
        The corrupted utterances of mini-lncoco with the reason that must catch each.
    """
    published = folder / "published"
    make_flickr8k(published / "mini-flickr8k")
    planted = make_lncoco(published / "mini-lncoco")
    make_ravdess(published / "mini-ravdess")
    make_whisper(published / "whisper.pt")
    make_clip(published / "clip")
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny_params(folder), sort_keys=False))
    shutil.copytree(PROJECT / "mlflow", folder / "mlflow")
    for name in ("published.yaml", "requirements.lock", "versions.yaml"):
        shutil.copy(PROJECT / name, folder)
    make_tracked(folder)
    return planted


def make_tracked(folder: Path) -> None:
    """Makes the files that git keeps among the outputs."""
    for name in TRACKED:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()


@contextmanager
def changed_params(folder: Path) -> Iterator[dict[str, Any]]:
    """Gives what `params.yaml` holds, and writes what became of it."""
    path = folder / "params.yaml"
    values = yaml.safe_load(path.read_text())
    yield values
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def in_order(experiments: dict[str, Any]) -> list[str]:
    """The names of experiments, each after the one that it starts from."""
    found: list[str] = []
    while len(found) < len(experiments):
        ready = ("none", *found)
        new = [name for name, one in experiments.items() if one["init"] in ready]
        found += [name for name in new if name not in found]
    return found


def run_line(folder: Path) -> None:
    """Runs every stage in order."""
    values = yaml.safe_load((folder / "params.yaml").read_text())
    run_stage(folder, "weights")
    for stage in ("places", "download", "inspect", "validate", "transcribe", "assess", "shard"):
        for corpus in values["corpora"]:
            run_stage(folder, stage, corpus)
    for experiment in in_order(values["experiments"]):
        run_stage(folder, "train", experiment)
        run_stage(folder, "embed", experiment)
    for table in values["tables"]:
        run_stage(folder, "score", table)
        run_stage(folder, "analyse", table)
    for corpus in values["probed_corpora"]:
        run_stage(folder, "layers", corpus)
    for probe in values["probes"]:
        run_stage(folder, "probe", probe)
    run_stage(folder, "register")
    run_stage(folder, "report")


class Line:
    """A project whose line has run."""

    def __init__(self, folder: Path, planted: dict[str, str]) -> None:
        self.folder = folder
        self.planted = planted

    def copy(self, target: Path) -> Path:
        """A copy that a test may change."""
        shutil.copytree(self.folder, target)
        return target


def run(folder: Path, *command: str | Path) -> str:
    """Runs a program to its end and returns what it printed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dvc(folder: Path, *arguments: str) -> str:
    """Runs DVC and returns what it printed."""
    return run(folder, BIN / "dvc", *arguments)


def git(folder: Path, *arguments: str) -> str:
    """Runs git as somebody and returns what it printed."""
    somebody = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    return run(folder, "git", *somebody, *arguments)


def copy_project(source: Path, target: Path) -> Path:
    """A copy of a project under git and DVC that a test may change."""
    shutil.copytree(source, target, symlinks=True)
    return target
