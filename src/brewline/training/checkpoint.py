"""What a run has reached, kept so that it can go on from there."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brewline.core.files import atomic_path, is_whole_zip, set_aside
from brewline.models.folder import Row
from brewline.samples.shards import Position

CHECKPOINT_FILE = "checkpoint.pt"


@dataclass
class Progress:
    """What a run has reached; `step` counts finished updates."""

    step: int = 0
    position: Position = field(default_factory=Position)
    best_step: int = 0
    best_score: float = -math.inf
    best_dev: dict[str, float] = field(default_factory=dict)
    best_tensors: dict[str, Tensor] = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)


def save_checkpoint(path: Path, progress: Progress, **states: dict[str, Any]) -> None:
    """Writes a checkpoint atomically.

    Args:
        path: The file.
        progress: What the run has reached.
        states: Of the model, the optimiser and whatever else has one, by its name.
    """
    content = {"progress": {**vars(progress), "position": vars(progress.position)}, **states}
    with atomic_path(path) as partial:
        torch.save(content, partial)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Reads what `save_checkpoint` wrote: `progress`, and the states by name; None without one.

    One that a disk has damaged is set aside: else every rerun would fail on it.
    """
    if not path.exists():
        return None
    if not is_whole_zip(path):
        set_aside(path, "training starts anew")
        return None
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    facts = saved["progress"]
    saved["progress"] = Progress(**{**facts, "position": Position(**facts["position"])})
    return saved
