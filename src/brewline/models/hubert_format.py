"""HuBERT as transformers keeps it, brought into one form: `config.json` and safetensors.

Published folders hold more than the encoder (a head for recognition, pickled weights, names of
older releases); the library reads them, and what it reads is written anew.
`preprocessor_config.json` says whether a recording is brought to mean 0 and deviation 1 before it
is heard.
"""

import json
import pickle
from collections.abc import Collection
from pathlib import Path

from safetensors import SafetensorError

from brewline.core.errors import BrewlineError
from brewline.core.extras import hubert_class

_CONFIG = "config.json"
_PREPROCESSOR = "preprocessor_config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_KIND = "hubert"
# What the library lets through of files that are no weights.
_DAMAGES = (ValueError, RuntimeError, KeyError, SafetensorError, pickle.UnpicklingError)


def files_of_hubert(names: Collection[str], where: str) -> list[str]:
    """Of the files of a folder or of a repository, those that make a HuBERT.

    Args:
        names: Of all the files.
        where: What an error calls their place.

    Raises:
        BrewlineError: some are missing.
    """
    weights = next((name for name in _WEIGHTS if name in names), None)
    missing = [name for name in (_CONFIG, _PREPROCESSOR) if name not in names]
    if weights is None:
        missing.append(" or ".join(_WEIGHTS))
    if weights is None or missing:
        raise BrewlineError(
            f"{where} is no HuBERT of transformers: it has no {', no '.join(missing)}", "settings"
        )
    return [_CONFIG, _PREPROCESSOR, weights]


def convert_hubert(folder: Path, target: Path) -> None:
    """Writes the encoder of a HuBERT, and how it wants its recordings.

    Args:
        folder: With the files that `files_of_hubert` names.
        target: A folder.

    Raises:
        BrewlineError: it is no HuBERT, is damaged, or wants another rate than 16 kHz; or
            transformers is not installed.
    """
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        wants = json.loads((folder / _PREPROCESSOR).read_text(encoding="utf-8"))
        kind, rate = config.get("model_type"), wants["sampling_rate"]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise BrewlineError(f"its {_CONFIG} or {_PREPROCESSOR} is damaged: {error}") from None
    if kind != _KIND:
        raise BrewlineError(f"its {_CONFIG} is of {kind!r}, not of {_KIND!r}", "settings")
    if rate != 16000:
        raise BrewlineError(f"it hears {rate} samples a second, and recordings have 16000")
    HubertModel = hubert_class()
    try:
        # Of pickled weights transformers takes nothing but tensors.
        model, found = HubertModel.from_pretrained(folder, output_loading_info=True)
    except (OSError, *_DAMAGES) as error:
        raise BrewlineError(f"its weights are damaged: {str(error).splitlines()[0]}") from None
    lacking = sorted([*found["missing_keys"], *map(str, found["mismatched_keys"])])
    # Stands for frames that are hidden in its own training, and for nothing else.
    lacking = [name for name in lacking if "masked_spec_embed" not in name]
    if lacking:
        raise BrewlineError(f"its weights lack {lacking[0]} ({len(lacking)} tensors in all)")
    model.save_pretrained(target)
    # The library's version would give equal weights another hash.
    kept = model.config.to_diff_dict()
    kept.pop("transformers_version", None)
    _write(target / _CONFIG, kept)
    _write(target / _PREPROCESSOR, {"do_normalize": bool(wants.get("do_normalize", True))})


def _write(path: Path, values: dict[str, object]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
