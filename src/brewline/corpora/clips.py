"""What the readers of clips share: keys, files, captions, and what is not to be trained on.

Tables of clips name a part of a video on YouTube; whoever has it has it cut out already, as a file
of its own, which is a clip as a whole.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.corpora.reading import csv_objects, one_file, safe_id, stem
from brewline.media.archives import AUDIO_SUFFIXES, VIDEO_SUFFIXES, MediaStore
from brewline.tables.listing import Listing


def clip_id(video_id: str, start_s: float) -> str:
    """The key of a clip, from its video and the second in which it begins (`30` or `30.000`).

    So it is the same in every corpus that has the clip, and the name of VGGSound's files.
    """
    return safe_id(f"{video_id}_{int(start_s):06d}")


def file_names(video_id: str, start_s: float, end_s: float) -> Iterator[str]:
    """The names, without suffix, under which the one clip of a video is kept; first the sure ones.

    Its key, or the video's id with whole seconds, milliseconds or seconds with three decimals; or
    the id alone, with a `Y` before it in some copies.
    """
    start, end = int(start_s), int(end_s)
    yield f"{video_id}_{start:06d}"
    yield f"{video_id}_{start}"
    yield f"{video_id}_{start}_{end}"
    yield f"{video_id}_{1000 * start_s:.0f}_{1000 * end_s:.0f}"
    yield f"{video_id}_{start_s:.3f}_{end_s:.3f}"
    yield video_id
    yield f"Y{video_id}"


class ClipPaths(NamedTuple):
    """What a listing has of the file of a clip."""

    audio_path: str
    video_path: str | None


class ClipFiles:
    """The recordings and videos of a corpus by their names, whatever folders they are in."""

    def __init__(self, store: MediaStore, with_pictures: bool) -> None:
        """Lists them.

        Args:
            store: The corpus' files.
            with_pictures: Whether videos are taken before recordings, and with their pictures.
        """
        self._with_pictures = with_pictures
        self._found: dict[str, str] = {}
        for path in store.names():
            if is_video(path) or is_recording(path):
                name = stem(path)
                first = self._found.setdefault(name, path)
                if first is not path:
                    self._found[name] = min(first, path, key=self._rank)

    def _rank(self, path: str) -> tuple[bool, int]:
        """Which of two files with one name is taken: of the wanted kind, then the outermost."""
        return is_video(path) != self._with_pictures, path.count("/")

    def find(self, names: Iterable[str]) -> ClipPaths:
        """The first of the names that there is; else what the first of them would be."""
        tried = []
        for name in names:
            tried.append(name)
            if path := self._found.get(name):
                break
        else:
            path = tried[0] + (".mp4" if self._with_pictures else ".flac")
        has_pictures = self._with_pictures and is_video(path)
        return ClipPaths(path, path if has_pictures else None)


def is_video(path: str) -> bool:
    """Whether a file should have pictures, by its suffix or its column."""
    return path.lower().endswith(VIDEO_SUFFIXES) or _is_of_column("video", path)


def is_recording(path: str) -> bool:
    """Whether a file should be a sound, by its suffix or its column."""
    return path.lower().endswith(AUDIO_SUFFIXES) or _is_of_column("audio", path)


def _is_of_column(name: str, path: str) -> bool:
    """Whether a path may be that of a row of a Parquet table, which has no suffix."""
    return path.startswith(f"{name}/") and "." not in path


def begins_at(where: str, text: str) -> float:
    """The second in which a clip begins.

    Raises:
        BrewlineError: the text is no such number.
    """
    start_s = _number(text)
    if not 0 <= start_s < math.inf:
        raise BrewlineError(f"{where}: the start must be seconds, not {text[:40]!r}")
    return start_s


def span(where: str, start: str, end: str) -> tuple[float, float]:
    """The seconds between which something lies.

    Raises:
        BrewlineError: the texts are no such numbers.
    """
    start_s, end_s = _number(start), _number(end)
    if not 0 <= start_s < end_s < math.inf:
        raise BrewlineError(
            f"{where}: start and end must be seconds, the end behind the start, not "
            f"{start[:40]!r} and {end[:40]!r}"
        )
    return start_s, end_s


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def merged(rows: Iterable[Listing]) -> list[Listing]:
    """Puts the captions of a clip together; what else is said of it must agree."""
    found: dict[str, Listing] = {}
    rest = []
    for row in rows:
        first = found.setdefault(row.utterance_id, row)
        if row.fault:
            rest.append(row)
        elif row is first:
            continue
        elif replace(row, captions=first.captions) != first:
            rest.append(row)
        else:
            found[row.utterance_id] = replace(first, captions=(*first.captions, *row.captions))
    return [*(row for row in found.values() if not row.fault), *rest]


def without_excluded(
    store: MediaStore, listings: list[Listing], source: SourceParams
) -> Iterator[Listing]:
    """Leaves out of the training part each video of which a table of `exclude` has a clip.

    AudioCaps was made from AudioSet's unbalanced part: who trains on that has heard the clips that
    AudioCaps measures on.

    Raises:
        BrewlineError: a table is missing, or is none of AudioCaps'.
    """
    videos = {video: name for name in source.exclude for video in _videos(store, name)}
    for row in listings:
        if row.split == "train" and not row.fault and row.speaker_id in videos:
            told = f"AudioCaps' {videos[row.speaker_id]} has a clip of this video"
            row = replace(row, audio_path="", video_path=None, fault=told, fault_reason="excluded")
        yield row


def _videos(store: MediaStore, name: str) -> Iterator[str]:
    for number, row in csv_objects(store, one_file(store, name)):
        if isinstance(row, BrewlineError):
            raise row
        if "youtube_id" not in row:
            raise BrewlineError(f"{name}, line {number}: expected a column youtube_id", "settings")
        yield row["youtube_id"]
