"""AVE (Tian et al., 2018): ten seconds of videos, and when something is both seen and heard.

    AVE_Dataset/Annotations.txt          <category>&<id>&<quality>&<start>&<end>
    AVE_Dataset/{train,val,test}Set.txt  the same columns
    AVE_Dataset/AVE/<id>.mp4

Archive: github.com/YapengTian/AVE-ECCV18. Some copies of the tables have a header. A video has a
row for each of its events, in seconds from the beginning of the clip; events are taken from
Annotations.txt, and the split of a video from the others. One that several splits name is measured
on, and not trained on: it belongs to test, or else to val.
"""

from collections.abc import Iterator
from dataclasses import replace

from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.corpora.clips import ClipFiles, span, without_excluded
from brewline.corpora.reading import (
    Record,
    headless_objects,
    listings_of,
    no_record,
    one_file,
    safe_id,
    with_records,
)
from brewline.media.archives import MediaStore
from brewline.tables.listing import ListedEvent, Listing

_COLUMNS = ("category", "id", "quality", "start", "end")
# In this order; the first that names a video has it.
_SPLITS = {"testSet.txt": "test", "valSet.txt": "dev", "trainSet.txt": "train"}


def read(store: MediaStore, source: SourceParams) -> list[Listing]:
    """Lists every video with its events.

    Raises:
        BrewlineError: a table is missing, or no row is as described above.
    """
    files = ClipFiles(store, with_pictures=True)
    name = one_file(store, "Annotations.txt")
    records = list(_records(store, name))
    annotated = {row["id"] for _, row in records if not isinstance(row, BrewlineError)}
    splits: dict[str, str] = {}
    unknown = []
    for part, split in _SPLITS.items():
        table = one_file(store, part)
        for number, row in _records(store, table):
            if isinstance(row, BrewlineError):
                unknown.append(no_record(table, number, row))
            elif row["id"] in annotated:
                splits.setdefault(row["id"], split)
            else:
                told = f"{table}, line {number}: {name} has no video {row['id']!r}"
                unknown.append(no_record(table, number, BrewlineError(told)))

    def listing(where: str, _: str, row: dict[str, str]) -> Listing:
        video, category = row["id"], row["category"]
        if video not in splits:
            raise BrewlineError(f"{where}: {video!r} is in none of {', '.join(_SPLITS)}")
        event = ListedEvent(*span(where, row["start"], row["end"]), category)
        paths = files.find([video])
        return Listing(
            utterance_id=safe_id(video),
            split=splits[video],
            audio_path=paths.audio_path,
            speaker_id=video,
            is_clip=True,
            video_path=paths.video_path,
            events=(event,),
        )

    rows = [*_with_all_events(listings_of(name, records, listing)), *unknown]
    return with_records(list(without_excluded(store, rows, source)))


def _records(store: MediaStore, name: str) -> Iterator[tuple[int, Record]]:
    for number, row in headless_objects(store, name, _COLUMNS, "&"):
        if isinstance(row, BrewlineError) or row["id"] != "VideoID":
            yield number, row


def _with_all_events(rows: Iterator[Listing]) -> list[Listing]:
    """One listing for each video, with its events in the order of their beginnings."""
    found: dict[str, Listing] = {}
    bad = []
    for row in rows:
        if row.fault:
            bad.append(row)
            continue
        before = found.get(row.utterance_id)
        events = row.events if before is None else (*before.events, *row.events)
        found[row.utterance_id] = replace(row, events=tuple(sorted(events)))
    return [*found.values(), *bad]
