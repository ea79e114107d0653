"""Copies of objects in a store; how they are reached, `media/objects.py` says."""

import json
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from brewline.core.errors import BrewlineError
from brewline.core.files import remove, write_json
from brewline.download.version import Version
from brewline.media import objects

_CHUNK_BYTES = 1 << 22


def look(url: str) -> Version:
    """Asks for the size and the version of a file, without its content.

    Raises:
        BrewlineError: there is no such file, or the store cannot be reached or opened.
    """
    if objects.is_prefix(url):
        raise BrewlineError(
            f"{url} stands for all objects below it, which are read in place and not copied",
            "settings",
        )
    found = objects.look(url)
    return Version(url=url, size=found.size, tag=found.tag)


def bring(url: str, part: Path) -> Version:
    """Makes `part` the file at `url`, going on from what is there of the same version.

    The store is asked for the version before and after, so that no two are joined.

    Raises:
        BrewlineError: see `look`; or the file changed meanwhile.
    """
    version_file = part.with_name("version.json")
    version = look(url)
    known = json.loads(version_file.read_text()) if version_file.exists() else None
    if known != asdict(version) or version.tag is None:
        remove(part)
        write_json(version_file, asdict(version))
    with (
        objects.opened_store(url) as filesystem,
        filesystem.open(url, "rb") as source,
        part.open("ab") as file,
        tqdm(
            desc=url.rpartition("/")[2],
            initial=file.tell(),
            total=version.size,
            unit="B",
            unit_scale=True,
            disable=None,
        ) as progress,
    ):
        source.seek(file.tell())
        while chunk := source.read(_CHUNK_BYTES):
            file.write(chunk)
            progress.update(len(chunk))
    if look(url) != version or part.stat().st_size != version.size:
        remove(part)
        raise BrewlineError(f"{url} changed while it was read; run it again", "network")
    return version
