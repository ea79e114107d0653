"""Processes that tests start and expect to be gone."""

import time
from collections.abc import Iterable

import psutil


def alive(processes: Iterable[psutil.Process], within_s: float) -> list[psutil.Process]:
    """Those that still run after so many seconds.

    Zombies have ended. An orphan stays one until the system's first process asks for its exit code,
    which that of many containers does late or never.
    """
    end = time.monotonic() + within_s
    while True:
        running = [one for one in processes if _runs(one)]
        if not running or time.monotonic() > end:
            return running
        time.sleep(0.05)


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; nothing of one that has ended."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
