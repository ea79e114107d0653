"""Bring one file here, whole and verified, from the first of its places that has it right."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from brewline.config.sources import FileParams
from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path, link, remove, sha256_file, sync, work_dir
from brewline.core.locks import locked
from brewline.download.checksums import (
    Checksum,
    checksums_file,
    read_checksums,
    record_checksums,
    today,
)
from brewline.download.local import local_path
from brewline.download.places import bring
from brewline.download.troubles import shown
from brewline.download.version import Version
from brewline.download.whole import check_whole

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """A verified file: where it lies for now, and what is worth recording of it."""

    path: Path
    checksum: Checksum


def fetch(source: FileParams, target: Path, owner: str) -> str:
    """Makes `target` a copy of what `source` names, and verifies it.

    A transfer that was cut is continued by the next call, if the server still has the same file.
    The old `target`, if any, stays until the new one is whole and right.

    Args:
        source: Where the file is, and what it must be.
        target: Where it goes; its name is the published one.
        owner: Whose partial work and whose checksums these are.

    Returns:
        The SHA-256 of the content.

    Raises:
        BrewlineError: the source is missing or unreachable, or the content is not the right one.
    """
    folder = work_dir("download", owner)
    known = read_checksums(owner).get(target.name)
    with alone(folder):
        fetched = fetch_verified(target.name, source, folder, known, checksums_file(owner))
        with atomic_path(target) as partial:
            link(fetched.path, partial)
        if is_recorded(source):
            record_checksums(owner, {target.name: fetched.checksum})
        remove(folder)
    return fetched.checksum.sha256


def fetch_verified(
    name: str, source: FileParams, folder: Path, known: Checksum | None, record: Path
) -> Fetched:
    """Brings a file into the work folder, trying its places in order.

    Args:
        name: The published name.
        source: Where it is, and what it must be.
        folder: For partial work; what lies there is continued.
        known: What an earlier download found, which counts where `source` has no hash.
        record: The file that has `known`, to be named in an error.

    Raises:
        BrewlineError: no place has the right file; of kind `network` if one may have it later.
    """
    troubles = []
    for url in (source.url, *source.mirrors):
        try:
            return _fetch_from(url, name, source, folder, known, record)
        except BrewlineError as error:
            _log.warning("%s: %s", name, error)
            troubles.append(error)
    if len(troubles) == 1:
        raise troubles[0]
    kinds = [trouble.kind for trouble in troubles]
    raise BrewlineError(
        f"{name}: none of its {len(troubles)} sources has it right:\n  "
        + "\n  ".join(str(trouble) for trouble in troubles),
        "network" if "network" in kinds else kinds[0],
    )


def is_recorded(source: FileParams) -> bool:
    """Whether the hash that is found is to be kept: none is given, and the file is not ours.

    What lies at a path is the user's, who may change it.
    """
    return source.sha256 is None and local_path(source.url) is None


def partial_path(folder: Path, name: str, url: str) -> Path:
    """Where the part that came from `url` lies: apart from those of other names and places."""
    key = hashlib.sha256(f"{name}\0{url}".encode()).hexdigest()[:16]
    return folder / key / "part"


def _fetch_from(
    url: str,
    name: str,
    source: FileParams,
    folder: Path,
    known: Checksum | None,
    record: Path,
) -> Fetched:
    part = partial_path(folder, name, url)
    may_repeat = True
    while True:
        part.parent.mkdir(parents=True, exist_ok=True)
        version = bring(url, part, source.size)
        try:
            sync(part)
            digest = _verify(part, name, url, version, source, known, record)
        except BrewlineError:
            remove(part.parent)
            # The pieces may be of two versions that the server gives the same tag.
            if version.pieces == 1 or not may_repeat:
                raise
            may_repeat = False
            continue
        size = part.stat().st_size
        return Fetched(part, Checksum(digest, size, version.url, version.tag, today()))


def _verify(
    part: Path,
    name: str,
    url: str,
    version: Version,
    source: FileParams,
    known: Checksum | None,
    record: Path,
) -> str:
    size = part.stat().st_size
    if source.size is not None and size != source.size:
        raise BrewlineError(f"{shown(url)} has {size} bytes; expected are {source.size}")
    digest = sha256_file(part)
    wanted = source.sha256 or (known.sha256 if known else version.sha256)
    if wanted is None:
        if not version.delimited and source.size is None:
            raise BrewlineError(
                f"{shown(url)} does not say where the file ends, so a cut would pass for it; give "
                f"its size or sha256 in params.yaml (found are {size} bytes, SHA-256 {digest})"
            )
        check_whole(part, name)
    elif digest != wanted:
        hint = ""
        if known and not source.sha256:
            hint = f" (found on {known.date}; if it was replaced, take {name!r} out of {record})"
        raise BrewlineError(
            f"{shown(url)} is damaged or another version: expected SHA-256 {wanted}{hint}, "
            f"found {digest}"
        )
    return digest


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder of partial work; a killed one keeps nobody out.

    Raises:
        BrewlineError: another process is at it.
    """

    def refuse(holder: str) -> None:
        raise BrewlineError(
            f"another download (process {holder}) works in {folder}; wait for it", "busy"
        )

    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f"{folder.name}.lock"), refuse):
        yield
