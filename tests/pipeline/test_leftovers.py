"""`brewline clean`: what a corpus or an experiment that is gone leaves behind."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tiny_project import dvc, inside

from brewline.cli import main

PIPELINE = {
    "stages": {
        "transcribe": {
            "foreach": "${corpora}",
            "do": {
                "cmd": "mkdir -p data && echo ${item} > data/${item}",
                "outs": ["data/${item}"],
            },
        },
        "train": {
            "foreach": "${experiments}",
            "do": {
                "cmd": "mkdir -p models/${item} && echo 1 > models/${item}/model",
                "outs": ["models/${item}"],
            },
        },
    }
}


def set_lists(folder: Path, corpora: list[str], experiments: list[str]) -> None:
    lists = {"corpora": corpora, "experiments": experiments}
    (folder / "params.yaml").write_text(yaml.safe_dump(lists))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two corpora and two experiments, all up to date, with work that they left."""
    dvc(tmp_path, "init", "--no-scm", "--quiet")
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    set_lists(tmp_path, ["old", "new"], ["gone", "here"])
    dvc(tmp_path, "repro", "--quiet")
    for path in (
        "transcribe/0123/batch.npz",
        "train/gone/seed-0-aa/finished.json",
        "train/here/seed-0-aa/finished.json",
        "train/here/seed-1-aa/checkpoint.pt",
    ):
        (tmp_path / "work" / path).parent.mkdir(parents=True)
        (tmp_path / "work" / path).write_text("x")
    return tmp_path


def clean(folder: Path, *options: str) -> int:
    with inside(folder):
        return main(["clean", *options])


def test_what_is_gone_is_named_and_then_removed(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_lists(project, ["new"], ["here"])
    (project / "models/.here.partial").mkdir()
    assert clean(project) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[:6]] == [
        "data/old",
        "models/.here.partial",
        "models/gone",
        "work/train/gone",
        "work/train/here/seed-1-aa",
        "work/transcribe/0123",
    ]
    assert "in dvc.lock, of no stage: train@gone, transcribe@old" in said
    assert "6 paths" in said
    assert (project / "data/old").exists()

    assert clean(project, "--yes") == 0
    assert "removed" in capsys.readouterr().out
    assert not (project / "data/old").exists()
    assert not (project / "models/gone").exists()
    assert (project / "data/new").exists()
    assert (project / "work/train/here/seed-0-aa/finished.json").exists()
    left = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    assert set(left) == {"transcribe@new", "train@here"}
    assert "up to date" in dvc(project, "status")
    assert clean(project) == 0
    assert capsys.readouterr().out == "nothing is left over\n"


def test_work_of_what_is_stale_is_kept(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A killed stage goes on with it."""
    for path in ("data/new", "models/here/model"):
        (project / path).unlink()
    assert clean(project) == 0
    assert "work/t" not in capsys.readouterr().out


def test_nothing_is_removed_while_a_stage_is_at_work(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = (
        "import time; from pathlib import Path; from brewline.core.locks import locked\n"
        "with locked(Path('work/locks/train@here.lock')):\n print('held', flush=True)\n"
        " time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", holder], cwd=project, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout
        assert child.stdout.readline() == "held\n"
        set_lists(project, ["new"], ["here"])
        started = time.monotonic()
        assert clean(project, "--yes") == 1
        assert time.monotonic() - started < 30
        assert "is at work in this project; wait until it ends" in capsys.readouterr().err
        assert (project / "data/old").exists()
    finally:
        child.kill()
        child.wait()
