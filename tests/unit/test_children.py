"""Children of a flow are heard as people would see them, and never outlive their time."""

import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from flows.children import Children, Line, Stopped, TimeLimitError

BAR = """
import time
from tqdm import tqdm
for _ in tqdm(range(4), "images", disable=None, mininterval=0):
    time.sleep(0.02)
print("done")
"""
FAMILY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("started", flush=True)
time.sleep(60)
"""


def run(code: str, folder: Path, time_limit_s: float | None = None) -> tuple[int, list[Line]]:
    lines: list[Line] = []
    command = [sys.executable, "-c", code]
    return Children().run(command, folder, os.environ, lines.append, time_limit_s), lines


def processes_in(folder: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cwd"])
        if process.info["cwd"] == str(folder) and process.status() != psutil.STATUS_ZOMBIE
    ]


def test_a_bar_is_drawn_and_its_share_is_read(tmp_path: Path) -> None:
    status, lines = run(BAR, tmp_path)
    assert status == 0
    shares = [line.percent for line in lines if line.redraw and line.percent is not None]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert {25.0, 50.0, 75.0} <= {*shares}
    assert lines[-1] == Line("done")


def test_a_child_out_of_time_is_ended_with_its_own_children(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(TimeLimitError):
        run(FAMILY, tmp_path, time_limit_s=2)
    assert time.monotonic() - started < 8
    assert not processes_in(tmp_path)


@pytest.mark.parametrize(
    ("text", "unfinished"),
    [
        ("  0% Committing data/facts/a to cache|        |0/3 [00:00<?,     ?file/s]", True),
        ("  0%|          |memory://.bA.tmp          0.00/154 [00:00<?,        ?B/s]", True),
        ("!", True),
        ("100%|##########| 3/3 [00:01<00:00,  2.00file/s]", False),
        ("5% of the recordings | failed", False),
        ("a line!", False),
    ],
)
def test_bars_that_are_left_unfinished_are_known(text: str, unfinished: bool) -> None:
    assert Line(text).is_unfinished_bar == unfinished


def test_children_of_several_threads_are_stopped_together(tmp_path: Path) -> None:
    children, begun, told = Children(), threading.Semaphore(0), []

    def wait_for_one() -> None:
        command = [sys.executable, "-c", FAMILY]
        try:
            children.run(command, tmp_path, os.environ, lambda _: begun.release())
        except Stopped:
            told.append("child")

    def sleep() -> None:
        try:
            children.pause(60)
        except Stopped:
            told.append("pause")

    threads = [threading.Thread(target=target) for target in (wait_for_one, wait_for_one, sleep)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        assert begun.acquire(timeout=20)
    started = time.monotonic()
    children.stop()
    for thread in threads:
        thread.join(10)
    assert time.monotonic() - started < 8
    assert sorted(told) == ["child", "child", "pause"]
    assert not processes_in(tmp_path)


def test_none_starts_once_they_are_stopped(tmp_path: Path) -> None:
    children = Children()
    children.stop()
    with pytest.raises(Stopped):
        children.run([sys.executable, "-c", ""], tmp_path, os.environ, print)
