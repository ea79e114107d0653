"""What the files of a corpus may lie in: a folder, or one of several kinds of archives.

They lie on a disk of this machine, or in an object store (`objects.StoredObject`). Each container
lists its members once and then reads any of them in place; nothing is unpacked. Containers come
from outside and are not trusted: what could leave its folder, point elsewhere or swell beyond
measure is refused, with the reason.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from brewline.core.errors import BrewlineError

# Where a member lies in its container; only the container knows what the numbers mean.
Place = tuple[int, ...]

# The largest speech corpora have under a million recordings and pictures (Localized Narratives on
# Open Images: 671,000 of each); a listing takes some 300 bytes of memory a member.
MAX_MEMBERS = 2_000_000

# Deflate reaches 1,032 at most, and does on silence. Speech and pictures reach 2, annotations 20.
# So a high ratio is refused where it is large enough to hurt.
MAX_RATIO = 100
HARMLESS_BYTES = 256 << 20


class RawFile(Protocol):
    """A file as it was published, wherever it lies; as text, it is its path or its address."""

    def __hash__(self) -> int: ...

    @property
    def name(self) -> str:
        """The last part of its path or address."""
        ...

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    @property
    def version(self) -> str:
        """Names these bytes: another text as soon as they change."""
        ...

    @property
    def is_near(self) -> bool:
        """Whether a read in the middle of it costs next to nothing."""
        ...

    def open(self) -> BinaryIO:
        """Opens it for reading at any place."""
        ...

    def for_library(self) -> str | BinaryIO:
        """What a library is given that reads by itself: a path, or an open file if it has none."""
        ...


@dataclass(frozen=True)
class LocalFile:
    """A raw file on a disk of this machine."""

    path: Path
    is_near = True

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    @property
    def version(self) -> str:
        facts = self.path.stat()
        return f"{self.path.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}"

    def open(self) -> BinaryIO:
        return self.path.open("rb")

    def for_library(self) -> str | BinaryIO:
        return str(self.path)


class PlacedFile(NamedTuple):
    """A file of a corpus, with what it takes to read it where nobody knows the corpus' listing.

    `places` has, for each place where it lies (there are several where an archive repeats another),
    the container's file, its published name, and the place in it.
    """

    name: str
    places: tuple[tuple[RawFile, str, Place], ...]


class Container(Protocol):
    """Files under one roof."""

    @property
    def file(self) -> RawFile:
        """Where it lies."""
        ...

    def members(self) -> Iterator[tuple[str, Place]]:
        """Lists the files with their names as stored, in the order of the container.

        Raises:
            BrewlineError: the container is damaged or hostile.
        """
        ...

    def open(self, place: Place) -> BinaryIO:
        """Opens a file for reading from its beginning to its end.

        Raises:
            BrewlineError: it cannot be read.
        """
        ...


def refused(file: RawFile | Path, reason: str) -> BrewlineError:
    """The error for a hostile container."""
    return BrewlineError(f"{file} is refused: {reason}")


def name_as_text(raw: bytes, cp437: bool = False) -> str:
    """Reads the name of a file whose encoding nobody tells, without losing a byte of it.

    Names are UTF-8 nowadays, and what is none of it is hardly ever valid UTF-8. Older programs
    wrote Latin-1, and into zips the CP437 of DOS (APPNOTE.TXT, appendix D). CP437 has frames and
    signs of mathematics where Latin-1 has its letters, so a name without a byte below those
    letters is taken for Latin-1.

    Args:
        raw: The bytes of the name.
        cp437: Whether it may be CP437.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        is_cp437 = cp437 and any(0x80 <= byte < 0xC0 for byte in raw)
        return raw.decode("cp437" if is_cp437 else "latin-1")


class LooseFile:
    """A file that is in no container: the only member of its own, under its published name."""

    def __init__(self, file: RawFile, name: str) -> None:
        self.file, self._name = file, name

    def members(self) -> Iterator[tuple[str, Place]]:
        yield self._name, ()

    def open(self, place: Place) -> BinaryIO:
        del place
        return self.file.open()


class FilePart(io.RawIOBase):
    """The bytes [offset, offset + size) of an open file, which is closed with it."""

    def __init__(self, file: BinaryIO, offset: int, size: int, owned: bool) -> None:
        self._file, self._offset, self._left, self._owned = file, offset, size, owned

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._offset)
        chunk = self._file.read(min(len(buffer), self._left))
        if self._left and not chunk and len(buffer):
            raise EOFError
        buffer[: len(chunk)] = chunk
        self._offset += len(chunk)
        self._left -= len(chunk)
        return len(chunk)

    def readall(self) -> bytes:
        # All that is left at once, where Python's own goes in steps of 8 KiB.
        self._file.seek(self._offset)
        content = self._file.read(self._left)
        if len(content) < self._left:
            raise EOFError
        self._offset += len(content)
        self._left = 0
        return content

    def close(self) -> None:
        if self._owned:
            self._file.close()
        super().close()
