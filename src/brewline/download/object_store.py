"""Files in an object store, through fsspec: `s3://<bucket>/<key>`.

Keys, endpoint and region come from the environment and the files that the store's own tools read.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from brewline.core.errors import BrewlineError
from brewline.core.files import remove, write_json
from brewline.download.troubles import explained
from brewline.download.version import Version

_CHUNK_BYTES = 1 << 22


@contextmanager
def _store(url: str) -> Iterator[tuple[Any, str]]:
    """Yields the file system and the path in it, and says what is wrong in our words."""
    from fsspec.core import url_to_fs

    with explained(url):
        try:
            yield url_to_fs(url)
        except ImportError:
            raise BrewlineError(
                f"{url} needs one more package: uv pip install s3fs", "settings"
            ) from None
        except FileNotFoundError:
            raise BrewlineError(f"{url} is not there") from None
        except PermissionError as error:
            raise BrewlineError(
                f"{url} is not open to these credentials: {error}", "settings"
            ) from None


def _version(filesystem: Any, url: str, path: str) -> Version:
    filesystem.invalidate_cache()
    facts = filesystem.info(path)
    tag = facts.get("ETag") or facts.get("LastModified") or facts.get("created")
    return Version(url=url, size=facts["size"], tag=str(tag) if tag else None)


def look(url: str) -> Version:
    """Asks for the size and the version of a file, without its content.

    Raises:
        BrewlineError: there is no such file, or the store cannot be reached or opened.
    """
    with _store(url) as (filesystem, path):
        return _version(filesystem, url, path)


def bring(url: str, part: Path) -> Version:
    """Makes `part` the file at `url`, going on from what is there of the same version.

    The store is asked for the version before and after, so that no two are joined.

    Raises:
        BrewlineError: see `look`; or the file changed meanwhile.
    """
    version_file = part.with_name("version.json")
    with _store(url) as (filesystem, path):
        version = _version(filesystem, url, path)
        known = json.loads(version_file.read_text()) if version_file.exists() else None
        if known != asdict(version) or version.tag is None:
            remove(part)
            write_json(version_file, asdict(version))
        with (
            filesystem.open(path, "rb") as source,
            part.open("ab") as file,
            tqdm(
                desc=PurePosixPath(path).name,
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
        if _version(filesystem, url, path) != version or part.stat().st_size != version.size:
            remove(part)
            raise BrewlineError(f"{url} changed while it was read; run it again", "network")
    return version
