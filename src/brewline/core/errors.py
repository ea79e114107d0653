"""Errors that the user can mend, and what the machine lacked where something failed of it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

# A disk, or what a user may fill of it.
_FULL = (errno.ENOSPC, errno.EDQUOT)

FailureKind = Literal["network", "busy", "time", "data", "memory", "disk", "settings", "crash"]


class BrewlineError(Exception):
    """Something outside the code is wrong; the message is one sentence that says what to do.

    Args:
        message: Names the bad value and, where there are any, the choices.
        kind: Decides whether another try can help (DVC's exit code never says).
    """

    def __init__(self, message: str, kind: FailureKind = "data") -> None:
        super().__init__(message)
        self.kind: FailureKind = kind


def explain(error: BaseException) -> BrewlineError | None:
    """What the machine lacks, where that is why something failed: disk, permission or memory.

    Libraries raise errors of their own for it, so the errors behind an error are looked at too.
    """
    behind: BaseException | None = error
    while behind is not None:
        told = _lack_of_memory(behind) or _lack_of_disk(behind)
        if told:
            return told
        behind = behind.__cause__ or behind.__context__
    return None


def _lack_of_memory(error: BaseException) -> BrewlineError | None:
    # By its name: whoever did not import torch did not run out of its memory.
    of_torch = type(error).__name__ == "OutOfMemoryError" and type(error).__module__ == "torch"
    if of_torch or isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        where = "on the GPU" if of_torch else "in this machine"
        return BrewlineError(
            f"no memory is left {where}; make the batch size of this stage smaller", "memory"
        )
    return None


def _lack_of_disk(error: BaseException) -> BrewlineError | None:
    number = error.errno if isinstance(error, OSError) else None
    place = getattr(error, "filename", None)
    if number in _FULL or os.strerror(errno.ENOSPC) in str(error):
        where = f" of {place}" if place else ""
        return BrewlineError(
            f"the disk{where} is full; make room and run it again: what is finished is kept", "disk"
        )
    if number == errno.EROFS:
        return BrewlineError(f"{place or 'an output'} lies on a disk that is read-only", "disk")
    if number in (errno.EACCES, errno.EPERM) and place:
        return BrewlineError(
            f"this user may not use {place}; look at its owner and its permissions", "settings"
        )
    return None


@contextmanager
def outages_explained(place: str) -> Iterator[None]:
    """Turns what a library raises of its own into a failure of the network.

    Such errors belong to packages below the library, which change without notice and cannot be
    named here. Our own errors, and a full disk, pass.

    Args:
        place: What was talked to, without a secret.

    Raises:
        BrewlineError: of kind `network`.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, BrewlineError) or getattr(error, "errno", None) in _FULL:
            raise
        text = f"{place}: {type(error).__name__}: {error}; run it again to continue"
        raise BrewlineError(text, "network") from error


@contextmanager
def disk_faults_explained() -> Iterator[None]:
    """Turns the errors of a disk that is full, or read-only, into one sentence."""
    try:
        yield
    except OSError as error:
        told = explain(error)
        if told is None:
            raise
        raise told from None
