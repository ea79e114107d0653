"""The processes that train one model together, each with its rows of every batch."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from brewline.core.errors import BrewlineError, explain
from brewline.core.files import read_json, remove, write_json
from brewline.core.system import end_with_parent

# How long a process waits for the others at a time: measuring on dev is done by the first alone.
_PATIENCE = timedelta(hours=2)
# How often it is looked whether all of them are alive.
_LOOK_EVERY_S = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True)
class Ranks:
    """Which of `count` processes this one is; `rank` counts from 0."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that measures, writes and tells."""
        return self.rank == 0

    def share(self, size: int) -> slice:
        """Which rows of `size` are this process's; all processes have as many.

        Raises:
            ValueError: `size` cannot be shared equally.
        """
        if size % self.count:
            raise ValueError(f"{size} rows cannot be shared equally by {self.count} processes")
        own = size // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def gather(self, rows_BE: Tensor) -> Tensor:
        """The rows of all processes, (count * B, ...), in their order; with gradients.

        Every process must call it with as many rows.
        """
        if self.count == 1:
            return rows_BE
        gathered: Tensor = _Gather.apply(rows_BE)
        return gathered

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, of each number; without gradient."""
        if self.count == 1:
            return values.detach()
        total = values.detach().clone()
        torch.distributed.all_reduce(total)
        return total / self.count

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Gives all processes the mean of their gradients.

        In one message after the backward pass: what is trained beside frozen towers is a few
        million numbers, and a batch that is computed in parts has its gradients only then.
        """
        gradients = [one.grad for one in parameters if one.grad is not None]
        if self.count == 1 or not gradients:
            return
        mean = self.mean(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        at = 0
        for gradient in gradients:
            gradient.copy_(mean[at : at + gradient.numel()].view_as(gradient))
            at += gradient.numel()


ALONE = Ranks()


class _Gather(torch.autograd.Function):
    """All rows forward; backward the sum of what every process wants of this one's rows.

    A gather without gradient gives half of the right gradient with two processes, and a quarter
    with four, and nothing says so.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, rows.contiguous())
        ctx.num_rows = len(rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        total = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(total)
        start = torch.distributed.get_rank() * ctx.num_rows
        return total[start : start + ctx.num_rows]


def in_ranks(
    function: Callable[..., None],
    arguments: Sequence[Any],
    count: int,
    device: torch.device,
    failures: Path,
) -> None:
    """Calls a function in several processes of this machine that work together, by torchrun.

    A process that ends before its work is done ends all of them, and so does the end of this one.

    Args:
        function: Of a module; called with `arguments` and the `Ranks` of its process.
        arguments: What can be pickled.
        count: How many processes; on GPUs one each.
        device: What kind of device they compute on.
        failures: A folder for what they say when they fail.

    Raises:
        BrewlineError: one of them failed.
        KeyboardInterrupt: Ctrl-C, once all of them ended.
        SystemExit: another signal, once all of them ended.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    remove(failures)
    failures.mkdir(parents=True)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        run_id=str(os.getpid()),
        # This machine's own name may lead nowhere.
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=_LOOK_EVERY_S,
    )
    # Of the threads of one process each has its share.
    threads = max(1, torch.get_num_threads() // count)
    given = (function, arguments, os.getpid(), device.type, threads, failures)
    # What it says of a failure is told in one sentence.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        with _signals_kept():
            elastic_launch(config, _work)(*given)
    except ChildFailedError as error:
        raise _first_failure(failures, count, error) from None
    except SignalException as error:
        # The processes were asked to end, and did.
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + error.sigval) from None
    remove(failures)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Puts back who answers signals: torchrun leaves its own answers behind."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, answer in before.items():
            signal.signal(number, answer)


def _work(
    function: Callable[..., None],
    arguments: Sequence[Any],
    parent: int,
    device: str,
    threads: int,
    failures: Path,
) -> None:
    """What each process does."""
    # Ctrl-C of a terminal comes from torchrun alone, once: the second one ends at once.
    os.setpgrp()
    end_with_parent(parent)
    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    torch.set_num_threads(threads)
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        backend = "nccl" if device == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, timeout=_PATIENCE)
        function(*arguments, ranks)
    except Exception as error:
        told = error if isinstance(error, BrewlineError) else explain(error)
        said = {"kind": told.kind, "message": str(told)} if told else {"message": repr(error)}
        with suppress(OSError):
            write_json(failures / f"{ranks.rank}.json", {"at": time.time(), **said})
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _first_failure(failures: Path, count: int, error: Any) -> BrewlineError:
    """The failure that the others followed from."""
    said = sorted((read_json(path) for path in failures.glob("*.json")), key=lambda one: one["at"])
    # Whoever waits for one that is gone fails too, with words of its library.
    told = next((one for one in said if "kind" in one), None)
    if told:
        return BrewlineError(told["message"], told["kind"])
    rank, failure = error.get_first_failure()
    how = f"was killed (signal {-failure.exitcode})" if failure.exitcode < 0 else "failed"
    why = f" ({said[0]['message']})" if said and failure.exitcode >= 0 else ""
    return BrewlineError(
        f"process {rank} of the {count} that train together {how}{why}, and the others were ended; "
        "run it again: it goes on from the last checkpoint",
        "crash",
    )
