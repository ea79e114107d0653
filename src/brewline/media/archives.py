"""Read the files of a published corpus in place: loose, in archives, or in Parquet tables.

Nothing is unpacked, because one file per utterance on disk makes every later step slow. Names come
from outside and are not trusted: members that would leave their folder and names that occur twice
are refused. What each kind of container refuses beyond that stands in `containers`, `tars`, `zips`
and `parquet_tables`.
"""

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from brewline.core.errors import BrewlineError
from brewline.core.files import total_size
from brewline.media.containers import MAX_MEMBERS, Container, LooseFile, Place, refused
from brewline.media.parquet_tables import ParquetTable
from brewline.media.tars import GzippedTar, Tar
from brewline.media.zips import Zip

LINKS = "links.json"
# Suffixes under which a recording may be stored instead of its published one.
AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".opus", ".mp3"),
    *(".m4a", ".webm", ".aac", ".amr", ".wma", ".aiff"),
)


def check_member_name(archive: Path, name: str) -> str:
    """Returns the name of an archive's member if it stays inside its folder.

    Raises:
        BrewlineError: it is absolute, climbs with `..`, or holds a NUL or a backslash.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
        raise refused(archive, f"its member {name!r} would leave its folder")
    return "/".join(parts)


def _is_shadow(name: str) -> bool:
    """Hidden files, and the tree of resource forks that macOS adds; no corpus means them."""
    return any(sign in f"/{name}" for sign in ("/.", "/__MACOSX/"))


def open_container(path: Path, name: str) -> Container:
    """The container at `path`; what kind it is, its published name says."""
    kinds: dict[str, Callable[[Path], Container]] = {
        ".tar": Tar,
        ".tar.gz": GzippedTar,
        ".tgz": GzippedTar,
        ".zip": Zip,
        ".parquet": ParquetTable,
    }
    for suffix, kind in kinds.items():
        if name.lower().endswith(suffix):
            return kind(path)
    return LooseFile(path, name)


class MediaStore:
    """The files under a corpus' folder by their published paths, whatever container holds them.

    Sources that are used where they lie are named by `links.json`:
    `{"<published name>": {"path": "<absolute path>", "size": <bytes>}}`; of a folder, the files
    are found below the published name. A name with another audio suffix than the published one is
    found as well, so that a corpus may be stored in another codec (decoding goes by content).
    """

    def __init__(self, root: Path) -> None:
        """Lists the files.

        Raises:
            BrewlineError: the folder is missing, a linked source has changed, or an archive is
                damaged or hostile.
        """
        if not root.is_dir():
            raise BrewlineError(f"{root} is missing; run `dvc repro download`")
        self.root = root
        self._members: dict[str, tuple[Container, Place]] = {}
        self._tables: dict[str, ParquetTable] = {}
        for name, path in sorted([*_files_below(root), *_linked(root)]):
            container = open_container(path, name)
            if isinstance(container, ParquetTable):
                self._tables[name] = container
            for member, place in container.members():
                self._add(path, member, container, place)
        self._names = sorted(self._members)

    def _add(self, archive: Path, raw_name: str, container: Container, place: Place) -> None:
        name = check_member_name(archive, raw_name)
        if _is_shadow(name):
            return
        if name in self._members:
            raise refused(archive, f"{name!r} occurs twice")
        if len(self._members) == MAX_MEMBERS:
            raise BrewlineError(f"{self.root} is refused: it has more than {MAX_MEMBERS} files")
        self._members[name] = container, place

    def names(self) -> list[str]:
        """Every file, sorted; not to be changed."""
        return self._names

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def find(self, name: str) -> str | None:
        """The stored name of a published file: itself, or the same with another audio suffix."""
        stem = name.rpartition(".")[0]
        candidates = (name, *(stem + suffix for suffix in AUDIO_SUFFIXES))
        return next((each for each in candidates if each in self._members), None)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            BrewlineError: there is no such file, or it is cut off.
        """
        try:
            with self._open(name) as file:
                return file.read()
        except EOFError:
            raise BrewlineError(f"{name!r} in {self.root} is cut off") from None

    def read_text(self, name: str) -> str:
        """The content of a text file; see `lines`."""
        return "".join(self.lines(name))

    def lines(self, name: str) -> Iterator[str]:
        """The lines of a UTF-8 text file, read as they are asked for.

        Bytes that are no UTF-8 come as lone surrogates: a check finds the row that they are in,
        and the others are read.

        Raises:
            BrewlineError: there is no such file, or it is cut off.
        """
        text = io.TextIOWrapper(self._open(name), encoding="utf-8-sig", errors="surrogateescape")
        try:
            with text:
                yield from text
        except EOFError:
            raise BrewlineError(f"{name!r} in {self.root} is cut off") from None

    def tables(self) -> list[str]:
        """Every Parquet table, sorted; the media in them are among the files."""
        return sorted(self._tables)

    def rows(self, table: str, columns: list[str]) -> Iterator[dict[str, Any]]:
        """The rows of a Parquet table, with these columns only.

        Raises:
            BrewlineError: it lacks one of the columns.
        """
        return self._tables[table].rows(columns)

    def _open(self, name: str) -> BinaryIO:
        if name not in self._members:
            raise BrewlineError(f"{self.root} has no file {name!r}")
        container, place = self._members[name]
        return container.open(place)


def _files_below(folder: Path, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Every file of a folder and what it is called, which is below `prefix`."""
    for parent, _, files in os.walk(folder):
        for file in files:
            path = Path(parent, file)
            name = prefix + path.relative_to(folder).as_posix()
            # Neither pipes, which block, nor links that lead nowhere.
            if name != LINKS and path.is_file():
                yield name, path


def _linked(root: Path) -> Iterator[tuple[str, Path]]:
    """The files of the sources that are used where they lie."""
    if not (root / LINKS).exists():
        return
    for name, link in json.loads((root / LINKS).read_text(encoding="utf-8")).items():
        path = Path(link["path"])
        if not path.exists():
            raise BrewlineError(f"{path}, which is {name!r} of {root}, is gone")
        size = total_size(path)
        if size != link["size"]:
            raise BrewlineError(
                f"{path} has changed since the download: {size} bytes, not {link['size']}; "
                "run `dvc repro download --force`"
            )
        if path.is_dir():
            yield from _files_below(path, f"{name.rstrip('/')}/")
        else:
            yield name, path
