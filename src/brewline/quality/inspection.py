"""Opens every recording, picture and video of a corpus once, and writes down what each one is.

A video is opened twice: its sound is a recording.

A unit of work is a run of files that lie beside each other in their archive. What is known of a
finished run is kept in a file of its own, so that whoever was stopped goes on with the others.
"""

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from brewline.core.engine import Engine, Job, run_under_bar
from brewline.core.errors import BrewlineError
from brewline.core.workers import Lost, Worker
from brewline.media.archives import MediaStore, canonical_name
from brewline.media.audio import AudioError, open_recording, to_16k
from brewline.media.containers import PlacedFile
from brewline.media.file_runs import FileRuns, PlacedFiles, list_runs
from brewline.media.pictures import PictureError
from brewline.media.video import VideoError
from brewline.quality.picture_facts import read_picture_facts
from brewline.quality.recording_facts import RecordingMeter, read_recording_facts
from brewline.quality.video_facts import read_video_facts
from brewline.tables.facts import (
    PICTURES,
    RECORDINGS,
    VIDEOS,
    PictureFacts,
    RecordingFacts,
    VideoFacts,
)
from brewline.tables.listing import Listing
from brewline.tables.parquet import join_tables, write_table

if TYPE_CHECKING:
    from brewline.quality.speech_share import SpeechShare

Kind = Literal["recordings", "pictures", "videos"]
SCHEMAS: dict[Kind, Any] = {"recordings": RECORDINGS, "pictures": PICTURES, "videos": VIDEOS}
# Speech is not looked for in longer ones, whose samples would fill the memory.
_LONGEST_S = 3600
# Of the memory that a worker frees it keeps up to twice this, which may be 32 MiB at most.
_KEPT_BYTES = 24 << 20


class MediaTask(NamedTuple):
    """A file to open, and what it should be."""

    kind: Kind
    file: PlacedFile

    @property
    def name(self) -> str:
        """Its stored name."""
        return self.file.name


@dataclass(frozen=True)
class Inspector:
    """Opens files, in a worker process."""

    files: PlacedFiles
    max_megapixels: float
    speech_share: "SpeechShare | None" = None

    def __call__(self, task: MediaTask) -> dict[str, Any]:
        """The row of a file."""
        try:
            content = self.files.read(task.file)
        except (BrewlineError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            # An object store that is away says nothing of the file.
            if isinstance(error, BrewlineError) and error.kind != "data":
                raise
            # The archive could be listed; this member of it is damaged.
            return _fault(task.name, "unreadable", str(error))
        return {"path": task.name, **self._facts(task.kind, content)}

    def _facts(self, kind: Kind, content: bytes) -> dict[str, Any]:
        if kind == "pictures":
            try:
                return _columns(read_picture_facts(content, self.max_megapixels))
            except PictureError as error:
                return {"reason": error.reason, "detail": error.detail}
        if kind == "videos":
            try:
                return _columns(read_video_facts(content))
            except VideoError as error:
                return {"reason": error.reason, "detail": error.detail}
        try:
            return _columns(self._recording_facts(content))
        except AudioError as error:
            return {"reason": error.reason, "detail": error.detail}

    def _recording_facts(self, content: bytes) -> RecordingFacts:
        if self.speech_share is None:
            return read_recording_facts(content)
        with open_recording(content) as recording:
            meter = RecordingMeter(recording, most_kept=_LONGEST_S * recording.sample_rate_hz)
            facts = meter.facts(content)
        mono = meter.mono()
        if mono is None:
            return facts
        return replace(facts, speech_share=self.speech_share(to_16k(mono, facts.sample_rate_hz)))


def _columns(facts: RecordingFacts | PictureFacts | VideoFacts) -> dict[str, Any]:
    # `asdict` copies each of them, which takes ten times as long.
    return {name: getattr(facts, name) for name in facts.__slots__}


def _fault(path: str, reason: str, detail: str) -> dict[str, Any]:
    return {"path": path, "reason": reason, "detail": detail}


def list_files(
    store: MediaStore, listings: Iterable[Listing], folder: Path
) -> dict[Kind, FileRuns]:
    """Lists the recordings, pictures and videos that a corpus has, in the order of its archives.

    Each is there once, however many utterances share it; what is named as both is in both lists.
    A kind that the corpus does not name is not in it, but for recordings and pictures.

    Args:
        store: The corpus' files.
        listings: Its utterances.
        folder: Where the lists are written.
    """
    named: dict[Kind, set[str]] = {"recordings": set(), "pictures": set()}
    for row in listings:
        if stored := store.find(row.audio_path):
            named["recordings"].add(stored)
        if row.image_path and row.image_path in store:
            named["pictures"].add(canonical_name(row.image_path))
        if row.video_path and row.video_path in store:
            named.setdefault("videos", set()).add(canonical_name(row.video_path))
    return {
        kind: list_runs(folder / f"{kind}.parquet", store, store.in_stored_order(names))
        for kind, names in named.items()
    }


class InspectionRun(NamedTuple):
    """A run of the recordings, or of the pictures, of a corpus."""

    kind: Kind
    number: int


@dataclass(frozen=True)
class Inspection(Job[InspectionRun, MediaTask, dict[str, Any], int]):
    """Opens the files of a run, and writes what each one is into a table of its own."""

    root: Path
    files: Mapping[Kind, FileRuns]
    folder: Path
    limit_s: float
    max_megapixels: float
    with_speech_share: bool
    chunk_size: int = 32

    def prepare(self) -> Inspector:
        """See `Job`."""
        # The products of one recording are small: handing them to threads takes longer than they
        # do.
        threadpool_limits(1, "blas")
        # The C library of GNU gives freed memory back and asks for it again, recording by
        # recording, which takes longer than all that is measured; not so below twice the largest
        # block freed.
        np.empty(_KEPT_BYTES, np.uint8)
        if not self.with_speech_share:
            return Inspector(PlacedFiles(self.root), self.max_megapixels)
        # An extra.
        from brewline.quality.speech_share import SpeechShare

        return Inspector(PlacedFiles(self.root), self.max_megapixels, SpeechShare())

    def is_done(self, unit: InspectionRun) -> bool:
        """See `Job`."""
        return _table_of(self.folder, unit).exists()

    def do(self, unit: InspectionRun, worker: Worker[MediaTask, dict[str, Any]]) -> Iterator[int]:
        """See `Job`; tells the number of files."""
        tasks = [MediaTask(unit.kind, file) for file in self.files[unit.kind].read(unit.number)]
        answers = zip(tasks, worker.map(tasks), strict=True)
        rows = [_row(task, answer) for task, answer in answers]
        write_table(_table_of(self.folder, unit), SCHEMAS[unit.kind], rows)
        yield len(rows)


def inspect_files(
    engine: Engine,
    root: Path,
    files: Mapping[Kind, FileRuns],
    folder: Path,
    decode_limit_s: float,
    max_megapixels: float,
    with_speech_share: bool = False,
) -> None:
    """Opens files, and writes their rows, a table for each run; `join_runs` makes one of them.

    Args:
        engine: What does the runs.
        root: The corpus' folder.
        files: From `list_files`.
        folder: The tables, those of before among them.
        decode_limit_s: Seconds after which a file is given up.
        max_megapixels: A larger picture is not decoded.
        with_speech_share: Whether to find out how much of each recording is speech.

    Raises:
        BrewlineError: see `run_units`.
    """
    # What an object store takes is not taken for the decoder's.
    limit_s = decode_limit_s + max(runs.patience_s for runs in files.values())
    job = Inspection(root, files, folder, limit_s, max_megapixels, with_speech_share)
    sizes = {
        InspectionRun(kind, number): size
        for kind, runs in files.items()
        for number, size in enumerate(runs.sizes())
    }
    run_under_bar(engine, job, sizes, "inspecting", "files")


def _row(task: MediaTask, answer: dict[str, Any] | Lost) -> dict[str, Any]:
    """The row of a file, one that took its worker with it included."""
    if isinstance(answer, Lost):
        return _fault(task.name, f"decoder_{answer.how}", answer.detail)
    return answer


def _table_of(folder: Path, run: InspectionRun) -> Path:
    return folder / f"{run.kind}-{run.number:06}.parquet"


def join_runs(files: Mapping[Kind, FileRuns], folder: Path, facts: Path) -> None:
    """Writes the tables of all runs as one of each kind, in their order.

    Args:
        files: From `list_files`.
        folder: The tables of `inspect_files`.
        facts: The folder of the new ones.
    """
    for kind, of_kind in files.items():
        path = facts / f"{kind}.parquet"
        runs = (InspectionRun(kind, number) for number in range(len(of_kind.sizes())))
        join_tables(path, SCHEMAS[kind], (_table_of(folder, run) for run in runs))
