"""Videos of your own: any containers, in a folder or in archives.

Without `index` every file with the suffix of a video is one clip. A folder around it that is called
train, dev, test or the like (`_FOLDERS`) says its split; the others are in train. `captions` may
name a CSV of two columns, `video` and `caption`, in which a video has as many rows as it has
captions, or none.

`index` names a table of the clips instead, a CSV with a header (also separated by tabs or
semicolons), in which a clip has as many rows as it has captions:

    video    path of the file, from the table's folder on, or as an archive names it
    split    train, dev or test
    caption  what is heard or seen (optional)
    start    where in the video the clip begins, in seconds (optional: it is the whole video)
    end      where it ends
    id       a name for the clip (optional; otherwise it is made from the path and the start)

`events` names a table of what happens when, in seconds from the beginning of the video:

    video, start, end, label

Where there are rows in train and none in dev, set `dev_fraction`: part of the videos is held out,
as it is for the test split with `test_fraction`.
"""

import math
import posixpath
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.corpora.clips import is_video, merged, span
from brewline.corpora.dev_split import with_dev, with_test
from brewline.corpora.reading import (
    csv_objects,
    ids_of,
    listings_of,
    one_file,
    path_from,
    safe_id,
    with_records,
)
from brewline.media.archives import VIDEO_SUFFIXES, MediaStore, canonical_name
from brewline.tables.listing import SPLITS, ListedEvent, Listing

_COLUMNS = ("video", "split", "caption", "start", "end", "id")
_EVENT_COLUMNS = ("video", "start", "end", "label")
_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "val", "valid", "validation"), "dev"),
    **dict.fromkeys(("test", "eval", "evaluation"), "test"),
}


def read(store: MediaStore, source: SourceParams) -> list[Listing]:
    """Lists every clip, with its captions and events.

    Raises:
        BrewlineError: a table is missing or of another kind, no row is as described above, or there
            is no video.
    """
    listings = with_records(merged(_with_ids(_rows(store, source))))
    if source.events is not None:
        listings = _with_events(listings, _events(store, one_file(store, source.events)))
    return with_dev(with_test(listings, source), source)


def _rows(store: MediaStore, source: SourceParams) -> list[Listing]:
    """What the index lists, or every video that there is."""
    if source.index is None:
        return _every_video(store, source.captions)
    if source.captions is not None:
        raise BrewlineError("videos: captions stand in the index, if there is one", "settings")
    name = one_file(store, source.index)
    rows = list(listings_of(name, csv_objects(store, name), partial(_row, store)))
    if not rows:
        raise BrewlineError(f"{name} lists nothing")
    return rows


def _every_video(store: MediaStore, captions: str | None) -> list[Listing]:
    """The videos of the table of captions, and all others."""
    rows = []
    if captions is not None:
        name = one_file(store, captions)
        rows = list(listings_of(name, csv_objects(store, name), partial(_captioned, store)))
    named = {row.audio_path for row in rows}
    rows += [_whole(name) for name in store.names() if is_video(name) and name not in named]
    if not rows:
        raise BrewlineError(
            f"{store.root} has no video; known are {', '.join(VIDEO_SUFFIXES)}, and others where "
            "index names a table of them"
        )
    return rows


def _captioned(store: MediaStore, where: str, folder: str, row: dict[str, str]) -> Listing:
    columns = ("video", "caption")
    cells = _cells(where, row, columns, needed=columns)
    return _whole(_video(store, where, folder, cells["video"]), (cells["caption"],))


def _video(store: MediaStore, where: str, folder: str, path: str) -> str:
    """The name in the store of a video that a table in a folder names.

    Members of an archive have the names that stand in it, whatever folder the archive lies in.
    """
    beside = path_from(where, folder, path)
    return canonical_name(path) if beside not in store and path in store else beside


def _whole(path: str, captions: tuple[str, ...] = ()) -> Listing:
    """A whole video, in the split that the innermost of its folders names."""
    folders = reversed(posixpath.dirname(path).lower().split("/"))
    return Listing(
        utterance_id="",
        split=next((_FOLDERS[name] for name in folders if name in _FOLDERS), "train"),
        audio_path=path,
        speaker_id=path,
        is_clip=True,
        video_path=path,
        captions=captions,
    )


def _row(store: MediaStore, where: str, folder: str, row: dict[str, str]) -> Listing:
    cells = _cells(where, row, _COLUMNS, needed=("video", "split"))
    if cells["split"] not in SPLITS:
        raise BrewlineError(
            f"{where}: split must be train, dev or test, not {cells['split'][:40]!r}"
        )
    if ("start" in cells) != ("end" in cells):
        raise BrewlineError(f"{where}: start and end need each other")
    times = span(where, cells["start"], cells["end"]) if "start" in cells else (None, None)
    path = _video(store, where, folder, cells["video"])
    return Listing(
        utterance_id=safe_id(cells["id"]) if "id" in cells else "",
        split=cells["split"],
        audio_path=path,
        speaker_id=path,
        is_clip=True,
        video_path=path,
        start_s=times[0],
        end_s=times[1],
        captions=(cells["caption"],) if "caption" in cells else (),
    )


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


def _with_ids(rows: list[Listing]) -> list[Listing]:
    """Gives ids to the clips that have none of their own."""
    ids = ids_of(row.audio_path for row in rows if not row.fault)
    return [row if row.utterance_id else replace(row, utterance_id=_id(row, ids)) for row in rows]


def _id(row: Listing, ids: dict[str, str]) -> str:
    part = "" if row.start_s is None else f"_{1000 * row.start_s:06.0f}"
    return ids[row.audio_path] + part


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
        path = _video(store, where, posixpath.dirname(name), cells["video"])
        times = span(where, cells["start"], cells["end"])
        found[path].append(ListedEvent(*times, cells["label"]))
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
