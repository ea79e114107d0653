"""Locks among processes: one way for all who must not work in the same place at once."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from brewline.core.errors import BrewlineError
from brewline.core.system import flock

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
