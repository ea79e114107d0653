"""Kills `make run` ten times at random moments, and checks that it changes nothing in the end.

    python tests/interrupt.py [--kills 10] [--seed 0] [--folder DIR]

Clones this commit twice. One clone runs undisturbed; in the other, SIGKILL hits at random moments:
in turn DVC alone, as a careless `kill -9` does, or every process of the run. Then the second run
is left to finish, and every output and metric of the two is compared by hash. Takes about twice
the time of `make run`, and uses the environment of this checkout.
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

import psutil

PROJECT = Path(__file__).resolve().parents[1]


def clone(folder: Path) -> Path:
    """A fresh clone that shares this checkout's environment, but runs its own code."""
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(folder)], check=True)
    (folder / ".venv").symlink_to(PROJECT / ".venv")
    return folder


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Starts `make run` in a process group of its own."""
    return subprocess.Popen(
        # Without -o, make would install the clone into the environment that it only borrows.
        ["make", "-o", ".venv/.installed", "run"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "src")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill_dvc(run: subprocess.Popen[bytes]) -> None:
    """Kills the `dvc repro` of a run; its stage has to notice by itself."""
    for process in psutil.Process(run.pid).children(recursive=True):
        if "repro" in process.cmdline():
            process.kill()
            return


def kill_all(run: subprocess.Popen[bytes]) -> None:
    """Kills every process of a run at once, its Prefect server too."""
    for process in [*psutil.Process(run.pid).children(recursive=True), run]:
        with contextlib.suppress(psutil.Error):
            process.kill()


def outputs(folder: Path) -> dict[str, str]:
    """`dvc.lock` (the hash of every output) and the metrics, as text."""
    files = [folder / "dvc.lock", *sorted((folder / "metrics").glob("*.json"))]
    return {file.name: file.read_text() for file in files}


def main() -> int:
    """Returns 0 if nothing changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep the clones here")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="brewline-interrupt-"))
    moments = random.Random(arguments.seed)

    began = time.monotonic()
    quiet = clone(folder / "quiet")
    if start(quiet).wait() != 0:
        print("the undisturbed run failed")
        return 1
    undisturbed_s = time.monotonic() - began
    print(f"undisturbed run: {undisturbed_s:.0f} s", flush=True)

    disturbed = clone(folder / "disturbed")
    # What is left after a kill is shorter each time, so later kills come sooner.
    longest_s = 1.5 * undisturbed_s / arguments.kills
    run = start(disturbed)
    for number in range(arguments.kills):
        wait_s = moments.uniform(2, longest_s)
        try:
            print(f"kill {number + 1}: it had finished with code {run.wait(wait_s)}", flush=True)
            run = start(disturbed)
            continue
        except subprocess.TimeoutExpired:
            print(f"kill {number + 1}: after {wait_s:.0f} s", flush=True)
        if number % 2:
            # The run tries the stage again.
            kill_dvc(run)
        else:
            kill_all(run)
            run.wait()
            run = start(disturbed)
    if run.wait() != 0:
        print("the disturbed run failed")
        return 1

    expected, found = outputs(quiet), outputs(disturbed)
    different = [name for name in expected if found.get(name) != expected[name]]
    print(f"different: {', '.join(different)}" if different else "no difference")
    if not arguments.folder and not different:
        shutil.rmtree(folder)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
