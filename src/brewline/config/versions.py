"""The versions of the expensive stages: `versions.yaml`, read strictly."""

from pathlib import Path

from brewline.config.loading import parse, read_yaml
from brewline.config.types import PositiveInt, Section

VERSIONS_FILE = Path("versions.yaml")


class Versions(Section):
    """One number per expensive stage, raised by hand when its outputs change.

    It stands for the stage's code: in `dvc.yaml`, and in the names of partial work.
    """

    inspect: PositiveInt
    transcribe: PositiveInt
    shard: PositiveInt
    layers: PositiveInt
    augment: PositiveInt
    encode: PositiveInt
    train: PositiveInt
    embed: PositiveInt


def load_versions(path: Path = VERSIONS_FILE) -> Versions:
    """Reads and checks `versions.yaml`.

    Raises:
        BrewlineError: naming every bad key with its value and the choices.
    """
    return parse(Versions, read_yaml(path), str(path))
