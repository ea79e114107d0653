"""Being asked to end: what is at work is finished and kept first."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Request:
    """Whether somebody asked this process to end, and by which signal."""

    def __init__(self) -> None:
        self.number: int | None = None

    def follow(self) -> None:
        """Sends the signal again, to whoever answers it outside: mostly, this process ends.

        Raises:
            KeyboardInterrupt: it was Ctrl-C.
        """
        if self.number is not None:
            os.kill(os.getpid(), self.number)


@contextmanager
def stopped_softly(patient: bool = False) -> Iterator[Request]:
    """Inside, SIGTERM and Ctrl-C are noted and left to who looks; the second one ends at once.

    Outside of the main thread, which alone hears signals, nothing is noted.

    Args:
        patient: Nothing is noted: this process ends with another one.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _: FrameType | None) -> None:
        if patient:
            return
        request.number = number
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, answer in before.items():
            signal.signal(number, answer)
