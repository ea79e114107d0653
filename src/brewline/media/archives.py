"""Read the files of a published corpus in place: loose, in archives, or in Parquet tables.

Nothing is unpacked, because one file per utterance on disk makes every later step slow. Names come
from outside and are not trusted: members that would leave their folder are refused. A name is known
by one spelling, `canonical_name`, whatever wrote it; a file that lies there twice with different
content is refused when it is asked for. What each kind of container refuses beyond that stands in
`containers`, `tars`, `zips` and `parquet_tables`.
"""

import codecs
import hashlib
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from brewline.core.errors import BrewlineError
from brewline.core.survey import files_at, is_shadow
from brewline.media.containers import (
    MAX_MEMBERS,
    Container,
    LooseFile,
    Place,
    PlacedFile,
    RawFile,
    refused,
)
from brewline.media.links import LINKS, files_below, linked_files
from brewline.media.objects import PATIENCE_S
from brewline.media.parquet_tables import ParquetTable
from brewline.media.tars import GzippedTar, Tar
from brewline.media.zips import Zip

# Suffixes under which a recording may be stored instead of its published one.
AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".opus", ".mp3"),
    *(".m4a", ".webm", ".aac", ".amr", ".wma", ".aiff"),
)
# Suffixes of files that have pictures and sound, mostly; a WebM or an MP4 may have sound alone.
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"),
    *(".mpg", ".mpeg", ".ts", ".3gp", ".flv", ".wmv", ".ogv"),
)

# The longest lines that are published, narratives with the traces of their mice, have some 2 MB.
MAX_LINE_CHARS = 32 << 20
# A whole text is read at once where it is one JSON; COCO's captions with their tokens have 150 MB.
MAX_TEXT_CHARS = 1 << 30
# What a text begins with that is no UTF-8; UTF-32 before UTF-16, whose mark it begins with.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_DRIVE = re.compile(r"[A-Za-z]:")


def canonical_name(name: str) -> str:
    """Returns the one spelling by which the files of a corpus are known.

    Accents are parts of their letters (NFC; macOS writes them apart, NFD), and folders end in `/`
    (on Windows in a backslash).
    """
    if name.isascii():
        return name.replace("\\", "/")
    return unicodedata.normalize("NFC", name).replace("\\", "/")


def check_member_name(archive: RawFile | Path, name: str) -> str:
    """Returns the canonical name of an archive's member if it stays inside its folder.

    Raises:
        BrewlineError: it is absolute, climbs with `..`, or holds a NUL.
    """
    canonical = canonical_name(name)
    parts = [part for part in canonical.split("/") if part not in ("", ".")]
    if (
        not parts
        or canonical.startswith("/")
        or ".." in parts
        or "\0" in name
        or ("\\" in name and _DRIVE.match(name))
    ):
        raise refused(archive, f"its member {name!r} would leave its folder")
    return "/".join(parts)


def loosely(name: str) -> str:
    """Returns what is left of a name without its capitals, accents and variants of signs."""
    if name.isascii():
        return name.casefold()
    apart = unicodedata.normalize("NFKD", name)
    return "".join(sign for sign in apart if not unicodedata.combining(sign)).casefold()


def open_container(file: RawFile, name: str) -> Container:
    """The container that a file is; what kind it is, its published name says."""
    kinds: dict[str, Callable[[RawFile], Container]] = {
        ".tar": Tar,
        ".tar.gz": GzippedTar,
        ".tgz": GzippedTar,
        ".zip": Zip,
        ".parquet": ParquetTable,
    }
    for suffix, kind in kinds.items():
        if name.lower().endswith(suffix):
            return kind(file)
    return LooseFile(file, name)


class MediaStore:
    """The files under a corpus' folder by their published paths, whatever container holds them.

    Sources that are used where they lie are named by `links.json`, each with its path and the
    `survey` of what was there (`{"<published name>": {"path": "<absolute path>", ...}}`), or of an
    object store `{"<published name>": {"url": "<address>", "size": <bytes>, "tag": "<version>"}}`;
    of a folder, the files are found below the published name. A name with another audio suffix than
    the published one is found as well, so that a corpus may be stored in another codec (decoding
    goes by content).
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
        # Further files with the name of one, and how many there are.
        self._twins: dict[str, list[tuple[Container, Place]]] = {}
        self._num_twins = 0
        # The published names of those that hold files.
        self._archives: dict[RawFile, str] = {}
        self._tables: dict[str, ParquetTable] = {}
        self._by_loose_name: dict[str, str] | None = None
        here = ((name, file) for name, file in files_below(root, files_at(root)) if name != LINKS)
        files = [*here, *linked_files(root)]
        # Seconds for which a file may be waited for, before any of it is read.
        self.patience_s = 0.0 if all(file.is_near for _, file in files) else PATIENCE_S
        for name, file in sorted(files, key=lambda each: (each[0], str(each[1]))):
            container = open_container(file, name)
            if isinstance(container, ParquetTable):
                self._tables[canonical_name(name)] = container
            if not isinstance(container, LooseFile):
                self._archives[file] = name
            for member, place in container.members():
                self._add(member, container, place)
        self._names = sorted(self._members)

    def _add(self, raw_name: str, container: Container, place: Place) -> None:
        name = check_member_name(container.file, raw_name)
        if is_shadow(name):
            return
        if len(self._members) + self._num_twins == MAX_MEMBERS:
            raise BrewlineError(f"{self.root} is refused: it has more than {MAX_MEMBERS} files")
        if name in self._members:
            self._twins.setdefault(name, []).append((container, place))
            self._num_twins += 1
        else:
            self._members[name] = container, place

    def names(self) -> list[str]:
        """Every file, sorted; not to be changed."""
        return self._names

    @cached_property
    def folders(self) -> Mapping[tuple[str, str], int]:
        """How many files each folder directly holds, by its path and their suffix."""
        counts: Counter[tuple[str, str]] = Counter()
        for each in self._names:
            folder, _, name = each.rpartition("/")
            _, dot, suffix = name.rpartition(".")
            counts[folder, dot + suffix] += 1
        return counts

    def in_stored_order(self, names: Iterable[str]) -> list[str]:
        """Files in the order in which they lie in their archives.

        Of a compressed archive, each one read out of turn costs as much as many in their turn.

        Raises:
            KeyError: there is no such file.
        """
        wanted = set(names)
        if missing := wanted - self._members.keys():
            raise KeyError(min(missing))
        return [name for name in self._members if name in wanted]

    def __contains__(self, name: str) -> bool:
        return canonical_name(name) in self._members

    def find(self, name: str) -> str | None:
        """The stored name of a published file: itself, or the same with another audio suffix."""
        name = canonical_name(name)
        if name in self._members:
            return name
        stem = name.rpartition(".")[0]
        candidates = (stem + suffix for suffix in AUDIO_SUFFIXES)
        return next((each for each in candidates if each in self._members), None)

    def absence(self, name: str) -> str:
        """One sentence about a file that is not there; it says if one is spelt almost the same."""
        if self._by_loose_name is None:
            self._by_loose_name = {loosely(each): each for each in self._names}
        near = self._by_loose_name.get(loosely(canonical_name(name)))
        hint = f"; {near!a} is, and differs in spelling alone" if near else ""
        return f"{name.encode(errors='backslashreplace').decode()} is not in the archives{hint}"

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            BrewlineError: there is no such file, it is cut off, or there are two.
        """
        with whole_or_cut_off(self.root, name), self._open(name) as file:
            return file.read()

    def read_text(self, name: str) -> str:
        """The content of a text file; see `lines`."""
        with self._text(name) as text:
            content = text.read(MAX_TEXT_CHARS + 1)
        if len(content) > MAX_TEXT_CHARS:
            raise BrewlineError(f"{name!r} in {self.root} has more than {MAX_TEXT_CHARS} signs")
        return content

    def lines(self, name: str) -> Iterator[str]:
        """The lines of a text file, read as they are asked for.

        The text is UTF-8, or UTF-16 or UTF-32 if it begins like one. Bytes that are no UTF-8 come
        as lone surrogates (of the others: as U+FFFD): a check finds the row that they are in, and
        the others are read.

        Raises:
            BrewlineError: there is no such file, it is cut off, there are two, or a line is longer
                than any that is published.
        """
        with self._text(name) as text:
            yield from bounded_lines(text, f"{name} in {self.root}")

    @contextmanager
    def _text(self, name: str) -> Iterator[TextIO]:
        file = io.BufferedReader(self._open(name))  # type: ignore[type-var]
        with whole_or_cut_off(self.root, name):
            encoding = _encoding(file.peek(4)[:4])
            errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
            with io.TextIOWrapper(file, encoding, errors) as text:
                yield text

    def tables(self) -> list[str]:
        """Every Parquet table, sorted; the media in them are among the files."""
        return sorted(self._tables)

    def rows(self, table: str, columns: list[str]) -> Iterator[dict[str, Any]]:
        """The rows of a Parquet table, with these columns only; see `ParquetTable.rows`."""
        return self._tables[table].rows(columns)

    def placed(self, name: str) -> PlacedFile:
        """A file and where it lies; see `PlacedFiles`, which reads it.

        Raises:
            BrewlineError: there is no such file.
        """
        name = canonical_name(name)
        places = []
        for container, place in self._places(name):
            is_loose = isinstance(container, LooseFile)
            published = name if is_loose else self._archives[container.file]
            places.append((container.file, published, place))
        return PlacedFile(name, tuple(places))

    def _places(self, name: str) -> list[tuple[Container, Place]]:
        if name not in self._members:
            raise BrewlineError(f"{self.root} has no file {name!r}")
        return [self._members[name], *self._twins.get(name, ())]

    def _open(self, name: str) -> BinaryIO:
        name = canonical_name(name)
        return open_placed(name, self._places(name))


@contextmanager
def whole_or_cut_off(root: Path, name: str) -> Iterator[None]:
    """Says of which file the end is missing, where that is found out.

    Raises:
        BrewlineError: it is.
    """
    try:
        yield
    except EOFError:
        raise BrewlineError(f"{name!r} in {root} is cut off") from None


def open_placed(name: str, places: Sequence[tuple[Container, Place]]) -> BinaryIO:
    """Opens a file at the first of its places, if it is the same at all of them.

    Raises:
        BrewlineError: it is not, or cannot be read.
    """
    (container, place), *others = places
    for other, other_place in others:
        if _digest(container, place) != _digest(other, other_place):
            raise BrewlineError(
                f"{name!r} lies in {container.file} and, with other content, in {other.file}"
            )
    return container.open(place)


def bounded_lines(text: TextIO, name: str) -> Iterator[str]:
    """The lines of a text, none of which is in memory before its length is known.

    Raises:
        BrewlineError: a line is longer than any that is published.
    """
    number = 0
    while line := text.readline(MAX_LINE_CHARS + 1):
        number += 1
        if len(line) > MAX_LINE_CHARS:
            raise BrewlineError(f"{name}, line {number}: more than {MAX_LINE_CHARS} signs")
        yield line


def _digest(container: Container, place: Place) -> bytes:
    with container.open(place) as file:
        return hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]


def _encoding(start: bytes) -> str:
    """The encoding of a text that starts with these four bytes.

    Without a mark, the first two letters tell: tables and JSON begin with ASCII (RFC 4627, 3).
    """
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    zeros = tuple(byte == 0 for byte in start)
    if zeros == (False, True, False, True):
        return "utf-16-le"
    if zeros == (True, False, True, False):
        return "utf-16-be"
    return "utf-8-sig"
