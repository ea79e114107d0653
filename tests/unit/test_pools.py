"""Whatever ends the owner of a pool, nothing of the pool is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import alive, words_of

from brewline.core.devices import in_processes

# A task that says its id, and turns SIGTERM into an exception as a live run does, to say good-bye.
PROGRAM = """
import os, signal, sys, time
from brewline.core.devices import in_processes
from brewline.core.engine import Job, Processes, run_units

def leave(number, frame):
    raise SystemExit(143)

def work(task):
    signal.signal(signal.SIGTERM, leave)
    os.write(1, f"{os.getpid()}\\n".encode())
    time.sleep(120)

class Waiting(Job):
    limit_s = 600

    def prepare(self):
        return work

    def is_done(self, unit):
        return False

    def do(self, unit, worker):
        yield from worker.map([unit])

def executor():
    in_processes(work, [0, 1], 2)

def engine():
    list(run_units(Processes(2), Waiting(), [0, 1]))

if __name__ == "__main__":
    OWNER
    POOL()
"""
AS_A_LIVE_RUN = "signal.signal(signal.SIGTERM, leave)"
# The tests themselves may run under it, and what is ignored is inherited.
NOT_UNDER_NOHUP = "signal.signal(signal.SIGHUP, signal.SIG_DFL)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pool", "number", "owner"),
    [
        ("executor", signal.SIGKILL, AS_A_LIVE_RUN),
        ("executor", signal.SIGTERM, AS_A_LIVE_RUN),
        ("executor", signal.SIGHUP, NOT_UNDER_NOHUP),
        ("engine", signal.SIGKILL, AS_A_LIVE_RUN),
        ("engine", signal.SIGTERM, "pass"),
    ],
)
def test_nothing_of_a_pool_outlives_its_owner(
    tmp_path: Path, pool: str, number: signal.Signals, owner: str
) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.replace("OWNER", owner).replace("POOL", pool))
    running = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert running.stdout
    working = [psutil.Process(int(running.stdout.readline())) for _ in range(2)]
    family = [*psutil.Process(running.pid).children(recursive=True), *working]
    running.send_signal(number)
    assert not alive(family, 10)
    assert running.wait(10) != 0


def _fail_or_wait(task: Any) -> None:
    if task == "fail":
        raise ValueError("first")
    time.sleep(60)


def test_a_task_that_fails_ends_the_others_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match="first"):
        in_processes(_fail_or_wait, ["fail", "wait"], 2)
    assert time.monotonic() - started < 50
    children = psutil.Process(os.getpid()).children()
    assert not [child for child in children if "spawn_main" in " ".join(words_of(child))]
