"""What a source says about the file that it has at this moment."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit


@dataclass(frozen=True)
class Version:
    """One version of a file at one source.

    Args:
        url: Where the bytes are, after redirects and without secrets.
        size: In bytes, or none where the source does not say.
        tag: Equal only for equal bytes (a strong ETag, a date of change, a commit), or none.
        sha256: As the source publishes it, or none.
        delimited: Whether the source marks the end, so that a cut can be told from it.
        pieces: From how many transfers the file was put together.
    """

    url: str
    size: int | None
    tag: str | None
    sha256: str | None = None
    delimited: bool = True
    pieces: int = 1


def shown(url: str) -> str:
    """A URL as it may be printed and kept: without user, password, signature and fragment."""
    parts = urlsplit(url)
    if not parts.scheme:
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def sync(path: Path) -> None:
    """Waits until the content of a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
