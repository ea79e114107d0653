"""What a reader says of one utterance, and what the readers share."""

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from brewline.config.params import SourceParams
from brewline.core.errors import BrewlineError
from brewline.media.archives import MediaStore

_ID = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Listing:
    """One utterance as its corpus lists it; nothing of it has been opened yet.

    Paths are those in the store. `utterance_id` is unique in its corpus and becomes the shard key,
    so it consists of letters, digits, `_` and `-`.
    """

    utterance_id: str
    split: str
    audio_path: str
    speaker_id: str
    image_id: str | None = None
    image_path: str | None = None
    caption: str | None = None
    emotion: str | None = None
    intensity: str | None = None
    # Known already, and not to be recognised; see `transcripts`.
    transcript: str | None = None


def held_out(groups: Iterable[str], fraction: float, seed: int = 0) -> set[str]:
    """Chooses which images (or speakers) of the training part become the dev split.

    The choice depends on the names and the seed alone: it is the same on every machine, whatever
    the order of the files.

    Args:
        groups: Names; duplicates count once.
        fraction: Share to choose, rounded to the nearest whole number of groups.
        seed: Another one gives another choice.
    """
    salt = f"{seed}:" if seed else ""
    ordered = sorted(set(groups), key=lambda name: hashlib.sha256((salt + name).encode()).digest())
    return set(ordered[: round(fraction * len(ordered))])


def with_dev(listings: list[Listing], source: SourceParams) -> list[Listing]:
    """Makes a dev split out of whole images of the training part; without images, of speakers.

    Raises:
        BrewlineError: `dev_fraction` is not set, or there is a published dev split already.
    """
    if any(row.split == "dev" for row in listings):
        if source.dev_fraction is not None:
            raise BrewlineError(
                f"{source.reader}: there is a published dev split; remove dev_fraction", "settings"
            )
        return listings
    if source.dev_fraction is None:
        raise BrewlineError(
            f"{source.reader}: no dev split is published; set dev_fraction for this source",
            "settings",
        )
    train = [row for row in listings if row.split == "train"]
    dev = held_out(map(_group, train), source.dev_fraction, source.dev_seed or 0)
    return [
        replace(row, split="dev") if row.split == "train" and _group(row) in dev else row
        for row in listings
    ]


def _group(row: Listing) -> str:
    return row.image_id or row.speaker_id or row.utterance_id


@dataclass(frozen=True)
class Survey:
    """What a corpus lists against what there is.

    `missing_audio` counts rows, `missing_images` distinct ones, `duplicates` rows whose id another
    one before has.
    """

    rows: int
    missing_audio: int
    missing_images: int
    duplicates: int

    def __str__(self) -> str:
        return (
            f"{self.rows} rows, {self.missing_audio} without their recording, "
            f"{self.missing_images} missing images, {self.duplicates} duplicate ids"
        )


def survey(store: MediaStore, listings: list[Listing]) -> Survey:
    """Counts what there is of a corpus; opens no recording and no picture."""
    images = {row.image_path for row in listings if row.image_path}
    return Survey(
        rows=len(listings),
        missing_audio=sum(store.find(row.audio_path) is None for row in listings),
        missing_images=sum(name not in store for name in images),
        duplicates=len(listings) - len({row.utterance_id for row in listings}),
    )


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
