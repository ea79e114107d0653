"""Read the files of a published corpus in place: loose, in a tar, or in a zip.

Nothing is unpacked, because one file per utterance on disk makes every later step slow. Archives
come from outside and are not trusted: members that would leave their folder, links, devices and
names that occur twice are refused.
"""

import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from brewline.errors import BrewlineError


@dataclass(frozen=True)
class _Member:
    """A file: in a tar or loose, the bytes [offset, offset + size); in a zip, an entry."""

    container: Path
    offset: int | None
    size: int


def check_member_name(archive: Path, name: str) -> str:
    """Returns the name of an archive's member if it stays inside its folder.

    Raises:
        BrewlineError: it is absolute, climbs with `..`, or holds a NUL or a backslash.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
        raise BrewlineError(f"{archive} is refused: its member {name!r} would leave its folder")
    return PurePosixPath(name).as_posix()


def _tar_members(path: Path) -> Iterator[tuple[str, _Member]]:
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                if not member.isreg():
                    raise BrewlineError(
                        f"{path} is refused: its member {member.name!r} is a link or a device"
                    )
                yield member.name, _Member(path, member.offset_data, member.size)
    except tarfile.TarError as error:
        raise BrewlineError(f"{path} is not a whole, uncompressed tar archive: {error}") from None


def _zip_members(path: Path) -> Iterator[tuple[str, _Member]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.is_dir():
                    continue
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise BrewlineError(
                        f"{path} is refused: its member {member.filename!r} is a link"
                    )
                yield member.filename, _Member(path, None, member.file_size)
    except zipfile.BadZipFile as error:
        raise BrewlineError(f"{path} is not a whole zip archive: {error}") from None


class MediaStore:
    """The files under a corpus' folder by their published paths, whatever container holds them.

    A name with another audio suffix than the published one is found as well, so that a corpus
    may be stored in another codec (decoding goes by content).
    """

    def __init__(self, root: Path) -> None:
        """Lists the files.

        Raises:
            BrewlineError: the folder is missing, or an archive in it is damaged or hostile.
        """
        if not root.is_dir():
            raise BrewlineError(f"{root} is missing; run `dvc repro download`")
        self.root = root
        self._members: dict[str, _Member] = {}
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            if path.suffix == ".tar":
                self._add(path, _tar_members(path))
            elif path.suffix == ".zip":
                self._add(path, _zip_members(path))
            else:
                loose = _Member(path, 0, path.stat().st_size)
                self._add(root, iter([(path.relative_to(root).as_posix(), loose)]))
        self._by_stem = {name.rpartition(".")[0]: name for name in self._members}

    def _add(self, archive: Path, members: Iterator[tuple[str, _Member]]) -> None:
        for raw_name, member in members:
            name = check_member_name(archive, raw_name)
            # macOS' zip adds a shadow tree of resource forks; no corpus means them.
            if name.startswith("__MACOSX/"):
                continue
            if name in self._members:
                raise BrewlineError(f"{archive} is refused: {name!r} occurs twice")
            self._members[name] = member

    def names(self) -> list[str]:
        """Every file, sorted."""
        return sorted(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def find(self, name: str) -> str | None:
        """The stored name of a published file: itself, or the same stem with another suffix."""
        if name in self._members:
            return name
        return self._by_stem.get(name.rpartition(".")[0])

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            BrewlineError: there is no such file.
        """
        member = self._members.get(name)
        if member is None:
            raise BrewlineError(f"{self.root} has no file {name!r}")
        if member.offset is None:
            with zipfile.ZipFile(member.container) as archive:
                return archive.read(name)
        with member.container.open("rb") as file:
            return os.pread(file.fileno(), member.size, member.offset)

    def read_text(self, name: str) -> str:
        """The content of a UTF-8 text file.

        Raises:
            BrewlineError: there is no such file, or it is not UTF-8.
        """
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BrewlineError(f"{name!r} in {self.root} is not UTF-8 text: {error}") from None
