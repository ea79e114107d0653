"""CLIPs of open_clip, from a folder, the Hub or its list of published weights, in one form.

That is what it loads as `local-dir:`: `open_clip_config.json`, weights in safetensors, and the
files of a tokeniser of Hugging Face's, where the model has one.
"""

import json
import pickle
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from brewline.core.errors import BrewlineError
from brewline.core.files import unpack_xz
from brewline.models.names import CLIP_CONFIG, CLIP_WEIGHTS
from brewline.models.weight_files import weights_among

_PACKED = f"{CLIP_WEIGHTS}.xz"
# The names that open_clip looks for, in its order; before them what this project packs.
_WEIGHTS = (
    _PACKED,
    CLIP_WEIGHTS,
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
# Of CLIPs whose tokeniser is one of Hugging Face's.
_TOKENISER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_QUICK = "-quickgelu"
# What the libraries let through of files that are no weights.
_DAMAGES = (OSError, ValueError, RuntimeError, KeyError, TypeError, EOFError)


def files_of_clip(names: Collection[str], where: str) -> list[str]:
    """Of the files of a folder or of a repository, those that make a CLIP.

    Args:
        names: Of all the files.
        where: What an error calls their place.

    Raises:
        BrewlineError: some are missing.
    """
    title = "CLIP in open_clip's format"
    weights = weights_among(names, where, title, [CLIP_CONFIG], _WEIGHTS)
    return [CLIP_CONFIG, weights, *(name for name in _TOKENISER_FILES if name in names)]


def convert_clip(folder: Path, target: Path) -> None:
    """Writes a CLIP as a folder that open_clip loads; what is in that form is copied.

    Args:
        folder: With the files that `files_of_clip` names.
        target: A folder.

    Raises:
        BrewlineError: its configuration is none, its tokeniser is not there, or its weights are
            damaged.
    """
    _require_whole(folder)
    target.mkdir(exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.name == _PACKED:
            unpack_xz(path, target / CLIP_WEIGHTS)
        elif path.name in _WEIGHTS and path.name != CLIP_WEIGHTS:
            _save(_read_weights(path), target)
        else:
            shutil.copyfile(path, target / path.name)


def _require_whole(folder: Path) -> None:
    """Refuses what open_clip would look for elsewhere when it is loaded, hours later."""
    try:
        config = json.loads((folder / CLIP_CONFIG).read_text(encoding="utf-8"))
        tokeniser = config["model_cfg"]["text_cfg"].get("hf_tokenizer_name")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrewlineError(
            f"its {CLIP_CONFIG} describes no model ({type(error).__name__}: {error})"
        ) from None
    if tokeniser and not any((folder / name).is_file() for name in _TOKENISER_FILES):
        raise BrewlineError(
            f"its tokeniser {tokeniser!r} is not among its files; save it beside them with "
            "transformers' `save_pretrained`",
            "settings",
        )


def _read_weights(path: Path) -> dict[str, Any]:
    """The tensors of a file; of a pickled one nothing else is read."""
    from open_clip.factory import load_state_dict
    from safetensors import SafetensorError

    try:
        found: dict[str, Any] = load_state_dict(str(path))
    except (*_DAMAGES, SafetensorError, pickle.UnpicklingError, StopIteration) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BrewlineError(f"{path.name} holds no weights: {reason}") from None
    return found


def _save(tensors: dict[str, Any], target: Path) -> None:
    from safetensors.torch import save_file

    # Apart from one another: some share their memory, which the format does not know.
    save_file(
        {key: one.clone().contiguous() for key, one in tensors.items()}, target / CLIP_WEIGHTS
    )


def download_clip(name: str, target: Path) -> None:
    """Brings published weights by open_clip's own names of them, `<architecture>/<tag>`.

    Raises:
        BrewlineError: it knows none of that name, they were trained with another activation, a
            package is missing, or they cannot be reached.
    """
    import open_clip

    architecture, _, tag = name.partition("/")
    if (architecture, tag) not in open_clip.list_pretrained():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture))
        raise BrewlineError(
            f"open_clip has no weights {tag!r} for {architecture!r}; known: {tags or 'none'}",
            "settings",
        )
    refuse_other_activation(architecture, tag)
    try:
        model = open_clip.create_model(architecture, pretrained=tag)
        tokenizer = open_clip.get_tokenizer(architecture)
    except ModuleNotFoundError as error:
        raise BrewlineError(
            f"the tokeniser of {name} needs {error.name}: `uv pip install '.[siglip]'`", "settings"
        ) from None
    except (OSError, RuntimeError) as error:
        raise BrewlineError(f"cannot download CLIP {name}: {error}", "network") from None
    config = {
        "model_cfg": open_clip.get_model_config(architecture),
        "preprocess_cfg": open_clip.get_model_preprocess_cfg(model),
    }
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(target)
    (target / CLIP_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    _save(model.state_dict(), target)


def refuse_other_activation(architecture: str, tag: str) -> None:
    """Raises where weights were trained with another activation than the architecture has.

    open_clip warns of it and goes on, and every number that follows is wrong.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    is_quick = bool((get_pretrained_cfg(architecture, tag) or {}).get("quick_gelu"))
    if is_quick == bool((open_clip.get_model_config(architecture) or {}).get("quick_gelu")):
        return
    plain = architecture.removesuffix(_QUICK)
    right = f"{plain}{_QUICK}" if is_quick else plain
    raise BrewlineError(
        f"the weights {tag!r} were trained with {'QuickGELU' if is_quick else 'GELU'}, which "
        f"{architecture} does not have; use open_clip:{right}/{tag}",
        "settings",
    )
