"""One training over two processes with a thread each.

The towers are so small that a second thread inside an operation gains nothing, but half the batch
in a second process halves the time. The same numbers come out on every run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

PROCESSES = 2


def rank() -> int:
    """Which of the processes this is."""
    return dist.get_rank()


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Gives every process the mean of all gradients."""
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    flat /= PROCESSES
    start = 0
    for grad in grads:
        grad.copy_(flat[start : start + grad.numel()].view_as(grad))
        start += grad.numel()


def _enter(index: int, meeting: Path, work: Callable[..., None], arguments: tuple[Any]) -> None:
    torch.set_num_threads(1)
    address = f"file://{meeting.resolve()}"
    dist.init_process_group("gloo", init_method=address, rank=index, world_size=PROCESSES)
    try:
        work(*arguments)
    finally:
        dist.destroy_process_group()


def run(meeting: Path, work: Callable[..., None], *arguments: object) -> None:
    """Runs `work(*arguments)` in each process; they find each other by the file `meeting`."""
    meeting.unlink(missing_ok=True)
    mp.spawn(_enter, args=(meeting, work, arguments), nprocs=PROCESSES)
