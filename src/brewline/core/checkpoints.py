"""Files that `torch.save` wrote."""

import zipfile
from pathlib import Path
from typing import Any

import torch


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, its weights mapped where they can be; errors are those of torch."""
    # Files of before PyTorch 1.6 cannot be mapped into memory.
    mapped = zipfile.is_zipfile(path)
    checkpoint: dict[str, Any] = torch.load(
        path, map_location="cpu", weights_only=True, mmap=mapped
    )
    return checkpoint
