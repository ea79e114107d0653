"""Opens every recording and picture of a corpus once, and writes down what each one is.

The work is cut into runs of files that lie beside each other in their archive. What is known of a
finished run is kept in a file of its own, so that whoever was stopped goes on with the next one.
"""

import functools
import itertools
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow.parquet
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path
from brewline.core.workers import Lost, WorkerPool
from brewline.media.archives import MediaStore, canonical_name
from brewline.media.audio import AudioError, open_recording, to_16k
from brewline.media.pictures import PictureError
from brewline.quality.picture_facts import read_picture_facts
from brewline.quality.recording_facts import RecordingMeter, read_recording_facts
from brewline.tables.facts import PICTURES, RECORDINGS, RecordingFacts
from brewline.tables.listing import Listing
from brewline.tables.parquet import ROWS_PER_GROUP, write_table

if TYPE_CHECKING:
    from brewline.quality.speech_share import SpeechShare

Kind = Literal["recordings", "pictures"]
SCHEMAS: dict[Kind, Any] = {"recordings": RECORDINGS, "pictures": PICTURES}
# What a worker is handed at a time: enough that another one, who passes over it in a compressed
# archive, passes over more than the distance of two points from which it can be read.
_FILES_PER_CHUNK = 128
# Speech is not looked for in longer ones, whose samples would fill the memory.
_LONGEST_S = 3600
# Of the memory that a worker frees it keeps up to twice this, which may be 32 MiB at most.
_KEPT_BYTES = 24 << 20
# What is lost at most when the stage is killed.
_FILES_PER_RUN = 1024


class MediaTask(NamedTuple):
    """A file to open: what it should be, and its stored name."""

    kind: Kind
    name: str


@dataclass(frozen=True)
class Inspector:
    """Opens files, in a worker process."""

    store: MediaStore
    max_megapixels: float
    speech_share: "SpeechShare | None" = None

    def __call__(self, task: MediaTask) -> dict[str, Any]:
        """The row of a file."""
        try:
            content = self.store.read(task.name)
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
                return asdict(read_picture_facts(content, self.max_megapixels))
            except PictureError as error:
                return {"reason": error.reason, "detail": error.detail}
        try:
            return asdict(self._recording_facts(content))
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


def _fault(path: str, reason: str, detail: str) -> dict[str, Any]:
    return {"path": path, "reason": reason, "detail": detail}


def _prepare(store: MediaStore, max_megapixels: float, with_speech_share: bool) -> Inspector:
    # The products of one recording are small: handing them to threads takes longer than they do.
    threadpool_limits(1, "blas")
    # The C library of GNU gives freed memory back and asks for it again, recording by recording,
    # which takes longer than all that is measured; not so below twice the largest block freed.
    np.empty(_KEPT_BYTES, np.uint8)
    if not with_speech_share:
        return Inspector(store, max_megapixels)
    # An extra.
    from brewline.quality.speech_share import SpeechShare

    return Inspector(store, max_megapixels, SpeechShare())


def files_of(store: MediaStore, listings: Iterable[Listing]) -> list[MediaTask]:
    """The recordings and pictures that a corpus lists and has, in the order of its archives."""
    recordings, pictures = set(), set()
    for row in listings:
        if stored := store.find(row.audio_path):
            recordings.add(stored)
        if row.image_path and row.image_path in store:
            pictures.add(canonical_name(row.image_path))
    # What is listed as both is opened as both.
    listed: dict[Kind, set[str]] = {"recordings": recordings, "pictures": pictures}
    return [
        MediaTask(kind, name)
        for name in store.in_stored_order(recordings | pictures)
        for kind, names in listed.items()
        if name in names
    ]


def inspect_files(
    store: MediaStore,
    tasks: Sequence[MediaTask],
    work: Path,
    workers: int,
    decode_limit_s: float,
    max_megapixels: float,
    with_speech_share: bool = False,
) -> None:
    """Opens files in worker processes, and writes their rows into `work`, a file for each run.

    Args:
        store: The corpus' files.
        tasks: From `files_of`.
        work: The folder of partial work, with the rows of the runs that are done.
        workers: The number of processes.
        decode_limit_s: Seconds after which a file is given up.
        max_megapixels: A larger picture is not decoded.
        with_speech_share: Whether to find out how much of each recording is speech.
    """
    cuts = range(0, len(tasks), _FILES_PER_RUN)
    runs = {_rows_of(work, start): tasks[start : start + _FILES_PER_RUN] for start in cuts}
    left = {path: run for path, run in runs.items() if not path.exists()}
    if not left:
        return
    # The store travels: listing a large archive anew in each process takes longer.
    prepare = functools.partial(_prepare, store, max_megapixels, with_speech_share)
    # Of a small corpus every worker has something.
    chunk = min(_FILES_PER_CHUNK, max(1, len(tasks) // (4 * workers)))
    bar = tqdm(
        total=len(tasks),
        initial=len(tasks) - sum(map(len, left.values())),
        desc="inspecting",
        unit=" files",
        disable=None,
    )
    # What an object store takes is not taken for the decoder's.
    limit_s = decode_limit_s + store.patience_s
    with bar, WorkerPool(prepare, workers, limit_s, chunk) as pool:
        answers = pool.map(itertools.chain.from_iterable(left.values()))
        for path, run in left.items():
            rows = [_row(task, next(answers)) for task in run]
            _write_run(path, run, rows)
            bar.update(len(run))


def _rows_of(work: Path, start: int) -> Path:
    return work / f"{start:08}"


def _row(task: MediaTask, answer: dict[str, Any] | Lost) -> dict[str, Any]:
    """The row of a file, one that took its worker with it included."""
    if isinstance(answer, Lost):
        return _fault(task.name, f"decoder_{answer.how}", answer.detail)
    return answer


def _write_run(folder: Path, run: Sequence[MediaTask], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the rows of a run, those of each kind into a table of their own."""
    with atomic_path(folder) as partial:
        partial.mkdir()
        for kind, schema in SCHEMAS.items():
            own = (row for task, row in zip(run, rows, strict=True) if task.kind == kind)
            write_table(partial / f"{kind}.parquet", schema, own)


def join_runs(work: Path, folder: Path) -> None:
    """Writes the tables of all runs as one of each kind, in their order."""
    # Beside them lie those that somebody who was killed had not finished.
    runs = sorted(path for path in work.iterdir() if path.name.isdigit()) if work.exists() else []
    for kind, schema in SCHEMAS.items():
        path = folder / f"{kind}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial, pyarrow.parquet.ParquetWriter(partial, schema) as writer:
            for table in _row_groups((run / f"{kind}.parquet" for run in runs), schema):
                writer.write_table(table)


def _row_groups(paths: Iterable[Path], schema: Any) -> Iterator[Any]:
    """The tables at paths, joined to groups of a good size."""
    waiting = [schema.empty_table()]
    for path in paths:
        waiting.append(pyarrow.parquet.read_table(path, schema=schema))
        if sum(table.num_rows for table in waiting) >= ROWS_PER_GROUP:
            yield pyarrow.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pyarrow.concat_tables(waiting)
