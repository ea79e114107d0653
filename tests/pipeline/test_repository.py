"""A project without git: a ZIP of it, or a machine where git is not installed."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_project import PROJECT, TRACKED

from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path
from brewline.tracking.runs import NO_COMMIT, source_tags
from flows.graph import changes
from flows.repository import git_trouble, let_dvc_run_without_git
from flows.workspace import make_workspace, workspace_of


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one stage, as a ZIP would leave it."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  one:\n    cmd: echo 1 > one.txt\n    outs: [one.txt]\n"
    )
    monkeypatch.chdir(tmp_path)
    # Set and removed, so that it is removed again in the end.
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", "")
    monkeypatch.delenv("DVC_SYSTEM_CONFIG_DIR")
    # The folder of temporary files may lie in somebody's repository.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    names = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True)


def dvc_repro(folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "dvc", "repro"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_dvc_runs_without_git(unpacked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not a git repository" in dvc_repro(unpacked).stderr
    let_dvc_run_without_git(unpacked)
    assert capsys.readouterr().err == (
        "this folder is no git repository: runs will say `no commit`; overrides and sweeps need "
        "git\n"
    )
    assert list(changes(unpacked)) == ["one"]
    done = dvc_repro(unpacked)
    assert done.returncode == 0, done.stderr
    assert (unpacked / "one.txt").read_text() == "1\n"
    # The choice is the command's: nothing of it stays in DVC's own settings.
    assert "no_scm" not in (unpacked / ".dvc/config").read_text()
    assert not (unpacked / ".dvc/config.local").exists()


def test_a_run_without_git_says_no_commit(unpacked: Path) -> None:
    tags = source_tags()
    assert tags["git_sha"] == NO_COMMIT == "no commit"
    assert "git_dirty" not in tags


def test_what_needs_a_commit_says_so(unpacked: Path) -> None:
    with pytest.raises(BrewlineError, match="in a clone of the last commit, and this folder is no"):
        make_workspace(unpacked, {"variants.full.alpha": 0.2})


def test_why_git_is_of_no_use(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_trouble(unpacked) == "this folder is no git repository"
    git(unpacked, "init")
    assert git_trouble(unpacked) == "this git repository has no commit yet"
    git(unpacked, "add", ".")
    git(unpacked, "commit", "--message", "first")
    assert git_trouble(unpacked) is None
    let_dvc_run_without_git(unpacked)
    assert "DVC_SYSTEM_CONFIG_DIR" not in os.environ
    (unpacked / ".git/HEAD").write_text("nonsense\n")
    assert git_trouble(unpacked) is not None
    monkeypatch.setenv("PATH", str(unpacked))
    assert git_trouble(unpacked) == "git is not installed"


def test_runs_of_the_same_overrides_share_a_workspace_however_close_they_start(
    unpacked: Path,
) -> None:
    for name in ("params.yaml", ".gitignore"):
        shutil.copy(PROJECT / name, unpacked)
    (unpacked / "dvc.lock").write_text("schema: '2.0'\n")
    (unpacked / "metrics").mkdir()
    git(unpacked, "init")
    git(unpacked, "add", ".")
    git(unpacked, "commit", "--message", "first")
    overrides = {"variants.full.alpha": 0.2}
    workspaces = unpacked / "work/workspaces"
    # What a run left that was killed while it made its own.
    (workspaces / f".{workspace_of(unpacked, overrides).name}.partial/dvc.lock").mkdir(parents=True)
    with ThreadPoolExecutor(3) as pool:
        made = {*pool.map(lambda _: make_workspace(unpacked, overrides), range(3))}
    assert made == {*workspaces.iterdir()} == {workspace_of(unpacked, overrides)}


def test_make_clean_leaves_what_git_keeps(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "Makefile", tmp_path)
    for name in (*TRACKED, "data/raw/a/b.tar", "models/none/c", "reports/index.html", "work/d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "models/linked").symlink_to(tmp_path / "metrics")
    for _ in range(2):
        subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    kept = {parent.as_posix() for name in TRACKED for parent in Path(name).parents}
    assert left == {"Makefile", *TRACKED, *kept} - {"."}


def test_what_a_killed_stage_left_half_written_is_no_input(unpacked: Path) -> None:
    """A stage that depends on a folder would become stale with it, and again without it."""
    (unpacked / ".dvcignore").write_text((PROJECT / ".dvcignore").read_text())
    (unpacked / "models/a").mkdir(parents=True)
    (unpacked / "models/a/model.json").write_text("{}")
    (unpacked / "dvc.yaml").write_text(
        "stages:\n  one:\n    cmd: echo 1 > one.txt\n    deps: [models]\n    outs: [one.txt]\n"
    )
    let_dvc_run_without_git(unpacked)
    with pytest.raises(RuntimeError), atomic_path(unpacked / "models/a/model.json") as partial:
        half_written = partial
        raise RuntimeError
    half_written.write_text("{")
    assert dvc_repro(unpacked).returncode == 0
    assert changes(unpacked) == {}
    half_written.unlink()
    assert changes(unpacked) == {}
