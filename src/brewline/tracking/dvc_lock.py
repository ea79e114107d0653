"""What `dvc.lock` has of a stage whose files lie here as it left them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brewline.config.loading import read_yaml


def locked_stage(name: str, paths: Sequence[str], project: Path = Path()) -> dict[str, Any] | None:
    """The entry of a stage: its parameters, and what it read and wrote.

    Args:
        name: As in `transcribe@mini-lncoco`.
        paths: Of its inputs and outputs, those that must be here as the entry has them.
        project: The project's folder.

    Returns:
        Nothing where there is no such entry, or a file is another one or missing.
    """
    lock = project / "dvc.lock"
    stages = (read_yaml(lock) or {}).get("stages", {}) if lock.exists() else {}
    stage: dict[str, Any] | None = stages.get(name)
    if stage is None:
        return None
    known = {entry["path"]: entry["md5"] for entry in [*stage["deps"], *stage["outs"]]}
    is_same = all(
        (project / path).exists() and _md5(project / path) == known.get(path) for path in paths
    )
    return stage if is_same else None


def _md5(path: Path) -> str:
    # DVC's name for a file's content.
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
