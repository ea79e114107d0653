"""Places for work that uses the machine, which the kernel gives and takes back."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from brewline.core.locks import is_held, locked, slot

HOLDER = """
import sys, time
from pathlib import Path
from brewline.core.locks import slot
with slot(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """A process that holds the only place of a project."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_one_waits_for_the_other_and_says_for_whom(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    told: list[str] = []

    def say(who: str) -> None:
        told.append(who)
        # Who is killed has freed the place: nobody has to ask for it, or to wait for a lease.
        holder.send_signal(signal.SIGKILL)

    started = time.monotonic()
    with slot(tmp_path, on_busy=say):
        assert told == [str(holder.pid)]
    assert time.monotonic() - started < 5


def test_a_second_place_is_free_while_the_first_is_taken(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    with slot(tmp_path, how_many=2, on_busy=lambda who: pytest.fail(f"waited for {who}")):
        pass
    holder.kill()


def test_no_more_at_a_time_than_there_are_places(tmp_path: Path) -> None:
    now, most, guard = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal now, most
        with slot(tmp_path, how_many=2):
            with guard:
                now += 1
                most = max(most, now)
            time.sleep(0.1)
            with guard:
                now -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


def test_what_goes_wrong_inside_is_told_and_frees_the_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), slot(tmp_path):
        raise ValueError("inside")
    with slot(tmp_path, on_busy=lambda who: pytest.fail(f"waited for {who}")):
        pass


def test_a_lock_is_held_while_somebody_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "one.lock"
    assert not is_held(path)
    assert not path.exists()
    with ExitStack() as stack:
        stack.enter_context(locked(path))
        assert is_held(path)
        assert path.read_text() == str(os.getpid())
    assert not is_held(path)
