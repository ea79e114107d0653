"""Checkpoints in openai-whisper's format: loaded, or only asked for their dimensions."""

import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import whisper
from whisper.model import ModelDimensions

from brewline.core.errors import BrewlineError


def load_whisper(path: Path, device: torch.device) -> whisper.Whisper:
    """Loads a checkpoint, frozen, in fp32.

    Raises:
        BrewlineError: the file is missing or is no such checkpoint.
    """
    with _says_what_is_wrong(path):
        model = whisper.load_model(str(path), device=device)
    return model.requires_grad_(False).eval()


def read_dimensions(path: Path) -> ModelDimensions:
    """The sizes of a checkpoint's model, without loading its weights.

    Raises:
        BrewlineError: the file is missing or is no such checkpoint.
    """
    with _says_what_is_wrong(path):
        # Files of before PyTorch 1.6 cannot be mapped into memory.
        mapped = zipfile.is_zipfile(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        return ModelDimensions(**checkpoint["dims"])


@contextmanager
def _says_what_is_wrong(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        RuntimeError,
        KeyError,
        EOFError,
        ValueError,
        OSError,
        TypeError,
        pickle.UnpicklingError,
    ) as error:
        raise BrewlineError(
            f"{path} is not a Whisper checkpoint ({error}); run `dvc repro weights`"
        ) from None
