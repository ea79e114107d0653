"""The pictures of a corpus made small enough for shards: each once, however many captions it has.

They are read in the order of their archives, and wait in the work folder, a file for each run of
them, until the shards are written, whose order is another one.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.ipc

from brewline.config.shard import ShardParams
from brewline.core.engine import Job
from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path
from brewline.core.workers import Lost, Worker
from brewline.media.archives import MediaStore, canonical_name
from brewline.media.containers import PlacedFile
from brewline.media.file_runs import FileRuns, PlacedFiles, list_runs
from brewline.media.pictures import PictureError, shrink_jpeg
from brewline.tables.parquet import read_column

# An Arrow file: a batch for each picture, so that one is read without the others.
_JPEGS = pyarrow.schema([pyarrow.field("jpeg", pyarrow.binary(), nullable=False)])
# Files that a process keeps open: those of SpokenCOCO's pictures.
_OPEN_FILES = 128
# Of a row without a picture.
NO_PICTURE = -1


@dataclass(frozen=True)
class Refused:
    """Why a picture cannot be packed."""

    detail: str


@dataclass(frozen=True)
class ShrinkPictures(Job[int, PlacedFile, bytes | Refused, int]):
    """Makes the pictures of a run small."""

    root: Path
    pictures: FileRuns
    folder: Path
    settings: ShardParams
    limit_s: float
    chunk_size: int = 16

    def prepare(self) -> "Shrink":
        """See `Job`."""
        return Shrink(PlacedFiles(self.root), self.settings)

    def is_done(self, unit: int) -> bool:
        """See `Job`."""
        return file_of(self.folder, unit).exists()

    def do(self, unit: int, worker: Worker[PlacedFile, bytes | Refused]) -> Iterator[int]:
        """See `Job`; tells the number of pictures.

        Raises:
            BrewlineError: one of them cannot be packed.
        """
        files = self.pictures.read(unit)
        with (
            atomic_path(file_of(self.folder, unit)) as partial,
            pyarrow.ipc.new_file(str(partial), _JPEGS) as jpegs,
        ):
            for file, answer in zip(files, worker.map(files), strict=True):
                if isinstance(answer, Refused | Lost):
                    raise BrewlineError(f"picture {file.name!r} cannot be packed: {answer.detail}")
                jpegs.write_batch(pyarrow.record_batch([[answer]], schema=_JPEGS))
        yield len(files)


@dataclass(frozen=True)
class Shrink:
    """Makes a picture small, in a worker process."""

    files: PlacedFiles
    settings: ShardParams

    def __call__(self, file: PlacedFile) -> bytes | Refused:
        """The JPEG of a picture.

        Raises:
            BrewlineError: its archive is damaged.
        """
        try:
            return shrink_jpeg(self.files.read(file), self.settings)
        except PictureError as error:
            return Refused(error.detail)


class MadeFiles:
    """What was made of the files of a list, run by run, by their numbers in it."""

    def __init__(self, files: FileRuns, folder: Path) -> None:
        """Args are the list, and where an Arrow file for each of its runs is."""
        self._length, self._folder = files.length, folder
        self._file = functools.lru_cache(maxsize=_OPEN_FILES)(self._open)

    def _open(self, run: int) -> Any:
        return pyarrow.ipc.open_file(str(file_of(self._folder, run)))

    def batch(self, number: int) -> Any:
        """What was made of a file, as a batch of one row.

        Raises:
            BrewlineError: a disk has damaged the file that it is in.
        """
        run, place = divmod(number, self._length)
        try:
            return self._file(run).get_batch(place)
        except (pyarrow.ArrowException, OSError) as error:
            path = file_of(self._folder, run)
            raise BrewlineError(
                f"{path} is damaged ({error}); remove it and run it again: what is in it is made "
                "again"
            ) from None


class ShrunkPictures(MadeFiles):
    """The pictures that `ShrinkPictures` made, by their numbers in the list."""

    def read(self, number: int) -> bytes:
        """The JPEG of a picture.

        Raises:
            BrewlineError: a disk has damaged the file that it is in.
        """
        jpeg: bytes = self.batch(number).column("jpeg")[0].as_py()
        return jpeg


def file_of(folder: Path, run: int) -> Path:
    """Where what was made of the files of a run is."""
    return folder / f"{run:06}.arrow"


def list_pictures(root: Path, manifest: Path, path: Path, numbers: Path) -> FileRuns:
    """Lists the pictures of a corpus, each once, and says which one each row of its manifest has.

    Args:
        root: The corpus' folder.
        manifest: The table.
        path: The list, which is written.
        numbers: An array that is written, `.npy`, (num_rows,): the number of each row's picture in
            the list, or `NO_PICTURE`.

    Raises:
        BrewlineError: a picture is not in the archives.
    """
    column = read_column(manifest, "image_path").combine_chunks().dictionary_encode()
    names = [canonical_name(name) for name in column.dictionary.to_pylist()]
    store = MediaStore(root)
    if missing := next((name for name in names if name not in store), None):
        raise BrewlineError(f"picture {store.absence(missing)}; run `dvc repro`")
    in_order = store.in_stored_order(names)
    place = {name: number for number, name in enumerate(in_order)}
    # A row without a picture has the index -1, and so the last of these.
    places = np.array([*(place[name] for name in names), NO_PICTURE], np.int64)
    with atomic_path(numbers) as partial, partial.open("wb") as file:
        np.save(file, places[column.indices.fill_null(-1).to_numpy()])
    return list_runs(path, store, in_order)
