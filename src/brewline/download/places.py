"""Where a file can be: a path, `file://`, `http://`, `https://`, `hf://`, or an object store."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit

from brewline.config.sources import OBJECT_STORES
from brewline.core.files import total_size
from brewline.download import web
from brewline.download.local import local_path, missing
from brewline.download.version import Version


def look(url: str) -> Version:
    """Asks for the size and the version of a file, without its content.

    Raises:
        BrewlineError: the file is missing, or its place cannot be reached or read.
    """
    path = local_path(url)
    if path is not None:
        if not path.exists():
            raise missing(path)
        return Version(url=url, size=total_size(path), tag=None)
    scheme = urlsplit(url).scheme
    if scheme == "hf":
        from brewline.download import hub

        return hub.look(url)
    if scheme in OBJECT_STORES:
        from brewline.download import object_store

        return object_store.look(url)
    return web.look(url)


def bring(url: str, part: Path, size: int | None) -> Version:
    """Makes `part` a whole copy of one version of the file at `url`.

    Args:
        url: See the head of this module.
        part: In a folder of its own; what an earlier call left there is continued.
        size: What the file must have, in bytes, if that is known.

    Raises:
        BrewlineError: the file is missing, or its place cannot be reached or read.
    """
    path = local_path(url)
    if path is not None:
        if not path.is_file():
            raise missing(path)
        shutil.copyfile(path, part)
        return Version(url=url, size=part.stat().st_size, tag=None)
    scheme = urlsplit(url).scheme
    if scheme == "hf":
        from brewline.download import hub

        return hub.bring(url, part)
    if scheme in OBJECT_STORES:
        from brewline.download import object_store

        return object_store.bring(url, part)
    return web.bring(url, part, size)
