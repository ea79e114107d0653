"""Processes that end with the one that started them.

`python -m brewline.core.processes PARENT COMMAND...` becomes a command that ends with process
PARENT.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def die_with_parent(parent: int | None = None) -> None:
    """Asks the kernel to end this process when its parent ends (Linux).

    Without it, killing `dvc repro` leaves the stage running, and starting again would set two
    of them to the same work.

    Args:
        parent: The parent's id, where it may have ended already; None: whoever it is now.
    """
    parent = os.getppid() if parent is None else parent
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The parent may have ended before the kernel was asked.
    if os.getppid() != parent:
        raise SystemExit(1)


def keep_freed_memory() -> None:
    """Lets this process keep what it frees, for itself (glibc's `mallopt`).

    A model asks for the same large tensors again and again; from the kernel they come as empty
    pages, which takes about as long as filling them.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
