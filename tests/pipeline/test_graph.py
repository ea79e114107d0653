"""What DVC is asked while another DVC process works in the same folder."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_project import dvc

from brewline.core.errors import BrewlineError
from flows import graph

# Without a dependency it would be run every time, which says nothing of what is stale.
PIPELINE = "stages:\n  report:\n    cmd: python -m brewline.stages.report\n    deps: [a]\n"
# Holds DVC's lock as DVC does, for some seconds.
HOLDER = """
import sys, time
from dvc.lock import Lock
with Lock(".dvc/tmp/lock"):
    print("held", flush=True)
    time.sleep(float(sys.argv[1]))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    dvc(tmp_path, "init", "--no-scm", "--quiet")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / ".dvc/tmp").mkdir(exist_ok=True)
    return tmp_path


@pytest.fixture
def hold(project: Path) -> Iterator[Callable[[float], None]]:
    children = []

    def start(seconds: float) -> None:
        child = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(seconds)],
            cwd=project,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        assert child.stdout
        assert child.stdout.readline() == "held\n"

    yield start
    for child in children:
        child.kill()
        child.wait()


def test_dvc_that_is_busy_is_waited_for_with_a_sentence(
    project: Path, hold: Callable[[float], None]
) -> None:
    told: list[str] = []
    # DVC by itself gives up after three seconds.
    hold(6)
    assert graph.changes(project, on_wait=told.append)
    assert told == [f"another DVC process works in {project}: waiting"]


def test_dvc_that_stays_busy_ends_the_wait_in_a_sentence(
    project: Path, hold: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "DVC_WAIT_S", 0.0)
    hold(60)
    with pytest.raises(BrewlineError, match="another DVC process works in this folder") as caught:
        graph.changes(project)
    assert caught.value.kind == "busy"


def test_a_broken_dvc_yaml_is_told_in_dvcs_words(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages: 3\n")
    with pytest.raises(BrewlineError, match=r"dvc\.yaml"):
        graph.changes(project)
