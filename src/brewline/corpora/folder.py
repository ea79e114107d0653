"""A corpus of your own: recordings and pictures in a folder, and a table that says what is what.

The table is a CSV with a header, or JSON Lines, with these columns or keys:

    audio     path of a recording, from the table's folder on
    split     train, dev or test
    image     path of its picture (optional)
    caption   what is said (optional)
    speaker   who says it (optional)
    language  that is spoken, as Whisper's code: en, de, yue (optional)
    id        a name for the utterance (optional; otherwise it is made from the recording's path)

`index` names the table. Where no row is in dev, set `dev_fraction`: part of the training images is
held out; without images, of the speakers; without both, of the recordings.
"""

import posixpath
import re
from typing import Any

from brewline.config.sources import SourceParams
from brewline.config.types import LANGUAGE_CODE
from brewline.core.errors import BrewlineError
from brewline.corpora.dev_split import with_dev
from brewline.corpora.reading import csv_objects, json_lines, one_file, safe_id
from brewline.media.archives import MediaStore
from brewline.tables.listing import SPLITS, Listing

_COLUMNS = ("audio", "split", "image", "caption", "speaker", "language", "id")
_NEEDED = ("audio", "split")


def read(store: MediaStore, source: SourceParams) -> list[Listing]:
    """Lists every row of the table.

    Raises:
        BrewlineError: the table is missing, or a row is not as described above.
    """
    if source.index is None:
        raise BrewlineError("folder: set index, the name of the CSV or JSONL file", "settings")
    name = one_file(store, source.index)
    rows = csv_objects(store, name) if name.endswith(".csv") else json_lines(store, name)
    listings = [
        _listing(f"{name}, line {line}", posixpath.dirname(name), row) for line, row in rows
    ]
    if not listings:
        raise BrewlineError(f"{name} lists nothing")
    return with_dev(listings, source)


def _listing(where: str, folder: str, row: dict[str, Any]) -> Listing:
    unknown = [key for key in row if key not in _COLUMNS]
    if unknown:
        raise BrewlineError(f"{where}: unknown column {unknown[0]!r}; known: {', '.join(_COLUMNS)}")
    # An empty cell of a CSV, or null, is as good as none.
    cells = {key: value for key, value in row.items() if value not in (None, "")}
    for key, value in cells.items():
        if not isinstance(value, str):
            raise BrewlineError(f"{where}: {key} must be text, not {value!r}")
    for key in _NEEDED:
        if key not in cells:
            raise BrewlineError(f"{where}: {key} is missing")
    if cells["split"] not in SPLITS:
        raise BrewlineError(f"{where}: split must be train, dev or test, not {cells['split']!r}")
    language = cells.get("language")
    if language is not None and not re.fullmatch(LANGUAGE_CODE, language):
        raise BrewlineError(
            f"{where}: language must be a code of two or three small letters, not {language!r}"
        )
    audio = _path(where, folder, cells["audio"])
    image = _path(where, folder, cells["image"]) if "image" in cells else None
    return Listing(
        utterance_id=safe_id(cells.get("id") or posixpath.splitext(audio)[0]),
        split=cells["split"],
        audio_path=audio,
        speaker_id=cells.get("speaker", ""),
        image_id=safe_id(posixpath.splitext(image)[0]) if image else None,
        image_path=image,
        caption=cells.get("caption"),
        language=language,
    )


def _path(where: str, folder: str, path: str) -> str:
    """The name in the store of a path that is counted from the table's folder on."""
    joined = posixpath.normpath(posixpath.join(folder, path))
    if joined.startswith(("/", "../")):
        raise BrewlineError(f"{where}: {path!r} leaves the folder of the corpus")
    return joined
