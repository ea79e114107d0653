"""Child processes of a flow: heard line by line, limited in time, and never left behind."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

# Between asking a group to end and making it.
GRACE_S = 4.0
# Rows and columns.
_TERMINAL = (40, 100)
_READ_BYTES = 1 << 16
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PERCENT = re.compile(r"(\d{1,3})%\|")
# DVC draws bars below each other, and ends those that it leaves; of some only a mark is drawn.
_UNFINISHED_BAR = re.compile(r"^\s*\d{1,2}%.*\|.*\[\d+:\d\d|^!$")
_LINE_ENDS = re.compile(rb"(\r\n|\r|\n)")


@dataclass(frozen=True)
class Line:
    """What a child wrote: a line, or with `redraw` one state of a line that is drawn over."""

    text: str
    redraw: bool = False

    @property
    def percent(self) -> float | None:
        """How far the progress bar in this line is, or None where there is no bar."""
        found = _PERCENT.search(self.text)
        return min(100.0, float(found.group(1))) if found else None

    @property
    def is_unfinished_bar(self) -> bool:
        """Whether it is a progress bar that says nothing of its end."""
        return bool(_UNFINISHED_BAR.search(self.text))


class TimeLimitError(Exception):
    """A child ran longer than it may; its whole group was stopped."""


class Stopped(BaseException):
    """The flow is being stopped; raised in the threads that run its children.

    Like `KeyboardInterrupt` it is no error.
    """

    def __str__(self) -> str:
        return "the flow is being stopped"


class Children:
    """The children of a flow, of which threads may run one each.

    A signal reaches the main thread alone, which stops all of them.
    """

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._starting = threading.Lock()
        self._live: set[subprocess.Popen[bytes]] = set()

    def run(
        self,
        command: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        on_line: Callable[[Line], None],
        time_limit_s: float | None = None,
    ) -> int:
        """Runs a command to its end in a process group of its own.

        It writes to a pseudo-terminal, so that it shows the progress bars that it shows to people.
        However this function ends, by a signal to us too, nothing of the group is left running.

        Args:
            command: Program and arguments.
            cwd: Where it runs.
            environment: The whole environment of the child.
            on_line: Called with everything it writes.
            time_limit_s: When to stop it.

        Returns:
            Its exit status.

        Raises:
            TimeLimitError: it ran longer.
            Stopped: all children are being stopped.
        """
        ours, theirs = pty.openpty()
        # A new terminal has no columns, and bars that fit into none are not drawn.
        termios.tcsetwinsize(theirs, _TERMINAL)
        child = None
        try:
            child = self._start(command, cwd, environment, theirs)
            os.close(theirs)
            theirs = -1
            end = None if time_limit_s is None else time.monotonic() + time_limit_s
            for line in _lines(ours, end):
                on_line(line)
            status = child.wait()
            if self._stopped.is_set():
                raise Stopped
            return status
        finally:
            if theirs >= 0:
                os.close(theirs)
            if child is not None:
                stop_groups([child])
                self._live.discard(child)
            os.close(ours)

    def _start(
        self, command: Sequence[str], cwd: Path, environment: Mapping[str, str], terminal: int
    ) -> "subprocess.Popen[bytes]":
        with self._starting:
            if self._stopped.is_set():
                raise Stopped
            child = subprocess.Popen(
                # A flow that is killed takes the child with it; the child's own children follow.
                [sys.executable, "-m", "brewline.core.system", str(os.getpid()), *command],
                cwd=cwd,
                env=dict(environment) | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=terminal,
                start_new_session=True,
            )
            self._live.add(child)
        return child

    def pause(self, seconds: float) -> None:
        """Sleeps.

        Raises:
            Stopped: all children are being stopped.
        """
        if self._stopped.wait(seconds):
            raise Stopped

    def stop(self) -> None:
        """Stops all children; none starts any more."""
        with self._starting:
            self._stopped.set()
        stop_groups(list(self._live))


def stop_groups(children: "Collection[subprocess.Popen[bytes]]") -> None:
    """Ends every process of the children's groups: asks, waits four seconds, then kills."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        living = _living_groups(children)
        if not living:
            break
        for group in living:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)
        end = time.monotonic() + GRACE_S
        while _living_groups(children) and time.monotonic() < end:
            time.sleep(0.05)
    for child in children:
        child.wait()


def _living_groups(children: "Collection[subprocess.Popen[bytes]]") -> set[int]:
    """The groups of which any process still runs; one that only waits to be buried does not."""
    for child in children:
        child.poll()
    groups = {child.pid for child in children}
    living = set()
    for process in psutil.process_iter() if groups else ():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            group = os.getpgid(process.pid)
            if group in groups and process.status() != psutil.STATUS_ZOMBIE:
                living.add(group)
    return living


def _lines(descriptor: int, end: float | None) -> Iterator[Line]:
    """Reads until the last writer is gone.

    Raises:
        TimeLimitError: it is later than `end` (of `time.monotonic`).
    """
    rest = b""
    while True:
        left_s = None if end is None else max(0.0, end - time.monotonic())
        ready, _, _ = select.select([descriptor], [], [], left_s)
        if not ready:
            raise TimeLimitError
        try:
            read = os.read(descriptor, _READ_BYTES)
        except OSError:
            # Linux says EIO where a terminal has lost its last user.
            read = b""
        if not read:
            break
        *parts, rest = _LINE_ENDS.split(rest + read)
        # A lone \r at the end may be the first half of a line end.
        if len(parts) >= 2 and parts[-1] == b"\r" and not rest:
            rest = parts[-2] + parts[-1]
            parts = parts[:-2]
        yield from _as_lines(zip(parts[::2], parts[1::2], strict=True))
    yield from _as_lines([(rest, b"\n")])


def _as_lines(
    parts: "Iterator[tuple[bytes, bytes]] | Sequence[tuple[bytes, bytes]]",
) -> Iterator[Line]:
    for raw, line_end in parts:
        text = _COLOURS.sub("", raw.decode(errors="replace")).rstrip()
        if text:
            yield Line(text, redraw=line_end == b"\r")
