"""What the study consists of: its parameters, its corpora, and where everything of it lies."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from brewline.config import Params, parse_params
from brewline.config.loading import PARAMS_FILE, parse, read_yaml
from brewline.config.types import Name, PositiveFloat, PositiveInt, Section
from brewline.core.errors import BrewlineError

STUDY = Path("study")
PROJECT = Path(__file__).parents[1]
Layout = Literal["flickr8k", "lncoco", "ravdess", "videos"]
Count = Annotated[int, Field(ge=0)]


class Captioned(Section):
    """What is generated of layout flickr8k; the classes of these names in `sample/` say more."""

    layout: Literal["flickr8k"]
    pictures: dict[Literal["train", "dev", "test"], PositiveInt]
    speakers: PositiveInt
    unused_pictures: Count | None = None
    aspect: PositiveFloat | None = None


class Narrated(Section):
    """What is generated of layout lncoco."""

    layout: Literal["lncoco"]
    pictures: dict[Literal["train", "val"], PositiveInt]
    told_twice: dict[Literal["train", "val"], Count]
    speakers: PositiveInt


class Acted(Section):
    """What is generated of layout ravdess."""

    layout: Literal["ravdess"]
    actors: Annotated[int, Field(ge=1, le=24)]
    emotions: Annotated[int, Field(ge=1, le=8)]


class Filmed(Section):
    """What is generated of layout videos; `sample/videos.py` says more."""

    layout: Literal["videos"]
    clips: dict[Literal["train", "dev", "test"], PositiveInt]
    changing: bool


_SIZES: dict[str, type[Section]] = {
    "flickr8k": Captioned,
    "lncoco": Narrated,
    "ravdess": Acted,
    "videos": Filmed,
}


class _Layout(Section):
    layout: Layout


class _File(Section):
    """`params.yaml` of a study."""

    generator: dict[str, PositiveInt]
    generate: dict[Name, dict[str, Any]]
    pipeline: dict[str, Any]


@dataclass(frozen=True)
class Study:
    """A folder with `params.yaml` and `claims.yaml`; `results/` is committed, `work/` is not.

    `generator` is the number of each layout, `generate` says by the name of a corpus what is made,
    `values` are those of `params.yaml` of the workspace in which the pipeline runs.
    """

    folder: Path
    generator: Mapping[str, int]
    generate: Mapping[str, Mapping[str, Any]]
    values: Mapping[str, Any]

    @cached_property
    def params(self) -> Params:
        """The values, checked."""
        return parse_params(self.values, str(self.folder / "params.yaml"))

    def generated(self, corpus: str) -> dict[str, Any]:
        """What a corpus is made of, and the number of the generator that makes it."""
        made = dict(self.generate[corpus])
        return {"generate": made, "generator": self.generator[made["layout"]]}

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
    path = folder / "params.yaml"
    own = parse(_File, read_yaml(path), str(path))
    for name, size in own.generate.items():
        where = f"{path}: generate.{name}"
        layout = parse(_Layout, {"layout": size.get("layout")}, where).layout
        parse(_SIZES[layout], size, where)
    if set(own.generator) != set(_SIZES):
        wanted = ", ".join(_SIZES)
        raise BrewlineError(f"{path}: `generator` has to have a number of {wanted}", "settings")
    values = read_yaml(PROJECT / PARAMS_FILE) | own.pipeline
    missing = set(values["corpora"]) - set(own.generate)
    if missing:
        raise BrewlineError(
            f"{path}: nothing says how {', '.join(sorted(missing))} is generated; "
            "name it under `generate` too",
            "settings",
        )
    # Seen from the workspace. Folders are read in place. By YAML's anchors one may be several.
    values["sources"] = {
        name: source | {"files": {name: {"url": f"../corpora/{name}", "sha256": None}}}
        for name, source in values["sources"].items()
    }
    return Study(folder, own.generator, own.generate, values)


def digest(facts: Any) -> str:
    """A short name for what something was made of."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
