"""Tasks that kill or stop their worker are lost alone; everything else is answered, in order."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from brewline.core.workers import Lost, WorkerPool


def _answer(task: int | str) -> int:
    if task == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "leave":
        os._exit(3)
    if task == "hang":
        time.sleep(60)
    if task == "raise":
        raise LookupError("a mistake of ours")
    if task == "pid":
        return os.getpid()
    return 2 * int(task)


def prepare() -> Callable[[int | str], int]:
    return _answer


def prepare_nothing() -> Callable[[int | str], int]:
    raise ImportError("something is not installed")


def die_before_work() -> Callable[[int | str], int]:
    os._exit(7)


@pytest.mark.parametrize("workers", [1, 2])
def test_answers_come_in_order(workers: int) -> None:
    with WorkerPool(prepare, workers, 10) as pool:
        assert list(pool.map(range(500))) == [2 * n for n in range(500)]
        # The same processes take the next tasks, and none.
        assert list(pool.map(iter([1, 2]))) == [2, 4]
        assert list(pool.map([])) == []


def test_a_task_that_dies_is_lost_alone() -> None:
    tasks: list[int | str] = list(range(100))
    tasks[10], tasks[11], tasks[70] = "die", "leave", "die"
    with WorkerPool(prepare, 2, 30) as pool:
        answers = list(pool.map(tasks))
    assert answers[10] == Lost("crash", "its process ended with SIGSEGV")
    assert answers[11] == Lost("crash", "its process ended with exit code 3")
    assert answers[70] == answers[10]
    kept = [n for n in range(100) if n not in (10, 11, 70)]
    assert [answers[n] for n in kept] == [2 * n for n in kept]


def test_a_task_that_hangs_is_given_up_and_its_neighbours_are_not() -> None:
    tasks: list[int | str] = [1, 2, "hang", 3]
    start = time.monotonic()
    with WorkerPool(prepare, 1, 0.5) as pool:
        answers = list(pool.map(tasks))
    assert answers == [2, 4, Lost("timeout", "not done after 0.5 s"), 6]
    assert time.monotonic() - start < 30


def test_tasks_are_taken_as_they_are_needed() -> None:
    """While the first task hangs, the others go on, but not without end."""
    taken = 0

    def tasks() -> Iterator[int | str]:
        nonlocal taken
        for task in ("hang", *range(1_000_000)):
            taken += 1
            yield task

    with WorkerPool(prepare, 2, 3.0) as pool:
        first = next(pool.map(tasks()))
    assert isinstance(first, Lost)
    assert 100 < taken < 10_000


def test_our_own_mistake_is_raised_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="a mistake of ours"), WorkerPool(prepare, 1, 10) as pool:
        list(pool.map([1, "raise"]))
    with (
        pytest.raises(RuntimeError, match="is not installed"),
        WorkerPool(prepare_nothing, 1, 10) as pool,
    ):
        list(pool.map([1]))
    with (
        pytest.raises(RuntimeError, match=r"does not start: .* exit code 7"),
        WorkerPool(die_before_work, 1, 10) as pool,
    ):
        list(pool.map([1]))


def test_workers_end_with_the_pool() -> None:
    with WorkerPool(prepare, 2, 10) as pool:
        pids = set(pool.map(["pid"] * 100))
    assert not any(psutil.pid_exists(pid) for pid in pids if isinstance(pid, int))


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(
        "import sys, test_workers\n"
        "if __name__ == '__main__':\n"
        "    pool = test_workers.WorkerPool(test_workers.prepare, 1, 60)\n"
        "    print(next(pool.map(['pid'])), flush=True)\n"
        "    list(pool.map(['hang']))\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    command = [sys.executable, str(program)]
    environment = os.environ | {"PYTHONPATH": paths}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as parent:
        assert parent.stdout
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    worker.wait(timeout=20)
