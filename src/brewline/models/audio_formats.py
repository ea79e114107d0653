"""What hears, as transformers keeps it, brought into one form: `config.json` and safetensors.

Published folders hold more than the encoder (a head for recognition or for classes, a tower for
texts, pickled weights, names of older releases); the library reads them, and what it reads is
written anew. `preprocessor_config.json` says how a recording is brought to what is heard.
"""

import json
import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from brewline.core.errors import BrewlineError
from brewline.core.extras import transformers_class
from brewline.models.weight_files import weights_among

_CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# What the library lets through of files that are no weights.
_DAMAGES = (ValueError, RuntimeError, KeyError, SafetensorError, pickle.UnpicklingError)


@dataclass(frozen=True)
class AudioFormat:
    """A kind of model that hears.

    Attributes:
        title: What people call it.
        kind: What its config says that it is.
        published: The class of transformers that reads what is published.
        encoder: The class of what is kept, which is `part` of that, or all of it.
        part: See `encoder`.
        extra: Of our package, which installs what it needs.
        needs: What its preprocessing must be, where it says so.
        keeps: What else of its preprocessing is kept, with what holds where it says nothing; None:
            what the library takes.
    """

    title: str
    kind: str
    published: str
    encoder: str
    part: str | None
    extra: str
    needs: Mapping[str, int]
    keeps: Mapping[str, Any]

    def encoder_class(self) -> Any:
        """The class of transformers that loads what `convert` wrote.

        Raises:
            BrewlineError: transformers is not installed.
        """
        return transformers_class(self.encoder, self.title, self.extra)

    def files(self, names: Collection[str], where: str) -> list[str]:
        """Of the files of a folder or of a repository, those that make such a model.

        Args:
            names: Of all the files.
            where: What an error calls their place.

        Raises:
            BrewlineError: some are missing.
        """
        needed, title = (_CONFIG, PREPROCESSOR), f"{self.title} of transformers"
        return [*needed, weights_among(names, where, title, needed, _WEIGHTS)]

    def convert(self, folder: Path, target: Path) -> None:
        """Writes the encoder, and how it wants its recordings.

        Args:
            folder: With the files that `files` names.
            target: A folder.

        Raises:
            BrewlineError: it is another model, is damaged, or wants its recordings otherwise than
                we have them; or transformers is not installed.
        """
        try:
            config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
            wants = json.loads((folder / PREPROCESSOR).read_text(encoding="utf-8"))
            kind, needed = config.get("model_type"), {name: wants[name] for name in self.needs}
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise BrewlineError(f"its {_CONFIG} or {PREPROCESSOR} is damaged: {error}") from None
        if kind != self.kind:
            raise BrewlineError(f"its {_CONFIG} is of {kind!r}, not of {self.kind!r}", "settings")
        for name, value in needed.items():
            if value != self.needs[name]:
                raise BrewlineError(
                    f"its {PREPROCESSOR} has {name}: {value}, and what we hear by it needs "
                    f"{self.needs[name]}"
                )
        model = self._load(folder)
        model.save_pretrained(target)
        # The library's version would give equal weights another hash.
        kept = model.config.to_diff_dict()
        kept.pop("transformers_version", None)
        _write(target / _CONFIG, kept)
        values = {name: wants.get(name, value) for name, value in self.keeps.items()}
        _write(
            target / PREPROCESSOR, {name: one for name, one in values.items() if one is not None}
        )

    def _load(self, folder: Path) -> Any:
        """The encoder, of weights that are whole."""
        published = transformers_class(self.published, self.title, self.extra)
        try:
            # Of pickled weights transformers takes nothing but tensors.
            model, found = published.from_pretrained(folder, output_loading_info=True)
        except (OSError, *_DAMAGES) as error:
            raise BrewlineError(f"its weights are damaged: {str(error).splitlines()[0]}") from None
        lacking = sorted([*found["missing_keys"], *map(str, found["mismatched_keys"])])
        # Stands for frames that are hidden in its own training, and for nothing else.
        lacking = [name for name in lacking if "masked_spec_embed" not in name]
        if lacking:
            raise BrewlineError(f"its weights lack {lacking[0]} ({len(lacking)} tensors in all)")
        return model if self.part is None else getattr(model, self.part)


# By their names under `backbones`, which are those of their folders too.
FORMATS: Mapping[str, AudioFormat] = {
    "hubert": AudioFormat(
        title="HuBERT",
        kind="hubert",
        published="HubertModel",
        encoder="HubertModel",
        part=None,
        extra="hubert",
        needs={"sampling_rate": 16_000},
        keeps={"do_normalize": True},
    ),
    "ast": AudioFormat(
        title="AST",
        kind="audio-spectrogram-transformer",
        published="ASTModel",
        encoder="ASTModel",
        part=None,
        extra="sounds",
        needs={"sampling_rate": 16_000, "num_mel_bins": 128},
        keeps={"do_normalize": True, "max_length": 1024, "mean": -4.2677393, "std": 4.5689974},
    ),
    "clap": AudioFormat(
        title="CLAP",
        kind="clap",
        published="ClapModel",
        encoder="ClapAudioModel",
        part="audio_model",
        extra="sounds",
        # A frame every 10 ms, as everywhere here.
        needs={"sampling_rate": 48_000, "hop_length": 480},
        keeps={
            "feature_size": 64,
            "max_length_s": 10,
            "fft_window_size": None,
            "frequency_min": None,
            "frequency_max": None,
            "padding": None,
            "truncation": None,
        },
    ),
}


def _write(path: Path, values: dict[str, object]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
