"""Sources that lie on this machine: copied from there, or read in place."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from brewline.config.sources import OBJECT_STORES, FileParams, SourceParams
from brewline.core.errors import BrewlineError

_SCHEMES = ("http", "https", "hf", *OBJECT_STORES)
# Of a watched corpus: what every `dvc repro` finds, beside what `places` named.
PLACES_DIR = Path("data/places")
NAMED_FILE = "named.json"
FOUND_FILE = "found.json"


def local_path(url: str) -> Path | None:
    """The path that a URL names, or none if it names another machine.

    Raises:
        BrewlineError: we cannot read such URLs.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if not parts.scheme:
        return Path(url)
    if parts.scheme in _SCHEMES:
        return None
    raise BrewlineError(
        f"cannot read {url!r}: known are paths, file://, "
        f"{', '.join(f'{scheme}://' for scheme in _SCHEMES)}",
        "settings",
    )


def missing(path: Path) -> BrewlineError:
    """The error that says that nothing is at a path, and what to do."""
    return BrewlineError(
        f"{path} is missing on this machine; bring it back, or say in params.yaml where it is"
    )


def path_in_place(file: FileParams) -> Path | None:
    """The path of a file or folder that is read where it lies, or none if it is to be copied."""
    path = local_path(file.url)
    return path if path is not None and (file.in_place or path.is_dir()) else None


def places_of(source: SourceParams) -> dict[str, Path]:
    """The paths whose content may change under a corpus, by published name.

    A file that is copied and has its hash in `params.yaml` is not among them: no other content
    gets in.
    """
    paths = {name: local_path(file.url) for name, file in source.files.items()}
    return {
        name: path
        for name, path in paths.items()
        if path is not None
        and (source.files[name].sha256 is None or path_in_place(source.files[name]))
    }
