"""What a source says about the file that it has at this moment."""

from dataclasses import dataclass


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
