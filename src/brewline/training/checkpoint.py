"""What a run has reached, kept so that it can go on from there."""

import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brewline.core.files import atomic_path, is_whole_zip, set_aside
from brewline.models.folder import Row

CHECKPOINT_FILE = "checkpoint.pt"


@dataclass
class Progress:
    """What a run has reached.

    `step` counts finished updates. Batches are known by their number, so that it says where the
    data stand too, for any number of processes.
    """

    step: int = 0
    best_step: int = 0
    best_score: float = -math.inf
    best_dev: dict[str, float] = field(default_factory=dict)
    best_tensors: dict[str, Tensor] = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)


class Checkpoints:
    """Writes a checkpoint now and then, beside the training.

    Args:
        path: The file.
        every_s: Seconds from one to the next; 0: after every step.
    """

    def __init__(self, path: Path, every_s: float) -> None:
        self._path, self._every_s = path, every_s
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._next_s = time.monotonic() + every_s

    @property
    def is_due(self) -> bool:
        """Whether it is time for another one."""
        return time.monotonic() >= self._next_s

    def save(self, progress: Progress, **states: Any) -> None:
        """Writes one, atomically, in another thread, once the last one is written.

        Args:
            progress: What the run has reached.
            states: Of the model, the optimiser and whatever else has one, by its name.

        Raises:
            OSError: the last one could not be written.
        """
        reached = {**vars(progress), "history": list(progress.history)}
        # What the next step changes.
        content = {"progress": reached, **{name: _copy(one) for name, one in states.items()}}
        self.wait()
        self._writing = self._thread.submit(_write, self._path, content)
        self._next_s = time.monotonic() + self._every_s

    def wait(self) -> None:
        """Waits for the last one to be written.

        Raises:
            OSError: it could not be.
        """
        if self._writing is not None:
            self._writing.result()


def _copy(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach().cpu().clone()
    if isinstance(state, dict):
        return {name: _copy(one) for name, one in state.items()}
    return [_copy(one) for one in state] if isinstance(state, list) else state


def _write(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as partial:
        torch.save(content, partial)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Reads what `Checkpoints` wrote: `progress`, and the states by name; None without one.

    One that a disk has damaged is set aside: else every rerun would fail on it.
    """
    if not path.exists():
        return None
    if not is_whole_zip(path):
        set_aside(path, "training starts anew")
        return None
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return saved | {"progress": Progress(**saved["progress"])}
