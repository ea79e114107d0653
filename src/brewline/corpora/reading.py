"""What the readers share: files and folders found, rows read, ids made safe."""

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from brewline.core.errors import BrewlineError
from brewline.media.archives import MediaStore

_ID = re.compile(r"[A-Za-z0-9_-]+")


def find_file(store: MediaStore, *names: str) -> str | None:
    """Returns the first of several names under which a file is published, at whatever depth.

    Raises:
        BrewlineError: it is there twice, in different folders.
    """
    for name in names:
        found = [each for each in store.names() if each == name or each.endswith(f"/{name}")]
        least = min((each.count("/") for each in found), default=0)
        highest = [each for each in found if each.count("/") == least]
        if len(highest) > 1:
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
        raise BrewlineError(f"{store.root} has no {' or '.join(names)}")
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
    counts = Counter(each.rpartition("/")[0] for each in store.names() if each.endswith(suffixes))
    found = [folder for folder in counts if folder.rpartition("/")[2] in names]
    return min(found, key=lambda folder: (-counts[folder], folder), default=names[0])


def lines_of(store: MediaStore, name: str) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not empty, with their numbers, without their ends."""
    for number, line in enumerate(store.lines(name), start=1):
        if line.strip():
            yield number, line.rstrip("\n")


def json_lines(store: MediaStore, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON Lines file, with their line numbers.

    Raises:
        BrewlineError: a line is something else.
    """
    for number, line in lines_of(store, name):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BrewlineError(f"{name}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise BrewlineError(f"{name}, line {number}: expected a JSON object")
        yield number, row


def csv_rows(store: MediaStore, name: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV that are not empty, with their line numbers.

    Raises:
        BrewlineError: a line is no CSV.
    """
    reader = csv.reader(store.lines(name), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise BrewlineError(f"{name}, line {reader.line_num}: {error}") from None


def csv_objects(store: MediaStore, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a CSV with a header, as one dictionary each, with their line numbers.

    Raises:
        BrewlineError: a row has more or fewer cells than the header.
    """
    rows = csv_rows(store, name)
    _, header = next(rows, (0, []))
    for number, row in rows:
        if len(row) != len(header):
            raise BrewlineError(
                f"{name}, line {number}: expected {len(header)} cells as in the header, not "
                f"{len(row)}"
            )
        yield number, dict(zip(header, row, strict=True))


def safe_id(name: str) -> str:
    """Returns an id of letters, digits, `_` and `-`: the name itself, or one made from it.

    A made one ends in part of the name's hash, so that different names keep different ids.
    """
    if _ID.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)}-{digest}"


def stem(path: str) -> str:
    """The file name of a path without its suffix."""
    return PurePosixPath(path).stem
