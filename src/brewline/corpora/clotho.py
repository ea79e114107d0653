"""Clotho (Drossos et al., 2020), version 2.1: sounds of Freesound with five captions each.

    clotho_captions_{development,validation,evaluation}.csv     file_name,caption_1,...,caption_5
    clotho_metadata_{development,validation,evaluation}.csv     optional
    {development,validation,evaluation}/<file_name>

Zenodo record 4783391. The archives of the sounds are 7z, which is not read: unpack them. Their
files are our train, dev and test splits. File names hold spaces; where one holds a colon, or
another sign that some systems refuse, the file may have `_` for it. Captions are UTF-8, and the
tables of metadata ISO-8859-1; of these only the number of the sound on Freesound is taken, by which
parts of one sound are known. (`clotho_metadata_test.csv` belongs to a challenge whose captions are
secret, and is separated by semicolons.)
"""

import re
from collections.abc import Iterator

from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.corpora.reading import (
    csv_objects,
    find_file,
    find_folder,
    listings_of,
    path_from,
    safe_id,
    stem,
    with_records,
)
from brewline.media.archives import AUDIO_SUFFIXES, MediaStore, canonical_name
from brewline.tables.listing import Listing

_SPLITS = {"development": "train", "validation": "dev", "evaluation": "test"}
# What Windows refuses in a name.
_REFUSED = re.compile(r'[<>:"|?*]')


def read(store: MediaStore, source: SourceParams) -> list[Listing]:
    """Lists every sound of the parts whose captions are there.

    Raises:
        BrewlineError: there are none, or the sounds of one are packed as 7z.
    """
    del source  # all its splits are published
    tables = {part: find_file(store, f"clotho_captions_{part}.csv") for part in _SPLITS}
    if not any(tables.values()):
        raise BrewlineError(f"{store.root} has no clotho_captions_development.csv, nor another")
    return with_records(
        [row for part, name in tables.items() if name for row in _sounds(store, name, part)]
    )


def _sounds(store: MediaStore, table: str, part: str) -> Iterator[Listing]:
    sounds = find_folder(store, part, f"clotho_audio_{part}", suffixes=AUDIO_SUFFIXES)
    packed = [name for name in store.names() if name.endswith(f"clotho_audio_{part}.7z")]
    if packed and not any(folder == sounds for folder, _ in store.folders):
        raise BrewlineError(
            f"{packed[0]} in {store.root} is 7z, which is not read: unpack it (with `7z x`), and "
            "name the folder in its place"
        )
    origins = _origins(store, part)

    def listing(where: str, _: str, row: dict[str, str]) -> Listing:
        if "file_name" not in row or "caption_1" not in row:
            raise BrewlineError(f"{where}: expected columns file_name and caption_1 to caption_5")
        name = canonical_name(row["file_name"])
        path = path_from(where, sounds, name)
        if path not in store:
            path = path_from(where, sounds, _REFUSED.sub("_", name))
        captions = (text for column, text in row.items() if column.startswith("caption_"))
        return Listing(
            utterance_id=safe_id(f"{part}_{stem(name)}"),
            split=_SPLITS[part],
            audio_path=path,
            speaker_id=origins.get(name, path),
            is_clip=True,
            # An empty cell is no caption.
            captions=tuple(text for text in captions if text),
        )

    return listings_of(table, csv_objects(store, table), listing)


def _origins(store: MediaStore, part: str) -> dict[str, str]:
    """The number on Freesound of each file, as far as it is known."""
    table = find_file(store, f"clotho_metadata_{part}.csv")
    if table is None:
        return {}
    rows = (row for _, row in csv_objects(store, table) if not isinstance(row, BrewlineError))
    return {
        canonical_name(_as_latin_1(row["file_name"])): row["sound_id"]
        for row in rows
        if row.get("sound_id", "").isdigit()
    }


def _as_latin_1(text: str) -> str:
    """What was read as UTF-8 as what it is; the bytes are all there (see `MediaStore.lines`)."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")
