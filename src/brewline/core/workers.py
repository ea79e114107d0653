"""Work in a process of its own, which may crash or hang without taking anything with it.

`concurrent.futures` gives up all of its tasks when one of them kills its process, and waits for
ever for one that hangs. Decoders fed with damaged files do both, and models that run out of memory.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import ModuleType, TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

from brewline.core.errors import BrewlineError
from brewline.core.system import end_with_parent

# From the start of a process until it has imported and loaded what it needs, from a slow disk too.
_START_LIMIT_S = 1800.0

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Lost:
    """A task that took its worker with it, or had to be stopped."""

    how: Literal["crash", "timeout"]
    detail: str


class WorkerClosedError(Exception):
    """Somebody closed the worker while a task was asked of it."""


@dataclass(frozen=True)
class _Raised:
    """An error inside a worker: one that is the user's to mend, or a mistake of ours."""

    traceback: str
    error: BrewlineError | None


class Worker(Generic[T, R]):
    """A process that answers tasks, till the end of the `with` block; of a dead one, the next.

    Tasks are handed over in chunks. When the process dies, or a chunk takes longer than a single
    task may, its tasks are tried again one by one, so that a task is lost by its own doing only.
    """

    def __init__(
        self,
        prepare: Callable[[], Callable[[T], R]],
        limit_s: float,
        chunk_size: int = 32,
        environment: Mapping[str, str] | None = None,
        knows_main: bool = True,
    ) -> None:
        """Starts the process.

        Args:
            prepare: Called once in the process, gives the function that answers a task; it, the
                tasks and the answers are pickled.
            limit_s: Seconds that a task may take.
            chunk_size: Tasks handed over at a time: few enough for a progress bar to move, enough
                to hide what handing over costs.
            environment: Variables that the process has beside ours.
            knows_main: Whether it imports the program that runs here. A library should not ask
                that of a script, which may be none that can be imported without running again.
        """
        self._prepare = prepare
        self._limit_s = limit_s
        self._chunk_size = chunk_size
        self._environment = dict(environment or {})
        self._knows_main = knows_main
        self._is_closed = False
        self._is_ready = False
        # Whether the process has a chunk that it has not answered.
        self._is_asked = False
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kills the process; may be called from another thread than that which waits for it."""
        self._is_closed = True
        self._process.kill()
        self._process.join()

    def wait_until_ready(self) -> None:
        """Waits until the process has prepared itself.

        Raises:
            BrewlineError: as it was raised in the process.
            RuntimeError: our own code failed in the process, or it does not start.
        """
        if self._is_ready:
            return
        message = self._hear(_START_LIMIT_S)
        if isinstance(message, Lost):
            raise RuntimeError(f"a worker process does not start: {message.detail}")
        self._is_ready = True

    def map(self, tasks: Iterable[T]) -> Iterator[R | Lost]:
        """Answers tasks, in their order; the next chunk is in work while one's answers are used.

        Raises:
            BrewlineError: as it was raised in the process.
            RuntimeError: our own code failed in the process, or it does not start.
            WorkerClosedError: it was closed meanwhile.
        """
        if self._is_asked:
            # Whoever stopped in the middle does not want to be told the rest at his next question.
            self._restart()
        chunks = _cut(tasks, self._chunk_size)
        chunk, answers = next(chunks, None), None
        if chunk:
            self._give(chunk)
        while chunk:
            answers = self._answers(chunk)
            chunk = next(chunks, None)
            if chunk:
                self._give(chunk)
            yield from answers

    def _start(self) -> None:
        # A fork would inherit the locks of whatever threads this process runs.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self._prepare, self._environment), daemon=True
        )
        with contextlib.nullcontext() if self._knows_main else _without_main():
            self._process.start()
        # Ours is closed, so that the end of the process is the end of the connection.
        theirs.close()
        self._is_ready = self._is_asked = False
        if self._is_closed:
            self._process.kill()

    def _restart(self, patience_s: float = 0.0) -> int:
        """Starts the next process; returns the last one's exit code, negative for a signal."""
        self._connection.close()
        self._process.join(patience_s)
        self._process.kill()
        self._process.join()
        code = self._process.exitcode or 0
        self._start()
        return code

    def _give(self, chunk: Sequence[T]) -> None:
        self.wait_until_ready()
        self._is_asked = True
        # If it is dead already, listening to it will tell.
        with contextlib.suppress(OSError):
            self._connection.send(chunk)

    def _answers(self, chunk: Sequence[T]) -> Sequence[R | Lost]:
        """The answers to a chunk that was given: a task alone is lost, of several each is tried."""
        message = self._hear(self._limit_s)
        if not isinstance(message, Lost):
            self._is_asked = False
            answers: Sequence[R] = message
            return answers
        if len(chunk) == 1:
            return [message]
        found: list[R | Lost] = []
        for task in chunk:
            self._give([task])
            found.extend(self._answers([task]))
        return found

    def _hear(self, limit_s: float) -> Any:
        """What the process says next; `Lost` if it said nothing, and the next one is started."""
        try:
            if not self._connection.poll(limit_s):
                self._restart()
                return Lost("timeout", f"not done after {limit_s:g} s")
            message = self._connection.recv()
        except (EOFError, OSError):
            if self._is_closed:
                raise WorkerClosedError from None
            # Its end of the connection closes a moment before the process can be waited for.
            code = self._restart(patience_s=5.0)
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return Lost("crash", f"its process ended with {how}")
        if isinstance(message, _Raised):
            if message.error:
                raise message.error
            raise RuntimeError(f"a worker failed:\n{message.traceback}")
        return message


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hides what `multiprocessing` would have a new process import."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _cut(tasks: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(tasks)
    while chunk := list(itertools.islice(rest, size)):
        yield chunk


def _serve(
    connection: Connection,
    prepare: Callable[[], Callable[[Any], Any]],
    environment: Mapping[str, str],
) -> None:
    """The process: prepares, says so, and answers chunks of tasks until there are no more."""
    # Who is gone before we looked is not to be taken for whoever we belong to since.
    starter = multiprocessing.parent_process()
    end_with_parent(starter.pid if starter else None)
    # Ctrl-C reaches the whole group; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(environment)
    try:
        work = prepare()
        connection.send(None)
        # Decoders in C write what they think of damaged files to the terminal.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        while True:
            connection.send([work(task) for task in connection.recv()])
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:  # noqa: BLE001 - it is raised again where somebody sees it
        theirs = error if isinstance(error, BrewlineError) else None
        connection.send(_Raised(traceback.format_exc(), theirs))
