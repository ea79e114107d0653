"""What the readers share: files and folders found, rows read, ids made safe."""

import csv
import hashlib
import json
import posixpath
import re
import reprlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from brewline.core.errors import BrewlineError
from brewline.media.archives import MediaStore, canonical_name, loosely
from brewline.tables.listing import Listing

_ID = re.compile(r"[A-Za-z0-9_-]+")
# Excel separates by what the settings of the country say.
_SEPARATORS = (",", "\t", ";")

# A record of a table, or what is wrong with the line: a line that is none costs no other.
Record = dict[str, Any] | BrewlineError


def find_file(store: MediaStore, *names: str) -> str | None:
    """Returns the first of several names under which a file is published, at whatever depth.

    Raises:
        BrewlineError: it is there twice, in different folders and with different content.
    """
    for name in map(canonical_name, names):
        found = [each for each in store.names() if each == name or each.endswith(f"/{name}")]
        least = min((each.count("/") for each in found), default=0)
        highest = [each for each in found if each.count("/") == least]
        if len({store.read(each) for each in highest}) > 1:
            raise BrewlineError(f"{store.root} has two files {name}: {' and '.join(highest[:2])}")
        if highest:
            return highest[0]
    return None


def one_file(store: MediaStore, *names: str) -> str:
    """As `find_file`.

    Raises:
        BrewlineError: none of the names is there, or one is there twice.
    """
    found = find_file(store, *names)
    if found is None:
        wanted = set(map(loosely, names))
        near = [each for each in store.names() if loosely(each.rpartition("/")[2]) in wanted]
        hint = f"; {near[0]!a} differs in spelling alone" if near else ""
        raise BrewlineError(f"{store.root} has no {' or '.join(names)}{hint}")
    return found


def find_folder(store: MediaStore, *names: str, suffixes: tuple[str, ...] = (".jpg",)) -> str:
    """Returns the path of the folder of one of these names that directly holds the most files.

    Args:
        store: The corpus' files.
        names: Under which the folder is published, at whatever depth.
        suffixes: Only files with one of them count.

    Returns:
        The path; the first name where there is no such folder.
    """
    counts: Counter[str] = Counter()
    for (folder, suffix), count in store.folders.items():
        if suffix in suffixes and folder.rpartition("/")[2] in names:
            counts[folder] += count
    return min(counts, key=lambda folder: (-counts[folder], folder), default=names[0])


def lines_of(store: MediaStore, name: str) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not empty, with their numbers, without their ends."""
    for number, line in enumerate(store.lines(name), start=1):
        if line.strip():
            yield number, line.rstrip("\n")


def parse_json(where: str, text: str, hook: Callable[[list[Any]], Any] | None = None) -> Any:
    """Parses JSON; `hook` is called with the pairs of each object, as in `json.loads`.

    Raises:
        BrewlineError: it is none, is nested or has digits beyond measure, or the hook raised it.
    """
    try:
        return json.loads(text, object_pairs_hook=hook)
    except BrewlineError as error:
        raise BrewlineError(f"{where}: {error}") from None
    except json.JSONDecodeError as error:
        raise BrewlineError(f"{where}: not JSON: {error}") from None
    except RecursionError:
        raise BrewlineError(f"{where}: JSON that is nested too deep") from None
    except ValueError:
        # Python's bound for numbers, whose digits take quadratic time.
        raise BrewlineError(f"{where}: JSON with a number of too many digits") from None


def json_lines(
    store: MediaStore, name: str, hook: Callable[[list[Any]], Any] | None = None
) -> Iterator[tuple[int, Record]]:
    """The objects of a JSON Lines file, or what is wrong with them, with their line numbers."""
    for number, line in lines_of(store, name):
        where = f"{name}, line {number}"
        try:
            row = parse_json(where, line, hook)
        except BrewlineError as error:
            yield number, error
            continue
        is_object = isinstance(row, dict)
        yield number, row if is_object else BrewlineError(f"{where}: expected a JSON object")


def csv_rows(
    store: MediaStore, name: str, separator: str = ",", skip_spaces: bool = False
) -> Iterator[tuple[int, list[str] | BrewlineError]]:
    """The rows of a CSV that are not empty, or what is wrong with them, with their line numbers.

    Args:
        store: The corpus' files.
        name: The table.
        separator: Between two cells.
        skip_spaces: Whether spaces behind a separator belong to no cell: a quote may follow them.

    Raises:
        BrewlineError: a quote takes several lines into one row that is none.
    """
    reader = csv.reader(
        store.lines(name), delimiter=separator, strict=True, skipinitialspace=skip_spaces
    )
    while True:
        before = reader.line_num
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            told = BrewlineError(f"{name}, line {before + 1}: {error}")
            if reader.line_num > before + 1:
                raise told from None
            yield reader.line_num, told
            continue
        if row:
            yield reader.line_num, row


def csv_objects(store: MediaStore, name: str) -> Iterator[tuple[int, Record]]:
    """The rows of a table with a header, with their line numbers.

    Cells are separated by what separates those of the header: commas, tabs or semicolons.

    Raises:
        BrewlineError: two columns have one name, or a quote takes several lines into one row.
    """
    first = next((line for _, line in lines_of(store, name)), "")
    separator = max(_SEPARATORS, key=first.count)
    rows = csv_rows(store, name, separator)
    _, header = next(rows, (0, []))
    if isinstance(header, BrewlineError):
        raise header
    twice = [column for column, count in Counter(header).items() if count > 1]
    if twice:
        raise BrewlineError(f"{name}: two columns are called {twice[0]!r}")
    for number, row in rows:
        if isinstance(row, BrewlineError):
            yield number, row
        elif len(row) == len(header):
            yield number, dict(zip(header, row, strict=True))
        else:
            told = BrewlineError(
                f"{name}, line {number}: expected {len(header)} cells as in the header, not "
                f"{len(row)}"
            )
            if any("\n" in cell for cell in row):
                raise told
            yield number, told


def headless_objects(
    store: MediaStore, name: str, columns: tuple[str, ...], separator: str = ","
) -> Iterator[tuple[int, Record]]:
    """The rows of a table without a header, with their line numbers; `#` begins a remark."""
    for number, row in csv_rows(store, name, separator, skip_spaces=True):
        if isinstance(row, BrewlineError):
            yield number, row
        elif row[0].startswith("#"):
            continue
        elif len(row) == len(columns):
            yield number, dict(zip(columns, row, strict=True))
        else:
            expected = separator.join(columns)
            told = f"{name}, line {number}: expected {expected}, not {len(row)} cells"
            yield number, BrewlineError(told)


def text_of(row: dict[str, Any], key: str) -> str:
    """The text under a key of a JSON object.

    Raises:
        KeyError: there is no such key.
        TypeError: it is something else.
    """
    value = row[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} must be text, not {reprlib.repr(value)}")
    return value


def no_record(name: str, number: int, error: BrewlineError, split: str = "") -> Listing:
    """Lists the line of a table, or the entry of a list, that is no record."""
    return Listing(
        utterance_id=safe_id(f"{PurePosixPath(name).stem}-{number}"),
        split=split,
        audio_path="",
        speaker_id="",
        fault=str(error),
    )


def listings_of(
    name: str,
    records: Iterable[tuple[int, Record]],
    listing: Callable[[str, str, dict[str, Any]], Listing],
) -> Iterator[Listing]:
    """Lists each record of a table; what is none is listed with its fault.

    Args:
        name: The table's name in the store.
        records: Its records, with their line numbers.
        listing: Makes the listing of a record, from the words that say where it stands and the
            table's folder; what it raises is the fault.
    """
    folder = posixpath.dirname(name)
    for number, record in records:
        try:
            if isinstance(record, BrewlineError):
                raise record
            yield listing(f"{name}, line {number}", folder, record)
        except BrewlineError as error:
            yield no_record(name, number, error)


def with_records(listings: list[Listing]) -> list[Listing]:
    """Returns the listings.

    Raises:
        BrewlineError: none of them is a record; it says what is wrong with the first.
    """
    if listings and all(row.fault for row in listings):
        raise BrewlineError(listings[0].fault or "")
    return listings


def path_from(where: str, folder: str, path: str) -> str:
    """The name in the store of a path that is counted from the table's folder on.

    Raises:
        BrewlineError: it leaves the folder of the corpus.
    """
    joined = posixpath.normpath(posixpath.join(folder, canonical_name(path)))
    if joined.startswith("/") or joined.split("/")[0] == "..":
        raise BrewlineError(f"{where}: {path!r} leaves the folder of the corpus")
    return joined


def ids_of(paths: Iterable[str]) -> dict[str, str]:
    """An id for each path: from its part before the suffix, if no other path has the same."""
    by_stem = defaultdict(set)
    for path in paths:
        by_stem[posixpath.splitext(path)[0]].add(path)
    return {
        path: safe_id(stem if len(same) == 1 else path)
        for stem, same in by_stem.items()
        for path in same
    }


def safe_id(name: str) -> str:
    """Returns an id of letters, digits, `_` and `-`: the name itself, or one made from it.

    A made one ends in part of the name's hash, so that different names keep different ids; one
    name has one id, however its accents are written.
    """
    name = unicodedata.normalize("NFC", name)
    if _ID.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)}-{digest}"


def stem(path: str) -> str:
    """The file name of a path without its suffix."""
    name = path.rstrip("/").rpartition("/")[2]
    before, dot, suffix = name.rpartition(".")
    return before if before and dot and suffix else name
