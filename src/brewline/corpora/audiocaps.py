"""AudioCaps (Kim et al., 2019), and its second release (2025): captions of parts of AudioSet.

    dataset/{train,val,test}.csv         or dataset2.0/
    whatever/<youtube_id>.flac           or under another name of `clips.file_names`; or a video

Tables: github.com/cdjkim/audiocaps, with a header: audiocap_id, youtube_id, start_time, caption; a
row for each caption, of which a clip of val or test has five, not next to each other. The releases
have the same clips in val and test, and other words in some captions: results of one are not those
of the other, so `release` says which one it is (`v1` or `v2`), and tables of one folder are read.
The sounds are ten seconds from `start_time` on; copies of them (Parquet tables with `youtube_id`
and `audio`) differ in how many of the clips they have.
"""

import posixpath
from collections.abc import Iterator

from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.corpora.clips import ClipFiles, begins_at, clip_id, file_names, merged
from brewline.corpora.reading import csv_objects, find_file, listings_of, with_records
from brewline.media.archives import MediaStore
from brewline.tables.listing import Listing

_FOLDERS = {"v1": "dataset", "v2": "dataset2.0"}
_SPLITS = {"train": "train", "val": "dev", "test": "test"}
_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
_LENGTH_S = 10.0


def read(store: MediaStore, source: SourceParams) -> list[Listing]:
    """Lists every clip of a release, with its captions; a split whose table is missing has none.

    Raises:
        BrewlineError: no release is chosen, its tables are missing, or they are in several folders
            or in the other one's.
    """
    if source.release is None:
        raise BrewlineError("audiocaps: set release for this source: v1 or v2", "settings")
    files = ClipFiles(store, with_pictures=True)
    rows = [
        row
        for name, split in _tables(store, source.release).items()
        for row in _captions(store, name, split, files)
    ]
    return with_records(merged(rows))


def _tables(store: MediaStore, release: str) -> dict[str, str]:
    """The split of each table of a release."""
    folder = _FOLDERS[release]
    for prefix in (f"{folder}/", ""):
        named = ((find_file(store, f"{prefix}{part}.csv"), part) for part in _SPLITS)
        found = {name: _SPLITS[part] for name, part in named if name}
        if found:
            break
    else:
        raise BrewlineError(f"{store.root} has no train.csv, val.csv or test.csv of AudioCaps")
    folders = {posixpath.dirname(name) for name in found}
    others = {name for name in _FOLDERS.values() if name != folder}
    if len(folders) > 1 or others & {posixpath.basename(each) for each in folders}:
        raise BrewlineError(
            f"audiocaps: release {release} is wanted, and the tables are {', '.join(found)}; put "
            f"those of one release into a folder {folder}"
        )
    return found


def _captions(store: MediaStore, name: str, split: str, files: ClipFiles) -> Iterator[Listing]:
    def listing(where: str, _: str, row: dict[str, str]) -> Listing:
        missing = [column for column in _COLUMNS if column not in row]
        if missing:
            raise BrewlineError(f"{where}: the table has no column {missing[0]!r}")
        video, caption = row["youtube_id"], row["caption"]
        start_s = begins_at(where, row["start_time"])
        paths = files.find(file_names(video, start_s, start_s + _LENGTH_S))
        return Listing(
            utterance_id=clip_id(video, start_s),
            split=split,
            audio_path=paths.audio_path,
            speaker_id=video,
            is_clip=True,
            video_path=paths.video_path,
            captions=(caption,) if caption else (),
        )

    return listings_of(name, csv_objects(store, name), listing)
