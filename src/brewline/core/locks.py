"""Locks among processes: one way for all who must not work in the same place at once."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from brewline.core.errors import BrewlineError
from brewline.core.system import flock

# Of a tree or workspace, while a flow works in it.
PIPELINE_LOCK = Path("work/pipeline.lock")
# One stage, or one measurement of speed, at a time uses the machine, whoever started it. The kernel
# frees the place of whoever is killed, and no server is asked.
SLOTS = Path("work/slots")
_LOOK_EVERY_S = 0.3
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def locked(path: Path, on_busy: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds an exclusive lock while the block runs; a killed holder frees it.

    Args:
        path: The file that stands for it; made if new, and left behind. It holds the holder's
            process id.
        on_busy: Called once where another process holds the lock, with that process's id, before
            it is waited for; what it raises ends the waiting.

    Raises:
        BrewlineError: the disk knows no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            if not flock(file, wait=False):
                if on_busy:
                    file.seek(0)
                    on_busy(file.read().strip())
                flock(file)
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            raise BrewlineError(
                f"the disk of {path.parent.resolve()} knows no file locks ({error.strerror}); "
                "work on another disk, or mount this one with locks",
                "settings",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


class _BusyError(Exception):
    """Another process holds a lock; the text is its id."""


def _give_up(holder: str) -> None:
    raise _BusyError(holder)


def is_held(path: Path) -> bool:
    """Whether another process holds a lock of `locked`; makes no file."""
    if not path.exists():
        return False
    try:
        with locked(path, _give_up):
            return False
    except _BusyError:
        return True


@contextmanager
def slot(
    project: Path,
    how_many: int = 1,
    on_busy: Callable[[str], None] | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Holds one of the places for work that uses the whole machine; waits where none is free.

    Args:
        project: The project's folder, not that of a workspace in it.
        how_many: Places that there are.
        on_busy: Called once, with the process id of a holder, before it is waited for.
        pause: Sleeps for some seconds; what it raises ends the waiting.

    Raises:
        BrewlineError: the disk knows no locks.
    """
    is_told = False
    while True:
        for number in range(how_many):
            with ExitStack() as held:
                try:
                    held.enter_context(locked(project / SLOTS / f"{number}.lock", _give_up))
                except _BusyError as busy:
                    holder = str(busy)
                    continue
                yield
                return
        if on_busy and not is_told:
            on_busy(holder)
            is_told = True
        pause(_LOOK_EVERY_S)
