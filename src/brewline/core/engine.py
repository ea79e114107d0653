"""Units of work done side by side: by processes of this machine, or by a Ray cluster.

A job is cut into units, each of which ends in files of its own. Whether a unit is done is judged
from its files alone, never from what became of a task: a machine that was lost after its last write
has done its work, and who was stopped does what is missing. So a unit may be done twice, at the
same time even, and does not mind; and equal units give equal files, whoever does them.
"""

import contextlib
import os
import queue
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from tqdm import tqdm

from brewline.core.compute import DeviceName
from brewline.core.errors import BrewlineError, FailureKind, explain
from brewline.core.workers import Worker, WorkerClosedError

U = TypeVar("U")
T = TypeVar("T")
R = TypeVar("R")
P = TypeVar("P")

# What befalls one unit and leaves the others as they are; all else would befall each of them.
_OF_ONE_UNIT: set[FailureKind] = {"data", "crash"}


class Job(ABC, Generic[U, T, R, P]):
    """What is done with each unit. It travels, so it holds paths and settings, never tables.

    `U` is a unit, `T` a task within it that may crash, `R` its answer, `P` what tells of progress.
    """

    # Seconds that a task may take.
    limit_s: float
    # Tasks that are handed over at a time.
    chunk_size: int = 1
    # Whether a unit wants a GPU of its own.
    on_gpu: bool = False

    @abstractmethod
    def prepare(self) -> Any:
        """Called in a process of its own: gives the function from a task to its answer."""

    @abstractmethod
    def is_done(self, unit: U) -> bool:
        """Whether the files of a unit are there."""

    @abstractmethod
    def do(self, unit: U, worker: Worker[T, R]) -> Iterator[P]:
        """Writes the files of a unit, and tells how far it is.

        What may crash or hang is a task for `worker`. What is there already of a unit that was
        begun before is not done again.
        """


@dataclass(frozen=True)
class UnitFailure:
    """Why a unit was not done, and whether the others would fail in the same way."""

    detail: str
    error: BrewlineError | None
    ends_all: bool


def failure_of(error: BaseException, ends_all: bool = False) -> UnitFailure:
    """What an error that a unit raised means for it and the others."""
    told = error if isinstance(error, BrewlineError) else explain(error)
    if told:
        return UnitFailure(str(told), told, ends_all or told.kind not in _OF_ONE_UNIT)
    return UnitFailure("".join(traceback.format_exception(error)), None, ends_all)


class Engine(Protocol):
    """Whatever does units."""

    def num_gpus(self) -> int:
        """GPUs that units can have."""

    def run(self, job: Job[U, Any, Any, P], units: Sequence[U]) -> Iterator[P | UnitFailure]:
        """Does units in any order; what it yields was told by one of them, or ended one."""


def choose_units_device(engine: Engine, wanted: DeviceName) -> DeviceName:
    """Where the models of units run; `auto` is a GPU each if the engine has any.

    The machine that hands out the work may be one without.

    Raises:
        BrewlineError: GPUs are asked for, and there are none.
    """
    num_gpus = engine.num_gpus()
    if wanted == "auto":
        return "cuda" if num_gpus else "cpu"
    if wanted == "cuda" and not num_gpus:
        raise BrewlineError(
            "runtime.device is cuda, and there is no GPU; cpu works everywhere, and auto takes a "
            "GPU where there is one",
            "settings",
        )
    return wanted


def run_units(engine: Engine, job: Job[U, T, R, P], units: Sequence[U]) -> Iterator[P]:
    """Does the units whose files are missing, and yields what they tell of their progress.

    A unit that fails leaves the others as they are, unless all would fail in the same way (a full
    disk, a checkpoint that is no checkpoint).

    Raises:
        BrewlineError: units are missing at the end; says why the first one is.
        RuntimeError: the same, where the reason is a mistake of ours.
    """
    left = [unit for unit in units if not job.is_done(unit)]
    failures: list[UnitFailure] = []
    if left:
        stream: Any = engine.run(job, left)
        with contextlib.closing(stream):
            for told in stream:
                if not isinstance(told, UnitFailure):
                    yield told
                    continue
                failures.append(told)
                if told.ends_all:
                    break
    missing = sum(not job.is_done(unit) for unit in left)
    if not missing:
        return
    if not failures:
        raise RuntimeError(f"{missing} of {len(units)} parts ended without an error or their files")
    # What ended all is the last.
    cause = failures[-1] if failures[-1].ends_all else failures[0]
    if cause.error is None:
        raise RuntimeError(f"{missing} of {len(units)} parts are not done:\n{cause.detail}")
    if len(units) == 1 or cause.ends_all:
        raise cause.error
    raise BrewlineError(
        f"{missing} of {len(units)} parts are not done, the others are and will not be done again; "
        f"the first failed: {cause.detail}",
        cause.error.kind,
    )


def run_under_bar(
    engine: Engine, job: Job[U, Any, Any, int], sizes: Mapping[U, int], label: str, noun: str
) -> None:
    """Does units under a progress bar.

    Args:
        engine: What does them.
        job: What is done; a unit tells how much of it was done since it told last.
        sizes: Each unit, and how much there is to do.
        label: In front of the bar.
        noun: What is counted.

    Raises:
        BrewlineError: see `run_units`.
        RuntimeError: see `run_units`.
    """
    done = sum(size for unit, size in sizes.items() if job.is_done(unit))
    total = sum(sizes.values())
    with tqdm(total=total, initial=done, desc=label, unit=f" {noun}", disable=None) as bar:
        for count in run_units(engine, job, list(sizes)):
            bar.update(count)


class Slot(Generic[U, T, R, P]):
    """A place where one unit is done at a time, with the process for what may crash."""

    def __init__(self, job: Job[U, T, R, P], environment: Mapping[str, str] | None = None) -> None:
        self._job = job
        self._worker: Worker[T, R] = Worker(job.prepare, job.limit_s, job.chunk_size, environment)

    def do(self, unit: U) -> Iterator[P | UnitFailure]:
        """Does a unit; it, or what keeps it from being done, is told."""
        try:
            self._worker.wait_until_ready()
        except Exception as error:  # noqa: BLE001 - it is raised again by `run_units`
            yield failure_of(error, ends_all=True)
            return
        try:
            yield from self._job.do(unit, self._worker)
        except WorkerClosedError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            yield failure_of(error)

    def close(self) -> None:
        """Ends the process."""
        self._worker.close()


class Processes:
    """Processes of this machine, each with a thread that hands it the tasks of its unit."""

    def __init__(self, workers: int) -> None:
        """Args are how many units are done at a time, where they do not want a GPU each."""
        self._workers = workers

    def num_gpus(self) -> int:
        """CUDA devices that this process may use."""
        # Late: it takes seconds.
        import torch

        return torch.cuda.device_count()

    def run(self, job: Job[U, T, R, P], units: Sequence[U]) -> Iterator[P | UnitFailure]:
        """See `Engine`."""
        environments = self._of_gpus() if job.on_gpu else [{}] * self._workers
        todo: queue.SimpleQueue[U] = queue.SimpleQueue()
        for unit in units:
            todo.put(unit)
        told: queue.SimpleQueue[P | UnitFailure | None] = queue.SimpleQueue()
        slots = [Slot(job, environment) for environment in environments[: len(units)]]
        threads = [
            threading.Thread(target=_do_all, args=(slot, todo, told), daemon=True) for slot in slots
        ]
        for thread in threads:
            thread.start()
        try:
            running = len(threads)
            while running:
                message = told.get()
                if message is None:
                    running -= 1
                else:
                    yield message
        finally:
            with contextlib.suppress(queue.Empty):
                while True:
                    todo.get_nowait()
            for slot in slots:
                slot.close()
            for thread in threads:
                thread.join()

    def _of_gpus(self) -> list[dict[str, str]]:
        """The variables that show one GPU each."""
        variable = "CUDA_VISIBLE_DEVICES"
        shown = os.environ.get(variable)
        names = shown.split(",") if shown else map(str, range(self.num_gpus()))
        return [{variable: name} for name in names]


def _do_all(
    slot: Slot[U, T, R, P],
    todo: "queue.SimpleQueue[U]",
    told: "queue.SimpleQueue[P | UnitFailure | None]",
) -> None:
    """A thread: does units until there are no more; `None` is its last word."""
    try:
        with contextlib.suppress(queue.Empty, WorkerClosedError):
            while True:
                for message in slot.do(todo.get_nowait()):
                    told.put(message)
    finally:
        told.put(None)
