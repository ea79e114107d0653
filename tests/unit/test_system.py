"""What differs between Linux and macOS: each way is tried here, whichever system this is."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from processes import alive

from brewline.core import locks
from brewline.core.errors import BrewlineError
from brewline.core.locks import locked
from brewline.core.system import flock, peak_memory_mb, usable_cores

# A parent that starts a process, says its id, and waits to be killed.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, *sys.argv[1:]])
print(child.pid, flush=True)
time.sleep(60)
"""
WATCHING = """
import os, time
from brewline.core import system
{how}
print("watching", flush=True)
time.sleep(60)
"""
BY_LOOKING = "system._look_for_parent(os.getppid(), ask_first=True)"
BY_KERNEL = "system.end_with_parent()"
SUPERVISED = """
import os, sys
from brewline.core import system
sleep = [sys.executable, "-c", "import time; print('started', flush=True); time.sleep(60)"]
raise SystemExit(system._run_while_alive(sleep, os.getppid()))
"""


def start(code: str) -> tuple["subprocess.Popen[str]", list[psutil.Process]]:
    """Runs code in a grandchild of this process; returns its parent, and it with its children."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    child = psutil.Process(int(parent.stdout.readline()))
    # It says that it is ready.
    assert parent.stdout.readline()
    return parent, [child, *child.children(recursive=True)]


@pytest.mark.parametrize(
    "code", [WATCHING.format(how=BY_KERNEL), WATCHING.format(how=BY_LOOKING), SUPERVISED]
)
def test_a_process_ends_with_its_parent(code: str) -> None:
    parent, family = start(code)
    assert all(process.is_running() for process in family)
    parent.kill()
    parent.wait()
    assert not alive(family, 5)


def begin_stage(parent: str) -> subprocess.CompletedProcess[str]:
    """Begins a stage with what `dvc.yaml` hands over; it says whom its own children would get."""
    code = "import brewline.stages, os; print('lives', os.environ.get('BREWLINE_PARENT'))"
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"BREWLINE_PARENT": parent},
        capture_output=True,
        text=True,
    )


def test_a_stage_whose_dvc_is_gone_before_it_looked_does_not_begin() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert begin_stage(str(gone.pid)).stdout == ""
    # A shell without PPID hands over nothing: whoever is the parent then is meant.
    for parent in (str(os.getpid()), ""):
        done = begin_stage(parent)
        assert done.stdout == "lives None\n", done.stderr


def test_signals_to_a_supervisor_reach_its_command() -> None:
    parent, (supervisor, command) = start(SUPERVISED)
    supervisor.send_signal(signal.SIGTERM)
    assert not alive([command], 5)
    parent.kill()
    parent.wait()


def test_a_supervisor_hands_on_the_exit_status() -> None:
    code = "import os, sys; from brewline.core import system\n"
    command = "[sys.executable, '-c', sys.argv[1]]"
    code += f"raise SystemExit(system._run_while_alive({command}, os.getppid()))"
    statuses = [
        subprocess.run([sys.executable, "-c", code, ended]).returncode
        for ended in ("raise SystemExit(3)", "import os; os.kill(os.getpid(), 9)", "")
    ]
    assert statuses == [3, 128 + 9, 0]


def test_a_command_ends_at_once_where_its_parent_is_gone() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = [sys.executable, "-m", "brewline.core.system", str(gone.pid)]
    done = subprocess.run([*command, sys.executable, "-c", "print('ran')"], capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")


def test_cores_and_memory_are_in_the_units_that_they_say() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    # This process has imported torch or not; Python alone takes ten.
    assert psutil.Process().memory_info().rss / 1024**2 <= peak_memory_mb() * 1.1 < 64 * 1024


def test_what_the_starter_of_a_process_held_is_not_counted() -> None:
    held = b"x" * (300 << 20)
    program = "from brewline.core.system import peak_memory_mb; print(peak_memory_mb())"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert peak_memory_mb() > len(held) >> 20
    assert 1 < float(told.stdout) < 200


def test_a_lock_is_waited_for_and_its_holder_named(tmp_path: Path) -> None:
    path = tmp_path / "new/lock"
    code = "import sys, pathlib, time; from brewline.core.locks import locked\n"
    code += "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(1)"
    holder = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    told: list[str] = []
    with locked(path, told.append):
        assert holder.wait(5) == 0
        assert path.read_text() == str(os.getpid())
    assert told == [str(holder.pid)]


def test_whoever_is_killed_frees_the_lock(tmp_path: Path) -> None:
    code = "import sys, pathlib, time; from brewline.core.locks import locked\n"
    code += "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    holder.stdout.readline()
    holder.kill()
    started = time.monotonic()
    with locked(path):
        assert time.monotonic() - started < 5
    holder.wait()


def test_shared_locks_keep_exclusive_ones_out(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as one, (tmp_path / "a").open("w") as other:
        assert flock(one, shared=True)
        assert flock(other, shared=True, wait=False)
        assert not flock(other, wait=False)


def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks, "flock", refuse)
    with (
        pytest.raises(BrewlineError, match=r"the disk of .* knows no file locks"),
        locked(tmp_path / "lock"),
    ):
        pass
