"""What differs between the systems that Brewline runs on, Linux and macOS, stands here alone.

`python -m brewline.core.system PARENT COMMAND...` becomes a command that ends with process PARENT.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

# Of Linux's <sys/prctl.h> and <sys/mman.h>, and of glibc's <malloc.h>.
_PR_SET_PDEATHSIG = 1
_MADV_POPULATE_READ = 22
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
# How often a process looks for its parent where the kernel does not tell.
_LOOK_EVERY_S = 0.5
# From being asked to end until being made to.
GOOD_BYE_S = 5.0


def end_with_parent(parent: int | None = None) -> None:
    """Makes this process end when its parent ends: by SIGTERM, and 5 s later by SIGKILL.

    Without it, killing `dvc repro` leaves the stage running, and starting again would set two
    of them to the same work. Linux's kernel tells at once; a thread that looks twice a second does
    it elsewhere, and makes sure everywhere: who makes an exception of SIGTERM, to say good-bye, may
    do so in a pool that catches it and waits for a next task for ever.

    Args:
        parent: The parent's id, where it may have ended already; None: whoever it is now.
    """
    parent = os.getppid() if parent is None else parent
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    _look_for_parent(parent, ask_first=sys.platform != "linux")
    # The parent may have ended before anybody watched.
    if os.getppid() != parent:
        raise SystemExit(1)


def _look_for_parent(parent: int, ask_first: bool) -> None:
    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_S)
        if ask_first:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GOOD_BYE_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, daemon=True).start()


def become(command: list[str], parent: int) -> None:
    """Turns this process into a command that ends with process `parent`; does not return."""
    if sys.platform == "linux":
        # The kernel remembers whom it ends with, over the change of program too.
        end_with_parent(parent)
        os.execvp(command[0], command)
    raise SystemExit(_run_while_alive(command, parent))


def _run_while_alive(command: list[str], parent: int) -> int:
    """Runs a command, and ends it when `parent` is gone; returns its exit status."""
    child = subprocess.Popen(command)
    # The terminal's Ctrl-C reaches the child by itself; what is sent to us is meant for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: child.send_signal(number))
    while True:
        try:
            status = child.wait(_LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:
                child.terminate()
        else:
            return status if status >= 0 else 128 - status


def keep_freed_memory() -> None:
    """Lets this process keep what it frees, for itself; does nothing without glibc's `mallopt`.

    A model asks for the same large tensors again and again; from the kernel they come as empty
    pages, which takes about as long as filling them.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def load_mapped(mapped: mmap.mmap, start: int, size: int) -> None:
    """Brings a part of a mapped file into memory, where what cannot be read is an error.

    Else whoever touches it is ended by SIGBUS. Linux can do so from 5.14 on; elsewhere nothing is
    done.

    Raises:
        OSError: the disk cannot read it, or the file is shorter by now.
    """
    if sys.platform != "linux":
        return
    page = start - start % mmap.PAGESIZE
    try:
        mapped.madvise(_MADV_POPULATE_READ, page, start + size - page)
    except OSError as error:
        if error.errno == errno.EFAULT:
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from None


def usable_cores() -> int:
    """How many cores this process may use, of which `taskset` and containers grant a part."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether the system drives a GPU for models; asks no library, which would take seconds."""
    if sys.platform == "linux":
        # AMD's driver has /dev/kfd for machines with a GPU alone.
        return Path("/proc/driver/nvidia/gpus").is_dir() or Path("/dev/kfd").exists()
    return platform.machine() == "arm64"


def peak_memory_mb() -> float:
    """The most memory that this process has held so far, in units of 1024 x 1024 bytes."""
    if sys.platform == "linux":
        # What `getrusage` tells includes what the process held that started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def flock(file: IO[str], *, shared: bool = False, wait: bool = True) -> bool:
    """Takes the kernel's lock of an open file, or changes the one that is held.

    The kernel frees it when its holder ends, however that is.

    Args:
        file: Open for writing: a network disk may want that for an exclusive lock.
        shared: Others may hold it at the same time, if they share it too.
        wait: Until it is free; else returns at once.

    Returns:
        Whether it is ours; False only without `wait`.

    Raises:
        OSError: the file system knows no locks (some network disks).
    """
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, how if wait else how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    become(sys.argv[2:], int(sys.argv[1]))
