"""Bring a file here, whole and verified, from a path or over HTTP."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import requests
from tqdm import tqdm

from brewline.errors import BrewlineError
from brewline.files import atomic_path, sha256_file, work_dir
from brewline.params import FileParams

# What a cut connection costs at most.
_CHUNK_BYTES = 1 << 16
_TIMEOUT_S = 60


def fetch(source: FileParams, target: Path) -> str:
    """Makes `target` a copy of what `source` names, and verifies it.

    A transfer over HTTP that was cut is continued by the next call, if the server still has the
    same file. The old `target`, if any, stays until the new one is whole and right.

    Returns:
        The SHA-256 of the content.

    Raises:
        BrewlineError: the source is missing or unreachable, or the content has another hash.
    """
    scheme = urlparse(source.url).scheme
    if scheme in ("http", "https"):
        arrived = _fetch_http(source.url)
        digest = _verify(arrived, source)
        with atomic_path(target) as partial:
            shutil.move(arrived, partial)
        shutil.rmtree(arrived.parent)
        return digest
    if scheme not in ("", "file"):
        raise BrewlineError(
            f"cannot read {source.url!r}: known are paths, file://, http:// and https://",
            "settings",
        )
    path = Path(urlparse(source.url).path if scheme else source.url)
    if not path.is_file():
        raise BrewlineError(f"{path} is missing; expected {_wanted(source)}")
    digest = _verify(path, source)
    with atomic_path(target) as partial:
        shutil.copyfile(path, partial)
    return digest


def _wanted(source: FileParams) -> str:
    return f"a file with SHA-256 {source.sha256}" if source.sha256 else "a file"


def _verify(path: Path, source: FileParams) -> str:
    digest = sha256_file(path)
    if source.sha256 and digest != source.sha256:
        raise BrewlineError(
            f"{source.url} is damaged or another version: expected SHA-256 {source.sha256}, "
            f"found {digest}"
        )
    return digest


def _fetch_http(url: str) -> Path:
    """Downloads into the work folder, continuing what is there of the same version."""
    folder = work_dir("download", hashlib.sha256(url.encode()).hexdigest()[:16])
    part, version_file = folder / "part", folder / "version.json"
    have = part.stat().st_size if part.exists() and version_file.exists() else 0
    version = json.loads(version_file.read_text()) if have else None
    # If-Range: the rest of this very version, or else the whole of the new one.
    headers = {"Range": f"bytes={have}-", "If-Range": version} if have and version else {}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            if response.status_code == 416:
                shutil.rmtree(folder)
                raise BrewlineError(f"{url}: the server has less than is here already; run again")
            response.raise_for_status()
            continued = response.status_code == 206
            version_file.write_text(json.dumps(_strong_version(response.headers)))
            _save(response, part, have if continued else 0)
    except requests.RequestException as error:
        raise BrewlineError(f"{url}: {error}; run it again to continue", "network") from None
    return part


def _strong_version(headers: Mapping[str, str]) -> str | None:
    """What identifies these bytes: a strong ETag, or the date of the last change."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _save(response: requests.Response, part: Path, have: int) -> None:
    length = int(response.headers.get("Content-Length", 0))
    total = have + length
    with (
        part.open("ab" if have else "wb") as file,
        tqdm(
            desc=Path(urlparse(response.url).path).name,
            initial=have,
            total=total or None,
            unit="B",
            unit_scale=True,
            disable=None,
        ) as progress,
    ):
        for chunk in response.iter_content(_CHUNK_BYTES):
            file.write(chunk)
            progress.update(len(chunk))
    if length and part.stat().st_size != total:
        raise BrewlineError(
            f"{response.url} ended after {part.stat().st_size} of {total} bytes; run it again to "
            "continue",
            "network",
        )
