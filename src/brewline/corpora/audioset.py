"""AudioSet (Gemmeke et al., 2017): ten seconds of videos each, heard and not seen.

    balanced_train_segments.csv, unbalanced_train_segments.csv, eval_segments.csv
    whatever/<id>.flac                   or under another name of `clips.file_names`

Tables: storage.googleapis.com/us_audioset/youtube_corpus/v1/csv (CC BY 4.0). After three remarks,
the last of which names the columns, a row is `<id>, <start>, <end>, "<label>,<label>"`. Google
publishes no sounds: they come from copies, such as the Parquet tables of
huggingface.co/datasets/agkphysics/AudioSet (`video_id`, `audio`) or the tars of others, and no copy
has all of them. Training tables are read as far as they are there; `eval` is the test split.

AudioCaps was made from the unbalanced part. `exclude` names its tables, without which that part is
not read.
"""

from collections.abc import Iterator

from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.corpora.clips import ClipFiles, clip_id, file_names, span, without_excluded
from brewline.corpora.dev_split import with_dev
from brewline.corpora.reading import find_file, headless_objects, listings_of, with_records
from brewline.media.archives import MediaStore
from brewline.tables.listing import Listing

_COLUMNS = ("id", "start", "end", "labels")
_UNBALANCED = "unbalanced_train_segments.csv"
_TABLES = {
    "balanced_train_segments.csv": "train",
    _UNBALANCED: "train",
    "eval_segments.csv": "test",
}


def read(store: MediaStore, source: SourceParams) -> list[Listing]:
    """Lists every segment of the tables that are there.

    Raises:
        BrewlineError: there is none, or the unbalanced one and nothing to exclude.
    """
    found = ((find_file(store, table), table) for table in _TABLES)
    tables = {table: name for name, table in found if name}
    if not tables:
        raise BrewlineError(f"{store.root} has no {', '.join(_TABLES)}")
    if _UNBALANCED in tables and not source.exclude:
        raise BrewlineError(
            f"audioset: {_UNBALANCED} has the clips that AudioCaps measures on; name AudioCaps' "
            "val.csv and test.csv under exclude, and among the files",
            "settings",
        )
    files = ClipFiles(store, with_pictures=False)
    rows = [
        row
        for table, name in tables.items()
        for row in _segments(store, name, _TABLES[table], files)
    ]
    return with_dev(with_records(list(without_excluded(store, rows, source))), source)


def _segments(store: MediaStore, name: str, split: str, files: ClipFiles) -> Iterator[Listing]:
    def listing(where: str, _: str, row: dict[str, str]) -> Listing:
        start_s, end_s = span(where, row["start"], row["end"])
        path = files.find(file_names(row["id"], start_s, end_s)).audio_path
        return Listing(clip_id(row["id"], start_s), split, path, row["id"], is_clip=True)

    return listings_of(name, headless_objects(store, name, _COLUMNS), listing)
