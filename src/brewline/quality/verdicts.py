"""What becomes of each utterance of a corpus: a row of the manifest, or one of the quarantine."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
from numpy.typing import NDArray

from brewline.config.validate import ValidateParams
from brewline.media.archives import MediaStore, canonical_name
from brewline.quality.checks import (
    AUDIO_CHECKS,
    IMAGE_CHECKS,
    SOUND_CHECKS,
    VIDEO_CHECKS,
    Check,
    Fault,
    check_listing,
    first_fault,
)
from brewline.quality.known_facts import known_pictures, known_recordings, known_videos
from brewline.tables.listing import LISTED, SPLITS, Listing

# What a verdict has of a good recording.
_FACTS = ("duration_s", "sample_rate_hz", "num_channels", "sha256")
# Facts that are taken out of their columns at a time.
_ROWS_AT_ONCE = 16_384


class Verdict(NamedTuple):
    """What was found out about one utterance: facts, or why it is dropped."""

    listing: Listing
    reason: str | None = None
    detail: str = ""
    duration_s: float = 0.0
    sample_rate_hz: int = 0
    num_channels: int = 0
    audio_sha256: str = ""
    # Of recordings with the same bytes, and of those with the same samples, the same number.
    audio_bytes: int = -1
    audio_content: int = -1
    # Of what one sees; see `tables.facts`.
    image_content: str | None = None
    # The first utterance whose recording has the same bytes, if that is another.
    same_audio_as: str | None = None

    def manifest_row(self, corpus: str) -> dict[str, Any]:
        """The row of the manifest."""
        return {
            "corpus": corpus,
            **self._listed(),
            "duration_s": self.duration_s,
            "sample_rate_hz": self.sample_rate_hz,
            "num_channels": self.num_channels,
            "audio_sha256": self.audio_sha256,
        }

    def quarantine_row(self) -> dict[str, Any]:
        """The row of the quarantine; what is no text in it is escaped."""
        row = {**self._listed(), "reason": self.reason, "detail": self.detail}
        return {
            name: value.encode("utf-8", "backslashreplace").decode()
            if isinstance(value, str)
            else value
            for name, value in row.items()
        }

    def _listed(self) -> dict[str, Any]:
        return dict(zip(LISTED, self.listing.values(), strict=True))


class Judge:
    """Judges utterances by the facts of their files; opens none."""

    def __init__(self, store: MediaStore, facts: Path, limits: ValidateParams) -> None:
        """Reads the facts.

        Args:
            store: The corpus' files.
            facts: `data/facts/<corpus>`.
            limits: Thresholds.

        Raises:
            BrewlineError: the facts are missing or damaged.
        """
        self._store, self._facts, self._limits = store, facts, limits
        self.recordings, self.pictures = known_recordings(facts), known_pictures(facts)
        # All at once; a sentence is made only for those that are at fault.
        self._bad_recordings = self.recordings.at_fault(AUDIO_CHECKS, limits)
        self._bad_sounds = self.recordings.at_fault(SOUND_CHECKS, limits)
        self._bad_pictures = self.pictures.at_fault(IMAGE_CHECKS, limits)
        # As hashes in dictionaries they would take several times the memory.
        self._bytes = self.recordings.numbered("sha256")
        self._contents = self.recordings.numbered("content")
        # Arrow keeps what it has freed; of a large corpus, as much as the facts themselves.
        pyarrow.default_memory_pool().release_unused()

    def corpus(self, listings: Sequence[Listing]) -> Iterator[Verdict]:
        """One verdict per listing, sorted by split and utterance id but for ids that occur twice.

        Raises:
            BrewlineError: a file is new since the facts were found out.
        """
        # By the number of the bytes of its recording.
        first_with: list[str | None] = [None] * self._bytes.size
        listed = sorted(judge_listings(self._store, listings), key=lambda pair: _order(pair[0]))
        judged = self._each(listed)
        for verdict in one_of_each_id(judged, (row.utterance_id for row in listings)):
            yield _with_duplicate(verdict, first_with, self._limits)

    def _each(self, listed: Sequence[tuple[Listing, str | Fault]]) -> Iterator[Verdict]:
        """A verdict on each utterance by itself."""
        names = [found for _, found in listed if isinstance(found, str)]
        known = self._known(self.recordings.rows(names))
        # Several utterances describe a picture.
        pictures = self._pictures({row.image_path for row, _ in listed if row.image_path})
        videos = self._video_faults({row.video_path for row, _ in listed if row.video_path})
        for row, found in listed:
            if isinstance(found, Fault):
                yield Verdict(row, *found)
                continue
            place, *facts = next(known)
            picture = pictures[row.image_path] if row.image_path else None
            checks = SOUND_CHECKS if row.is_clip else AUDIO_CHECKS
            is_bad = self._bad_sounds if row.is_clip else self._bad_recordings
            beside = picture if isinstance(picture, Fault) else videos.get(row.video_path)
            if is_bad[place]:
                yield Verdict(row, *self._fault(checks, self.recordings[place]))
            elif beside:
                yield Verdict(row, *beside)
            elif row.is_clip:
                yield self._clip(row, facts)
            else:
                yield Verdict._make((row, None, "", *facts, picture, None))

    def _known(self, places: NDArray[np.int64]) -> Iterator[tuple[Any, ...]]:
        """The row of each recording in the table of facts, and what a verdict has of it."""
        for start in range(0, places.size, _ROWS_AT_ONCE):
            part = places[start : start + _ROWS_AT_ONCE]
            facts = (self.recordings.take(name, part) for name in _FACTS)
            numbers = self._bytes[part].tolist(), self._contents[part].tolist()
            yield from zip(part.tolist(), *facts, *numbers, strict=True)

    def _clip(self, row: Listing, facts: list[Any]) -> Verdict:
        """The verdict on a clip whose file is good: the part of it that the clip is."""
        whole_s, *others = facts
        start_s, end_s = row.start_s or 0.0, whole_s if row.end_s is None else row.end_s
        if end_s > whole_s + self._limits.max_duration_mismatch_s:
            detail = f"it ends at {end_s:.2f} s, and the sound at {whole_s:.2f} s"
            return Verdict(row, "clip_outside", detail)
        late = [event for event in row.events if event.start_s >= end_s - start_s]
        if late:
            detail = f"{late[0].label!r} begins at {late[0].start_s:.2f} s, when it is over"
            return Verdict(row, "event_outside", detail)
        return Verdict._make((row, None, "", end_s - start_s, *others, None, None))

    def _video_faults(self, paths: Collection[str]) -> dict[str | None, Fault]:
        """What is wrong with the pictures of each video that is at fault, or is not there."""
        stored = {path: canonical_name(path) for path in paths if path in self._store}
        # Its sound may be there, as a recording.
        missing = (path for path in paths if path not in stored)
        faults: dict[str | None, Fault] = {
            path: Fault("missing_video", self._store.absence(path)) for path in missing
        }
        if not stored:
            return faults
        videos = known_videos(self._facts)
        is_bad = videos.at_fault(VIDEO_CHECKS, self._limits)
        rows = zip(stored, videos.rows(list(stored.values())).tolist(), strict=True)
        return faults | {
            path: self._fault(VIDEO_CHECKS, videos[row]) for path, row in rows if is_bad[row]
        }

    def _fault(self, checks: Mapping[str, Check], facts: Any) -> Fault:
        """Of a file that is at fault, what it is."""
        fault = facts if isinstance(facts, Fault) else first_fault(checks, facts, self._limits)
        assert fault
        return fault

    def _pictures(self, paths: Iterable[str]) -> dict[str, Fault | str | None]:
        """What is wrong with each picture, or else the hash of what one sees, if it has one."""
        stored = {path: canonical_name(path) for path in paths if path in self._store}
        rows = self.pictures.rows(list(stored.values()))
        looks = zip(stored, rows.tolist(), self.pictures.take("content", rows), strict=True)
        found: dict[str, Fault | str | None] = {
            path: self._fault(IMAGE_CHECKS, self.pictures[row]) if self._bad_pictures[row] else look
            for path, row, look in looks
        }
        missing = (path for path in paths if path not in stored)
        return found | {path: Fault("missing_image", self._store.absence(path)) for path in missing}


def one_of_each_id(verdicts: Iterable[Verdict], ids: Iterable[str]) -> Iterator[Verdict]:
    """Of utterances with one id, keeps the first that is good.

    Args:
        verdicts: What came of each by itself.
        ids: The ids of all of them.

    Yields:
        The verdicts; those with one id together, when the last of them is known.
    """
    counts = {name: count for name, count in Counter(ids).items() if count > 1}
    waiting: dict[str, list[Verdict]] = {name: [] for name in counts}
    for verdict in verdicts:
        name = verdict.listing.utterance_id
        if name not in counts:
            yield verdict
            continue
        same = waiting[name]
        if verdict.reason is None and any(other.reason is None for other in same):
            detail = "another good utterance has the same id"
            verdict = Verdict(verdict.listing, "duplicate_id", detail)
        same.append(verdict)
        if len(same) == counts[name]:
            yield from waiting.pop(name)


def _order(listing: Listing) -> tuple[int, str]:
    # What is no record may be in no split.
    split = listing.split
    return SPLITS.index(split) if split in SPLITS else len(SPLITS), listing.utterance_id


def judge_listings(
    store: MediaStore, listings: Sequence[Listing]
) -> Iterator[tuple[Listing, str | Fault]]:
    """Finds the recording of each, or what is wrong before anything is opened."""
    recordings = {canonical_name(row.audio_path) for row in listings}
    for listing in listings:
        fault = check_listing(listing)
        if fault:
            yield listing, fault
            continue
        name = store.find(listing.audio_path)
        # Under another suffix it may be found, unless that is a recording by itself.
        path = canonical_name(listing.audio_path)
        if name is None or (name != path and name in recordings):
            yield listing, Fault("missing_audio", store.absence(path))
        else:
            yield listing, name


def _with_duplicate(
    verdict: Verdict, first_with: list[str | None], limits: ValidateParams
) -> Verdict:
    """Names the first good utterance whose recording has the same bytes."""
    if verdict.reason:
        return verdict
    name, first = verdict.listing.utterance_id, first_with[verdict.audio_bytes]
    if first is None:
        first_with[verdict.audio_bytes] = name
    # Several clips are parts of one file.
    if first is None or first == name or verdict.listing.start_s is not None:
        return verdict
    if limits.duplicate_audio == "quarantine":
        return Verdict(verdict.listing, "duplicate_audio", f"the same bytes as {first}")
    return verdict._replace(same_audio_as=first)


def count_reasons(quarantine: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many utterances each reason dropped, most first."""
    return dict(Counter(row["reason"] for row in quarantine).most_common())
