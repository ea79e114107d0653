"""What lies outside the project and is read there: `dvc repro` looks, and DVC sees what changed."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas
import pytest
from tiny_project import BIN, PROJECT, changed_params, dvc
from world import encode_audio, tone, tone_limits

from flows.graph import changes, read_graph

STAGES = ("places", "look", "download", "inspect", "validate")


def recording(number: int, duration_s: float = 0.6) -> bytes:
    return encode_audio(tone(number, duration_s), "WAV", "PCM_16")


def write_table(place: Path) -> None:
    """A table that lists all that lies beside it."""
    names = sorted(path.name for path in place.glob("*.wav"))
    lines = ["audio,split", *(f"{name},test" for name in names), ""]
    (place / "index.csv").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody's corpus, which nobody copies."""
    folder = tmp_path_factory.mktemp("elsewhere") / "mine"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.wav").write_bytes(recording(number))
    write_table(folder)
    return folder


@pytest.fixture(scope="module")
def project(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with this corpus alone, up to its validation."""
    folder = tmp_path_factory.mktemp("places") / "project"
    folder.mkdir()
    shutil.copytree(PROJECT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", "versions.yaml", ".dvcignore"):
        shutil.copy(PROJECT / name, folder)
    with changed_params(folder) as values:
        values |= {"corpora": ["mine"], "watched": ["mine"], "experiments": {}, "tables": {}}
        values |= {"probed_corpora": [], "probes": {}, "sound_tables": {}}
        values["validate"] = tone_limits()
        mine = {"reader": "folder", "licence": "mine", "index": "index.csv"}
        values["sources"]["mine"] = mine | {"files": {"mine": {"url": str(place), "sha256": None}}}
    dvc(folder, "init", "--quiet", "--no-scm")
    shutil.copy(PROJECT / ".dvc/config", folder / ".dvc/config")
    dvc(folder, "config", "core.no_scm", "true")
    ran(folder)
    return folder


def ran(folder: Path, target: str = "validate") -> set[str]:
    """The stages that `dvc repro` runs, up to this one."""
    printed = dvc(folder, "repro", f"{target}@mine")
    return {stage for stage in STAGES if f"Running stage '{stage}@mine'" in printed}


def accepted(folder: Path) -> list[str]:
    """The names of the recordings that passed validation."""
    ids = pandas.read_parquet(folder / "data/manifest/mine.parquet")["utterance_id"]
    return sorted(name.removeprefix("mine_").split("-")[0] for name in ids)


def add(place: Path) -> None:
    (place / "3.wav").write_bytes(recording(3))
    write_table(place)


def replace_by_one_of_the_same_size(place: Path) -> None:
    size = (place / "1.wav").stat().st_size
    (place / "1.wav").write_bytes(recording(9))
    assert (place / "1.wav").stat().st_size == size


def remove(place: Path) -> None:
    (place / "0.wav").unlink()
    write_table(place)


def rename(place: Path) -> None:
    (place / "2.wav").rename(place / "two.wav")
    write_table(place)


@pytest.mark.slow
def test_what_becomes_of_a_place_is_noticed(project: Path, place: Path) -> None:
    for change in (add, replace_by_one_of_the_same_size, remove, rename):
        change(place)
        assert ran(project, "download") == {"look", "download"}, change.__name__
        assert ran(project, "download") == {"look"}, change.__name__
    before = accepted(project)
    assert ran(project) == {"look", "inspect", "validate"}
    assert (before, accepted(project)) == (["0", "1", "2"], ["1", "3", "two"])
    assert ran(project) == {"look"}


@pytest.mark.slow
def test_of_a_place_that_is_out_of_reach_one_sentence_says_so(project: Path, place: Path) -> None:
    away = place.with_name("unmounted")
    place.rename(away)
    try:
        done = subprocess.run(
            [BIN / "dvc", "repro", "validate@mine"],
            cwd=project,
            env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        away.rename(place)
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert f"{place} is missing on this machine" in told[0]
    # Back again, it is what it was.
    assert ran(project) == {"look"}


@pytest.mark.slow
def test_a_folder_in_place_has_to_be_watched(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "project"
    shutil.copytree(project, other, symlinks=True)
    with changed_params(other) as values:
        values["watched"] = []
    with pytest.raises(AssertionError, match=r"files.mine is a folder.*add mine to `watched`"):
        dvc(other, "repro", "validate@mine")
    assert "look@mine" not in {stage.name for stage in read_graph(other)}


def test_a_stage_that_looks_is_not_stale_of_itself(project: Path) -> None:
    ran(project)
    looking = {stage.name: stage.looks for stage in read_graph(project)}
    assert {name for name, looks in looking.items() if looks} == {"look@mine"}
    stale: dict[str, Any] = changes(project)
    assert stale.keys().isdisjoint({f"{stage}@mine" for stage in STAGES})
