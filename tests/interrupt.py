"""Kills stages at random moments, runs each once more, and checks that nothing differs.

    python tests/interrupt.py [--kills 60] [--seed 0] [--folder DIR]

In a tiny project, stage after stage: SIGKILL hits DVC alone, the stage alone, or all of its
processes; every other time in the first two seconds of the stage. No process may be left ten
seconds later, and no lock or partial file after the next run, whose outputs and metrics are as
after an undisturbed run. Takes about a quarter of an hour on two cores.
"""

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / name) for name in ("src", "tests", "tests/pipeline")]

from driving import working_on  # noqa: E402
from tiny_project import BIN, dvc, git, make_project  # noqa: E402

from brewline.core.locks import is_held  # noqa: E402

WHOM = ("dvc", "stage", "all")
GONE_WITHIN_S = 10.0
LONGEST_S = 12.0


def make_tree(folder: Path) -> None:
    """A tiny project under git and DVC, whose line has run undisturbed."""
    folder.mkdir(parents=True)
    make_project(folder)
    for name in ("src", "flows", "mlflow"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / name, folder / name, ignore=ignored, dirs_exist_ok=True)
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(PROJECT / name, folder / name)
    git(folder, "init", "--quiet")
    dvc(folder, "init", "--quiet")
    shutil.copy(PROJECT / ".dvc/config", folder / ".dvc/config")
    dvc(folder, "repro", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "undisturbed")


def repro(folder: Path, stage: str) -> subprocess.Popen[bytes]:
    """Starts a forced run of one stage."""
    return subprocess.Popen(
        [BIN / "dvc", "repro", "--single-item", "--force", stage],
        cwd=folder,
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def stage_of(run: subprocess.Popen[bytes]) -> psutil.Process | None:
    """The process of the stage itself; None where there is none any more, or yet."""
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(run.pid).children():
            if any(word.startswith("brewline.stages.") for word in process.cmdline()):
                return process
    return None


def kill(run: subprocess.Popen[bytes], whom: str, moment_s: float) -> str | None:
    """Kills at a moment of a stage's life; returns what was hit, or None if all was over."""
    while stage_of(run) is None:
        if run.poll() is not None:
            return None
        time.sleep(0.01)
    time.sleep(moment_s)
    stage = stage_of(run)
    if stage is None or run.poll() is not None:
        return None
    family = [stage, *stage.children(recursive=True)]
    hit = {"dvc": [psutil.Process(run.pid)], "stage": [stage]}.get(whom)
    for process in hit or [psutil.Process(run.pid), *family]:
        with contextlib.suppress(psutil.Error):
            process.kill()
    run.wait()
    return f"{whom}, after {moment_s:.1f} s, {len(family)} processes"


def outputs(folder: Path) -> dict[str, Any]:
    """The hash of every output by stage, and the metrics as text."""
    locked = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    found: dict[str, Any] = {name: entry.get("outs") for name, entry in locked.items()}
    return found | {path.name: path.read_text() for path in (folder / "metrics").glob("*.json")}


def leftovers(folder: Path) -> list[str]:
    """Partial files outside of `work/`, and locks that somebody holds."""
    partial = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*partial*")
        if path.relative_to(folder).parts[0] not in ("work", "src", "flows", ".dvc", ".git")
    ]
    held = [path.name for path in (folder / "work").rglob("*.lock") if is_held(path)]
    return partial + held


def one_kill(folder: Path, stage: str, whom: str, moment_s: float) -> tuple[str | None, list[str]]:
    """Kills a stage and runs it again; returns what was hit, and what is wrong afterwards."""
    if stage.startswith("train@"):
        # Seeds that are finished would be taken as they are.
        shutil.rmtree(folder / "work/train" / stage.partition("@")[2], ignore_errors=True)
    hit = kill(repro(folder, stage), whom, moment_s)
    end = time.monotonic() + GONE_WITHIN_S
    while working_on(folder) and time.monotonic() < end:
        time.sleep(0.1)
    wrong = [f"process {process.pid} lives" for process in working_on(folder)]
    again = subprocess.run(
        # DVC would take the outputs of before from its cache, and run nothing.
        [BIN / "dvc", "repro", "--single-item", "--force", stage],
        cwd=folder,
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    if again.returncode:
        wrong.append(f"the next run failed: {(again.stdout + again.stderr)[-400:]}")
    return hit, wrong + leftovers(folder)


def main() -> int:
    """Returns 0 if nothing differs and nothing is left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="work here, and keep it")
    arguments = parser.parse_args()
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="brewline-interrupt-"))) / "project"
    moments = random.Random(arguments.seed)
    make_tree(folder)
    expected, stages = outputs(folder), dvc(folder, "stage", "list", "--name-only").split()
    moments.shuffle(stages)
    hits = bad = 0
    for number in range(arguments.kills):
        stage, whom = stages[number % len(stages)], WHOM[number % len(WHOM)]
        moment_s = moments.uniform(0, 2) if number % 2 else moments.uniform(2, LONGEST_S)
        hit, wrong = one_kill(folder, stage, whom, moment_s)
        now = outputs(folder)
        wrong += [f"{name} differs" for name in expected if now.get(name) != expected[name]]
        hits, bad = hits + (hit is not None), bad + bool(wrong)
        print(f"{number + 1:3} {stage}: {hit or 'it was over'}; {wrong or 'as before'}", flush=True)
    print(f"{hits} of {arguments.kills} kills hit; after {bad} of them something was wrong")
    if not arguments.folder and not bad:
        shutil.rmtree(folder.parent)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
