"""Tasks that kill or stop their worker are lost alone; everything else is answered, in order."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from processes import alive

from brewline.core.workers import Lost, Worker, WorkerClosedError


def _answer(task: int | str) -> int:
    if task == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "leave":
        os._exit(3)
    if task == "hang":
        time.sleep(60)
    if task == "raise":
        raise LookupError("a mistake of ours")
    if task == "variable":
        return int(os.environ["BREWLINE_TEST"])
    if task == "pid":
        return os.getpid()
    return 2 * int(task)


def prepare() -> Callable[[int | str], int]:
    return _answer


def prepare_nothing() -> Callable[[int | str], int]:
    raise ImportError("something is not installed")


def die_before_work() -> Callable[[int | str], int]:
    os._exit(7)


def test_answers_come_in_order() -> None:
    with Worker(prepare, 10) as worker:
        assert list(worker.map(range(500))) == [2 * n for n in range(500)]
        # The same process takes the next tasks, and none.
        assert list(worker.map(iter([1, 2]))) == [2, 4]
        assert list(worker.map([])) == []


def test_a_task_that_dies_is_lost_alone() -> None:
    tasks: list[int | str] = list(range(100))
    tasks[10], tasks[11], tasks[70] = "die", "leave", "die"
    with Worker(prepare, 30) as worker:
        answers = list(worker.map(tasks))
    assert answers[10] == Lost("crash", "its process ended with SIGSEGV")
    assert answers[11] == Lost("crash", "its process ended with exit code 3")
    assert answers[70] == answers[10]
    kept = [n for n in range(100) if n not in (10, 11, 70)]
    assert [answers[n] for n in kept] == [2 * n for n in kept]


def test_a_task_that_hangs_is_given_up_and_its_neighbours_are_not() -> None:
    tasks: list[int | str] = [1, 2, "hang", 3]
    start = time.monotonic()
    with Worker(prepare, 0.5) as worker:
        answers = list(worker.map(tasks))
    assert answers == [2, 4, Lost("timeout", "not done after 0.5 s"), 6]
    assert time.monotonic() - start < 30


def test_the_next_chunk_is_in_work_and_no_other_is_taken() -> None:
    taken = 0

    def tasks() -> Iterator[int]:
        nonlocal taken
        for task in range(1_000_000):
            taken += 1
            yield task

    with Worker(prepare, 10, chunk_size=10) as worker:
        answers = worker.map(tasks())
        assert next(answers) == 0
        assert taken == 20


def test_who_stops_in_the_middle_is_not_answered_what_he_did_not_ask() -> None:
    with Worker(prepare, 10, chunk_size=2) as worker:
        for answer in worker.map(range(100)):
            if answer == 6:
                break
        assert list(worker.map([50])) == [100]
        # As where the error that stopped him holds what he was told.
        left = worker.map(range(100))
        assert next(left) == 0
        assert list(worker.map([51, 52, 53])) == [102, 104, 106]
        process = next(worker.map(["pid"]))
        left.close()  # type: ignore[attr-defined]
        assert list(worker.map(["pid"])) == [process]
        with pytest.raises(RuntimeError, match="a mistake of ours"):
            list(worker.map([1, "raise", 2, 3]))
        # Its process has ended; there is another one.
        assert list(worker.map([60])) == [120]


def test_who_waits_is_told_that_it_was_closed() -> None:
    with Worker(prepare, 60) as worker:
        worker.wait_until_ready()
        threading.Timer(0.5, worker.close).start()
        with pytest.raises(WorkerClosedError):
            list(worker.map(["hang"]))


def test_a_process_has_the_variables_that_it_is_given() -> None:
    with Worker(prepare, 10, environment={"BREWLINE_TEST": "7"}) as worker:
        assert list(worker.map(["variable"])) == [7]


def test_what_does_not_start_says_why() -> None:
    with (
        pytest.raises(RuntimeError, match="is not installed"),
        Worker(prepare_nothing, 10) as worker,
    ):
        list(worker.map([1]))
    with (
        pytest.raises(RuntimeError, match=r"does not start: .* exit code 7"),
        Worker(die_before_work, 10) as worker,
    ):
        list(worker.map([1]))


def test_the_process_ends_with_the_block() -> None:
    with Worker(prepare, 10) as worker:
        (pid,) = worker.map(["pid"])
    assert isinstance(pid, int)
    assert not psutil.pid_exists(pid)


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(
        "import sys, test_workers\n"
        "if __name__ == '__main__':\n"
        "    worker = test_workers.Worker(test_workers.prepare, 60)\n"
        "    print(next(worker.map(['pid'])), flush=True)\n"
        "    list(worker.map(['hang']))\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    command = [sys.executable, str(program)]
    environment = os.environ | {"PYTHONPATH": paths}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as parent:
        assert parent.stdout
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert not alive([worker], 20)
