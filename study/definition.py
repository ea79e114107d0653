"""What the study consists of: its parameters, its corpora, and where everything of it lies."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from brewline.config import Params, parse_params
from brewline.config.loading import PARAMS_FILE, read_yaml
from brewline.core.errors import BrewlineError
from brewline.core.files import sha256_file

STUDY = Path("study")
PROJECT = Path(__file__).parents[1]
# Of the files of `sample/`, what makes its own corpora and weights.
_NO_PART = ("build", "train_clip", "train_whisper")


@dataclass(frozen=True)
class Study:
    """A folder with `params.yaml` and `claims.yaml`; `results/` is committed, `work/` is not.

    `generate` says by the name of a corpus what is made, `values` are those of `params.yaml` of the
    workspace in which the pipeline runs.
    """

    folder: Path
    generate: Mapping[str, Mapping[str, Any]]
    values: Mapping[str, Any]

    @cached_property
    def params(self) -> Params:
        """The values, checked."""
        return parse_params(self.values, str(self.folder / "params.yaml"))

    @cached_property
    def generator(self) -> str:
        """What the generator is, by its files: another one makes other corpora."""
        files = sorted((PROJECT / "sample").glob("*.py"))
        return digest({path.name: sha256_file(path) for path in files if path.stem not in _NO_PART})

    @property
    def results(self) -> Path:
        """What finished parts left."""
        return self.folder / "results"

    @property
    def corpora(self) -> Path:
        """The generated corpora."""
        return self.folder / "work/corpora"

    @property
    def workspace(self) -> Path:
        """Where the pipeline runs."""
        return self.folder / "work/project"


def load_study(folder: Path = STUDY) -> Study:
    """Reads `params.yaml` of a study.

    Raises:
        BrewlineError: it is not valid, or a corpus is in the pipeline and is not generated.
    """
    own = read_yaml(folder / "params.yaml")
    values = read_yaml(PROJECT / PARAMS_FILE) | own["pipeline"]
    missing = set(values["corpora"]) - set(own["generate"])
    if missing:
        raise BrewlineError(
            f"{folder}/params.yaml: nothing says how {', '.join(sorted(missing))} is generated; "
            "name it under `generate` too",
            "settings",
        )
    # Seen from the workspace. Folders are read in place.
    for name, source in values["sources"].items():
        source["files"] = {name: {"url": f"../corpora/{name}", "sha256": None}}
    return Study(folder, own["generate"], values)


def digest(facts: Any) -> str:
    """A short name for what something was made of."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
