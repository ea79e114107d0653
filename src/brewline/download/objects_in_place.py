"""Sources in an object store that are read where they lie: what `links.json` says of them."""

import hashlib
from dataclasses import asdict

from brewline.config.sources import FileParams
from brewline.core.errors import BrewlineError
from brewline.media.objects import StoredObject, is_prefix, is_stored, look


def is_object_in_place(file: FileParams) -> bool:
    """Whether a source is in an object store and read there; all that lies below a prefix is."""
    return is_stored(file.url) and (file.in_place or is_prefix(file.url))


def object_entry(name: str, file: FileParams) -> dict[str, str | int]:
    """What `links.json` says of a source; a `sha256` is checked by reading all of the object.

    Raises:
        BrewlineError: it is missing or not what `file` says, or the store cannot be reached.
    """
    found = look(file.url)
    if found.tag is None:
        raise BrewlineError(f"{found} cannot be read in place: its store names no version of it")
    if file.size not in (None, found.size):
        raise BrewlineError(f"{found} has {found.size} bytes; expected are {file.size}")
    if file.sha256:
        _check(name, found, file.sha256)
    return asdict(found)


def _check(name: str, found: StoredObject, sha256: str) -> None:
    if is_prefix(found.url):
        raise BrewlineError(
            f"{name}: of what lies below a prefix no sha256 can be checked; say null", "settings"
        )
    with found.open() as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
    if digest != sha256:
        raise BrewlineError(
            f"{found} is damaged or another version: expected SHA-256 {sha256}, found {digest}"
        )
