"""Videos of your own: any containers, in a folder or in archives, and a table that names them.

`index` names the table, a CSV with a header (also separated by tabs or semicolons), in which a
video has as many rows as it has captions:

    video    path of the file, from the table's folder on, or as an archive names it
    split    train, dev or test
    caption  what is heard or seen (optional)
    start    where in the video the clip begins, in seconds (optional: it is the whole video)
    end      where it ends
    id       a name for the clip (optional; otherwise it is made from the path and the start)

`events` names a table of what happens when, in seconds from the beginning of the video:

    video, start, end, label

Where there are rows in train and none in dev, set `dev_fraction`: part of the videos is held out.
"""

import math
import posixpath
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.corpora.dev_split import with_dev
from brewline.corpora.reading import (
    csv_objects,
    ids_of,
    no_record,
    one_file,
    path_from,
    safe_id,
    with_records,
)
from brewline.media.archives import MediaStore, canonical_name
from brewline.tables.listing import SPLITS, ListedEvent, Listing

_COLUMNS = ("video", "split", "caption", "start", "end", "id")
_EVENT_COLUMNS = ("video", "start", "end", "label")


def read(store: MediaStore, source: SourceParams) -> list[Listing]:
    """Lists every clip of the table, with its captions and events.

    Raises:
        BrewlineError: a table is missing or of another kind, or no row is as described above.
    """
    if source.index is None:
        raise BrewlineError("videos: set index, the name of the CSV that lists them", "settings")
    name = one_file(store, source.index)
    listings = with_records(_clips(_with_ids(list(_rows(store, name)))))
    if not listings:
        raise BrewlineError(f"{name} lists nothing")
    if source.events is not None:
        listings = _with_events(listings, _events(store, one_file(store, source.events)))
    return with_dev(listings, source)


def _rows(store: MediaStore, name: str) -> Iterator[Listing]:
    for number, record in csv_objects(store, name):
        try:
            if isinstance(record, BrewlineError):
                raise record
            yield _row(f"{name}, line {number}", store, name, record)
        except BrewlineError as error:
            yield no_record(name, number, error)


def _row(where: str, store: MediaStore, table: str, row: dict[str, str]) -> Listing:
    cells = _cells(where, row, _COLUMNS, needed=("video", "split"))
    if cells["split"] not in SPLITS:
        raise BrewlineError(
            f"{where}: split must be train, dev or test, not {cells['split'][:40]!r}"
        )
    if ("start" in cells) != ("end" in cells):
        raise BrewlineError(f"{where}: start and end need each other")
    span = _span(where, cells) if "start" in cells else (None, None)
    path = _video(where, store, table, cells["video"])
    return Listing(
        utterance_id=safe_id(cells["id"]) if "id" in cells else "",
        split=cells["split"],
        audio_path=path,
        speaker_id=path,
        is_clip=True,
        video_path=path,
        start_s=span[0],
        end_s=span[1],
        captions=(cells["caption"],) if "caption" in cells else (),
    )


def _video(where: str, store: MediaStore, table: str, path: str) -> str:
    """The name in the store of a video that a table names.

    Members of an archive have the names that stand in it, whatever folder the archive lies in.
    """
    beside = path_from(where, posixpath.dirname(table), path)
    return canonical_name(path) if beside not in store and path in store else beside


def _cells(
    where: str, row: dict[str, str], columns: tuple[str, ...], needed: tuple[str, ...]
) -> dict[str, str]:
    """The cells of a row that hold something."""
    unknown = [key for key in row if key not in columns]
    if unknown:
        raise BrewlineError(f"{where}: unknown column {unknown[0]!r}; known: {', '.join(columns)}")
    cells = {key: value for key, value in row.items() if value != ""}
    for key in needed:
        if key not in cells:
            raise BrewlineError(f"{where}: {key} is missing")
    return cells


def _span(where: str, cells: dict[str, str]) -> tuple[float, float]:
    try:
        start_s, end_s = float(cells["start"]), float(cells["end"])
    except ValueError:
        start_s = end_s = math.nan
    if not 0 <= start_s < end_s < math.inf:
        raise BrewlineError(
            f"{where}: start and end must be seconds, the end behind the start, not "
            f"{cells['start'][:40]!r} and {cells['end'][:40]!r}"
        )
    return start_s, end_s


def _with_ids(rows: list[Listing]) -> list[Listing]:
    """Gives ids to the clips that have none of their own."""
    ids = ids_of(row.audio_path for row in rows if not row.fault)
    return [row if row.utterance_id else replace(row, utterance_id=_id(row, ids)) for row in rows]


def _id(row: Listing, ids: dict[str, str]) -> str:
    part = "" if row.start_s is None else f"_{1000 * row.start_s:06.0f}"
    return ids[row.audio_path] + part


def _clips(rows: list[Listing]) -> list[Listing]:
    """Puts the captions of a clip together; what else is said of it must agree."""
    found: dict[str, Listing] = {}
    rest = []
    for row in rows:
        first = found.setdefault(row.utterance_id, row)
        if row.fault or replace(row, captions=first.captions) != first:
            rest.append(row)
        elif row is not first:
            found[row.utterance_id] = replace(first, captions=(*first.captions, *row.captions))
    return [*(row for row in found.values() if not row.fault), *rest]


def _events(store: MediaStore, name: str) -> dict[str, list[ListedEvent]]:
    """The events of each video, in the order of their beginnings.

    Raises:
        BrewlineError: a line is none: what happens in a clip would be told in part.
    """
    found = defaultdict(list)
    for number, record in csv_objects(store, name):
        where = f"{name}, line {number}"
        if isinstance(record, BrewlineError):
            raise record
        cells = _cells(where, record, _EVENT_COLUMNS, needed=_EVENT_COLUMNS)
        path = _video(where, store, name, cells["video"])
        found[path].append(ListedEvent(*_span(where, cells), cells["label"]))
    return {path: sorted(events) for path, events in found.items()}


def _with_events(listings: list[Listing], events: dict[str, list[ListedEvent]]) -> list[Listing]:
    return [
        replace(row, events=tuple(_within(row, events.get(row.audio_path, ())))) for row in listings
    ]


def _within(row: Listing, events: "list[ListedEvent] | tuple[()]") -> Iterator[ListedEvent]:
    """The events of a clip, from its own beginning on."""
    start_s, end_s = row.start_s or 0.0, math.inf if row.end_s is None else row.end_s
    for event in events:
        if event.start_s < end_s and event.end_s > start_s:
            begin, end = max(event.start_s, start_s), min(event.end_s, end_s)
            yield ListedEvent(begin - start_s, end - start_s, event.label)
