"""Checkpoints in openai-whisper's format: loaded, or only asked for their dimensions."""

import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import whisper
from whisper import _ALIGNMENT_HEADS
from whisper.model import ModelDimensions

from brewline.core.checkpoints import read_checkpoint
from brewline.core.errors import BrewlineError
from brewline.speech.tokenizer import tokenizer_for

# The published models: name, width, layers of the encoder, and of the decoder.
_PUBLISHED = (
    ("tiny", 384, 4, 4),
    ("base", 512, 6, 6),
    ("small", 768, 12, 12),
    ("medium", 1024, 24, 24),
    ("large", 1280, 32, 32),
    ("large-v3-turbo", 1280, 32, 4),
)


def load_whisper(path: Path, device: torch.device) -> whisper.Whisper:
    """Loads a checkpoint, frozen, in fp32.

    Raises:
        BrewlineError: the file is missing or is no such checkpoint.
    """
    with _says_what_is_wrong(path):
        model = whisper.load_model(str(path), device=device)
        heads = read_checkpoint(path).get("alignment_heads")
    if heads is not None:
        mask = torch.zeros(model.dims.n_text_layer, model.dims.n_text_head, dtype=torch.bool)
        mask[tuple(zip(*heads, strict=True))] = True
        model.register_buffer("alignment_heads", mask.to_sparse().to(device), persistent=False)
    elif (published := _published_as(model.dims)) is not None:
        model.set_alignment_heads(_ALIGNMENT_HEADS[published])
    return model.requires_grad_(False).eval()


def _published_as(dimensions: ModelDimensions) -> str | None:
    """The published model of these sizes, of which the checkpoint is a copy or was fine-tuned.

    Its file, unlike those that stage `weights` converts, does not say which heads are aligned.
    """
    layers = (dimensions.n_audio_layer, dimensions.n_text_layer)
    is_english = dimensions.n_vocab == 51864
    for name, width, *known in _PUBLISHED:
        if (dimensions.n_audio_state, *layers) == (width, *known):
            if name == "large":
                return "large-v3" if dimensions.n_vocab == 51866 else "large-v2"
            return f"{name}.en" if is_english else name
    return None


def read_dimensions(path: Path, languages: Iterable[str] = ()) -> ModelDimensions:
    """The sizes of a checkpoint's model, without loading its weights.

    Args:
        path: The file.
        languages: What the model has to know.

    Raises:
        BrewlineError: the file is missing or is no such checkpoint, or its model does not know a
            language.
    """
    with _says_what_is_wrong(path):
        dimensions = ModelDimensions(**read_checkpoint(path)["dims"])
    for language in sorted(languages):
        tokenizer_for(dimensions, language)
    return dimensions


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
