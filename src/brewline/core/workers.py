"""Work in processes of its own, which may crash or hang without taking anything with them.

`concurrent.futures` gives up all of its tasks when one of them kills its process, and waits for
ever for one that hangs. Decoders fed with damaged files do both, and models that run out of memory.
"""

import collections
import contextlib
import itertools
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar

from brewline.core.errors import BrewlineError
from brewline.core.system import end_with_parent

# Chunks whose results may wait for an earlier one, per worker: what bounds memory while one task
# hangs.
_MOST_CHUNKS_AHEAD = 64
# From the start of a process until it has imported and loaded what it needs, from a slow disk too.
_START_LIMIT_S = 1800.0

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Lost:
    """A task that took its worker with it, or had to be stopped."""

    how: Literal["crash", "timeout"]
    detail: str


@dataclass(frozen=True)
class _Raised:
    """An error inside a worker: one that is the user's to mend, or a mistake of ours."""

    traceback: str
    error: BrewlineError | None


# Tasks with their positions.
_Chunk = Sequence[tuple[int, Any]]


class _Worker:
    """A process, and what it has been given to do; `None` once it has answered."""

    def __init__(self, prepare: Callable[[], Callable[[Any], Any]]) -> None:
        # A fork would inherit the locks of whatever threads this process runs.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, prepare), daemon=True)
        self._process.start()
        # Ours is closed, so that the end of the process is the end of the connection.
        theirs.close()
        self.chunk: _Chunk | None = None
        self.is_ready = False
        self.deadline = time.monotonic() + _START_LIMIT_S

    @property
    def is_idle(self) -> bool:
        return self.is_ready and self.chunk is None

    def give(self, chunk: _Chunk, limit_s: float) -> None:
        self.chunk = chunk
        self.deadline = time.monotonic() + limit_s
        # If it is dead already, listening to it will tell.
        with contextlib.suppress(OSError):
            self.connection.send([task for _, task in chunk])

    def end(self, patience_s: float = 0.0) -> int:
        """Kills the process; returns its exit code, which is negative for a signal."""
        self.connection.close()
        self._process.join(patience_s)
        self._process.kill()
        self._process.join()
        return self._process.exitcode or 0


def _serve(connection: Connection, prepare: Callable[[], Callable[[Any], Any]]) -> None:
    """The process: prepares, says so, and answers chunks of tasks until there are no more."""
    # Who is gone before we looked is not to be taken for whoever we belong to since.
    starter = multiprocessing.parent_process()
    end_with_parent(starter.pid if starter else None)
    # Ctrl-C reaches the whole group; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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


class _Queue:
    """Tasks on their way: in chunks to the workers, and as answers back in their order."""

    def __init__(self, tasks: Iterable[Any], chunk_size: int, most_ahead: int) -> None:
        self._tasks = enumerate(tasks)
        self._chunk_size = chunk_size
        self._most_ahead = most_ahead
        self._retries: collections.deque[_Chunk] = collections.deque()
        self._answers: dict[int, Any] = {}
        self._num_taken = self._num_yielded = 0
        self._is_exhausted = False

    @property
    def is_done(self) -> bool:
        return self._is_exhausted and self._num_yielded == self._num_taken

    def next_chunk(self) -> _Chunk | None:
        """What to do next; None while there is nothing, or while others have to catch up."""
        if self._retries:
            return self._retries.popleft()
        if len(self._answers) > self._most_ahead:
            return None
        chunk = list(itertools.islice(self._tasks, self._chunk_size))
        self._num_taken += len(chunk)
        self._is_exhausted = len(chunk) < self._chunk_size
        return chunk or None

    def answer(self, chunk: _Chunk, answers: Iterable[Any]) -> None:
        self._answers.update(
            (position, answer) for (position, _), answer in zip(chunk, answers, strict=True)
        )

    def lose(self, chunk: _Chunk, lost: Lost) -> None:
        """Takes back what was not answered: a task alone is lost, of several each is tried."""
        if len(chunk) == 1:
            self.answer(chunk, [lost])
        else:
            self._retries.extend([task] for task in chunk)

    def in_order(self) -> Iterator[Any]:
        """Yields the answers that no earlier task is missing for."""
        while self._num_yielded in self._answers:
            yield self._answers.pop(self._num_yielded)
            self._num_yielded += 1

    def as_they_come(self) -> Iterator[tuple[int, Any]]:
        """Yields the answers that there are, with the positions of their tasks."""
        while self._answers:
            yield self._answers.popitem()
            self._num_yielded += 1


class WorkerPool(Generic[T, R]):
    """Processes that answer tasks, for as long as the `with` block lasts.

    Tasks are handed over in chunks. When a worker dies, or a chunk takes longer than a single task
    may, its tasks are tried again one by one, so that a task is lost by its own doing only.
    """

    def __init__(
        self,
        prepare: Callable[[], Callable[[T], R]],
        num_workers: int,
        limit_s: float,
        chunk_size: int = 32,
    ) -> None:
        """Starts the processes.

        Args:
            prepare: Called once in each process, gives the function that answers a task; it, the
                tasks and the answers are pickled.
            num_workers: How many processes.
            limit_s: Seconds that a task may take.
            chunk_size: Tasks handed to a worker at a time: few enough for a progress bar to move,
                enough to hide what handing over costs.
        """
        self._prepare = prepare
        self._limit_s = limit_s
        self._chunk_size = chunk_size
        self._workers = [_Worker(prepare) for _ in range(num_workers)]

    def __enter__(self) -> "WorkerPool[T, R]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.end()

    def map(self, tasks: Iterable[T]) -> Iterator[R | Lost]:
        """Answers tasks, in their order; one `map` must end before the next begins.

        Raises:
            BrewlineError: as it was raised in a worker.
            RuntimeError: our own code failed in a worker, or a worker does not start.
        """
        queue = self._queue(tasks)
        return self._answers(queue, queue.in_order)

    def map_unordered(self, tasks: Iterable[T]) -> Iterator[tuple[int, R | Lost]]:
        """Like `map`, but yields each answer as it comes, with the position of its task."""
        queue = self._queue(tasks)
        return self._answers(queue, queue.as_they_come)

    def _queue(self, tasks: Iterable[T]) -> _Queue:
        most_ahead = _MOST_CHUNKS_AHEAD * self._chunk_size * len(self._workers)
        return _Queue(tasks, self._chunk_size, most_ahead)

    def _answers(self, queue: _Queue, ready: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        while not queue.is_done:
            self._hand_out(queue)
            if any(not worker.is_idle for worker in self._workers):
                self._listen(queue)
            # Before whoever asks is given his answers, with which he may take his time.
            self._hand_out(queue)
            yield from ready()

    def _hand_out(self, queue: _Queue) -> None:
        for worker in self._workers:
            if worker.is_idle and (chunk := queue.next_chunk()):
                worker.give(chunk, self._limit_s)

    def _listen(self, queue: _Queue) -> None:
        """Waits until a worker answers, dies, or has been at it for too long."""
        deadline = min(worker.deadline for worker in self._workers if not worker.is_idle)
        patience_s = max(0.0, deadline - time.monotonic())
        heard = wait([worker.connection for worker in self._workers], patience_s)
        for index, worker in enumerate(self._workers):
            if worker.connection in heard:
                self._hear(index, worker, queue)
            elif not worker.is_idle and time.monotonic() > worker.deadline:
                worker.end()
                limit_s = self._limit_s if worker.is_ready else _START_LIMIT_S
                detail = f"not done after {limit_s:g} s"
                self._replace(index, worker, queue, Lost("timeout", detail))

    def _hear(self, index: int, worker: _Worker, queue: _Queue) -> None:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            # Its end of the connection closes a moment before the process can be waited for.
            code = worker.end(patience_s=5.0)
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            detail = f"its process ended with {how}"
            self._replace(index, worker, queue, Lost("crash", detail))
            return
        if isinstance(message, _Raised):
            if message.error:
                raise message.error
            raise RuntimeError(f"a worker failed:\n{message.traceback}")
        if worker.chunk is not None:
            queue.answer(worker.chunk, message)
        worker.is_ready, worker.chunk = True, None

    def _replace(self, index: int, worker: _Worker, queue: _Queue, lost: Lost) -> None:
        if not worker.is_ready:
            raise RuntimeError(f"a worker process does not start: {lost.detail}")
        if worker.chunk:
            queue.lose(worker.chunk, lost)
        self._workers[index] = _Worker(self._prepare)
