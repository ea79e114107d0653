"""A tiny project whose line has run once, the same under git and DVC, and `make ui` in it."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driving import Services
from tiny_project import PROJECT, Line, copy_project, dvc, git, make_project, run_line, run_stage


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The finished line; tests only look at it. The processes that run tests share one."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, planted = shared / "line", shared / "planted.json"
    # Whoever comes first makes it, and the others wait.
    with (shared / "line.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not planted.exists():
            folder.mkdir()
            corrupted = make_project(folder)
            run_line(folder)
            planted.write_text(json.dumps(corrupted))
    return Line(folder, json.loads(planted.read_text()))


@pytest.fixture
def stage() -> Callable[..., None]:
    """Runs one stage: `stage(folder, "validate", corpus)`."""
    return run_stage


@pytest.fixture(scope="session")
def dvc_project(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished line under git and DVC, its results committed without running it again."""
    folder = line.copy(tmp_path_factory.mktemp("dvc-line") / "project")
    no_caches = shutil.ignore_patterns("__pycache__")
    for name in ("src", "flows", "mlflow"):
        shutil.copytree(PROJECT / name, folder / name, ignore=no_caches, dirs_exist_ok=True)
    for name in ("dvc.yaml", ".gitignore", ".dvcignore", "requirements.lock"):
        shutil.copy(PROJECT / name, folder / name)
    git(folder, "init", "--quiet")
    dvc(folder, "init", "--quiet")
    shutil.copy(PROJECT / ".dvc/config", folder / ".dvc/config")
    dvc(folder, "commit", "--force", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "The tiny world")
    return folder


@pytest.fixture(scope="session")
def services(dvc_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """`make ui` in a project of its own."""
    project = copy_project(dvc_project, tmp_path_factory.mktemp("flüsse") / "project")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT", "MLFLOW"))
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.ui", "--prefect-port", "0", "--mlflow-port", "0"],
        cwd=project,
        # With the plainest shell DVC leaves a process between itself and a stage, if it may.
        env=environment | {"PYTHONPATH": str(project / "src"), "SHELL": "/bin/sh"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    printed = []
    for line in process.stdout:
        printed.append(line)
        if "Ctrl-C" in line:
            break
    addresses = re.findall(r"http://127\.0\.0\.1:\d+", "".join(printed))
    assert len(addresses) == 2, "".join(printed)
    yield Services(project, process, *addresses)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
