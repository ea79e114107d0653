"""A corpus of your own: recordings and pictures in a folder, and a table that says what is what.

The table is a CSV with a header (also separated by tabs or semicolons), or JSON Lines, in UTF-8 or
UTF-16, with these columns or keys:

    audio     path of a recording, from the table's folder on
    split     train, dev or test
    image     path of its picture (optional)
    caption   what is said (optional)
    speaker   who says it (optional)
    language  that is spoken, as Whisper's code: en, de, yue (optional)
    id        a name for the utterance (optional; otherwise it is made from the recording's path)

`index` names the table. Where there are rows in train and none in dev, set `dev_fraction`: part of
the training images is held out; without images, of the speakers; without both, of the recordings.
"""

import re
import reprlib
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from brewline.config.sources import SourceParams
from brewline.config.types import LANGUAGE_CODE
from brewline.core.errors import BrewlineError
from brewline.corpora.dev_split import with_dev
from brewline.corpora.reading import (
    Record,
    csv_objects,
    ids_of,
    json_lines,
    listings_of,
    one_file,
    path_from,
    safe_id,
    with_records,
)
from brewline.media.archives import MediaStore
from brewline.tables.listing import SPLITS, Listing

_TABLES = (".csv", ".tsv", ".txt")
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_COLUMNS = ("audio", "split", "image", "caption", "speaker", "language", "id")
_NEEDED = ("audio", "split")


def read(store: MediaStore, source: SourceParams) -> list[Listing]:
    """Lists every row of the table.

    Raises:
        BrewlineError: the table is missing or of another kind, or no row is as described above.
    """
    if source.index is None:
        raise BrewlineError("folder: set index, the name of the CSV or JSONL file", "settings")
    name = one_file(store, source.index)
    listings = with_records(list(listings_of(name, _records(store, name), _listing)))
    if not listings:
        raise BrewlineError(f"{name} lists nothing")
    return with_dev(_with_ids(listings), source)


def _records(store: MediaStore, name: str) -> Iterator[tuple[int, Record]]:
    if name.lower().endswith(_TABLES):
        return csv_objects(store, name)
    if name.lower().endswith(_JSON_LINES):
        return json_lines(store, name, _object)
    known = ", ".join((*_TABLES, *_JSON_LINES))
    raise BrewlineError(f"folder: {name} is no table that is read; known: {known}", "settings")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of two values of one key, JSON's readers keep the last without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BrewlineError("a key stands twice in it")
    return found


def _listing(where: str, folder: str, row: dict[str, Any]) -> Listing:
    """Lists a row; its ids are those that it has itself."""
    unknown = [key for key in row if key not in _COLUMNS]
    if unknown:
        raise BrewlineError(f"{where}: unknown column {unknown[0]!r}; known: {', '.join(_COLUMNS)}")
    # An empty cell of a CSV, or null, is as good as none.
    cells = {key: value for key, value in row.items() if value not in (None, "")}
    for key, value in cells.items():
        if not isinstance(value, str):
            raise BrewlineError(f"{where}: {key} must be text, not {reprlib.repr(value)}")
    for key in _NEEDED:
        if key not in cells:
            raise BrewlineError(f"{where}: {key} is missing")
    if cells["split"] not in SPLITS:
        split = reprlib.repr(cells["split"])
        raise BrewlineError(f"{where}: split must be train, dev or test, not {split}")
    language = cells.get("language")
    if language is not None and not re.fullmatch(LANGUAGE_CODE, language):
        raise BrewlineError(
            f"{where}: language must be a code of two or three small letters, not "
            f"{reprlib.repr(language)}"
        )
    return Listing(
        utterance_id=safe_id(cells["id"]) if "id" in cells else "",
        split=cells["split"],
        audio_path=path_from(where, folder, cells["audio"]),
        speaker_id=unicodedata.normalize("NFC", cells.get("speaker", "")),
        image_path=path_from(where, folder, cells["image"]) if "image" in cells else None,
        caption=cells.get("caption"),
        language=language,
    )


def _with_ids(listings: list[Listing]) -> list[Listing]:
    """Gives ids to pictures, and to the utterances that have none of their own."""
    audio = ids_of(row.audio_path for row in listings if row.audio_path)
    images = ids_of(row.image_path for row in listings if row.image_path)
    return [
        replace(
            row,
            utterance_id=row.utterance_id or audio[row.audio_path],
            image_id=images[row.image_path] if row.image_path else None,
        )
        for row in listings
    ]
