"""Files of a corpus in the order of their archives, cut into runs, which are units of work.

The list is a table in the work folder, a row group a run. Whoever does a run reads that alone, so
only the process that makes the list has a whole corpus in its memory.
"""

import functools
import itertools
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet

from brewline.core.files import atomic_path
from brewline.media.archives import (
    MediaStore,
    open_container,
    open_placed,
    whole_or_cut_off,
)
from brewline.media.containers import LocalFile, PlacedFile, RawFile
from brewline.media.objects import StoredObject
from brewline.tables.parquet import INT, TEXT, table_schema

# Of a large corpus: what is done again at most by whoever was stopped. Of a small one: of a
# compressed archive, more is passed over between two runs than lies between two seek points.
_MOST_FILES, _FEWEST_FILES = 1024, 64
# A corpus of some size has as many runs at least, so that all workers have something.
_NUM_RUNS = 16

# A row for each place of a file; `number` is that of the file in the list.
_PLACES = table_schema(number=INT, name=TEXT, file=TEXT, published=TEXT, place=pyarrow.list_(INT))


@dataclass(frozen=True)
class FileRuns:
    """A list of files, which travels as its path; runs are numbered from 0.

    `length` is that of a run; the last one may have fewer files. `patience_s` is how long a file
    may be waited for before any of it is read.
    """

    path: Path
    num_files: int
    length: int
    patience_s: float

    def sizes(self) -> list[int]:
        """How many files each run has."""
        starts = range(0, self.num_files, self.length)
        return [min(self.length, self.num_files - start) for start in starts]

    def read(self, number: int) -> list[PlacedFile]:
        """The files of a run."""
        return self._read([number])

    def files(self, part: slice) -> list[PlacedFile]:
        """The files from its start to before its stop, both of which the list has."""
        first = part.start // self.length
        runs = range(first, -(-part.stop // self.length))
        start = part.start - first * self.length
        return self._read(runs)[start : start + part.stop - part.start]

    def _read(self, runs: Sequence[int]) -> list[PlacedFile]:
        with pyarrow.parquet.ParquetFile(self.path) as table:
            rows = table.read_row_groups(runs).to_pylist()
        files = []
        for _, same in itertools.groupby(rows, lambda row: row["number"]):
            of_file = list(same)
            places = (
                (_raw_file(row["file"]), row["published"], tuple(row["place"])) for row in of_file
            )
            files.append(PlacedFile(of_file[0]["name"], tuple(places)))
        return files


def run_length(num_files: int) -> int:
    """How many of so many files a run has.

    It depends on nothing else: with other workers the list is cut in the same way, and what was
    done is found.
    """
    return max(_FEWEST_FILES, min(_MOST_FILES, num_files // _NUM_RUNS))


def list_runs(path: Path, store: MediaStore, names: Collection[str]) -> FileRuns:
    """Writes the list of some files of a corpus.

    Args:
        path: The table.
        store: The corpus' files.
        names: For units of work, in the order of `MediaStore.in_stored_order`.
    """
    runs = FileRuns(path, len(names), run_length(len(names)), store.patience_s)
    rest = enumerate(names)
    with atomic_path(path) as partial, pyarrow.parquet.ParquetWriter(partial, _PLACES) as table:
        for size in runs.sizes():
            rows = [
                (number, name, _described(raw), published, place)
                for number, name in itertools.islice(rest, size)
                for raw, published, place in store.placed(name).places
            ]
            table.write_table(pyarrow.table(list(zip(*rows, strict=True)), schema=_PLACES))
    return runs


@functools.lru_cache(maxsize=8)
def _described(file: RawFile) -> str:
    # A path may hold what is no UTF-8.
    return json.dumps(asdict(file) if isinstance(file, StoredObject) else {"path": str(file)})


@functools.lru_cache(maxsize=8)
def _raw_file(described: str) -> RawFile:
    # The members of an archive name one and the same, which travels once with many of them.
    facts = json.loads(described)
    return LocalFile(Path(facts["path"])) if "path" in facts else StoredObject(**facts)


class PlacedFiles:
    """Reads files of a corpus whose places are known: without a listing, in little memory."""

    def __init__(self, root: Path, in_order: bool = True) -> None:
        """Begins.

        Args:
            root: As for `MediaStore`.
            in_order: Whether files come in the order of their archives.
        """
        self._root = root
        # One, and another that repeats it; of others many, as each may have an index to be read.
        self._container = functools.lru_cache(maxsize=2 if in_order else 64)(open_container)

    def read(self, file: PlacedFile) -> bytes:
        """The content of a file; see `MediaStore.read`."""
        places = [(self._container(raw, name), place) for raw, name, place in file.places]
        with whole_or_cut_off(self._root, file.name), open_placed(file.name, places) as content:
            return content.read()
