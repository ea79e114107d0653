"""The recordings of a manifest, for workers that know neither it nor the corpus' listing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from brewline.core.errors import BrewlineError
from brewline.media.archives import MediaStore
from brewline.media.file_runs import FileRuns, PlacedFiles, list_runs
from brewline.speech.batch_plan import Row
from brewline.tables.parquet import read_column, read_rows

# Of a row that a worker is given: where its recording lies.
_FILE = "file"


def list_recordings(root: Path, manifest: Path, path: Path) -> FileRuns:
    """Writes where the recording of each row of a manifest lies, in its order.

    Args:
        root: The corpus' files.
        manifest: The table.
        path: The list.

    Raises:
        BrewlineError: a recording is not in the archives.
    """
    store = MediaStore(root)
    names = read_column(manifest, "audio_path").to_pylist()
    return list_runs(path, store, list(_stored(store, names)))


def _stored(store: MediaStore, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        stored = store.find(name)
        if stored is None:
            raise BrewlineError(f"recording {store.absence(name)}; run `dvc repro`")
        yield stored


def read_placed_rows(
    manifest: Path, recordings: FileRuns, part: slice, columns: Sequence[str]
) -> list[Row]:
    """Rows of a manifest, each with what `Recordings` reads; see `read_rows`."""
    rows = read_rows(manifest, part, columns)
    files = recordings.files(part)
    return [{**row, _FILE: file} for row, file in zip(rows, files, strict=True)]


class Recordings:
    """Reads the recordings of such rows."""

    def __init__(self, root: Path) -> None:
        """Args are the corpus' files."""
        # Rows are in the order of a hash.
        self._files = PlacedFiles(root, in_order=False)

    def content(self, row: Row) -> bytes:
        """The file of a row's recording.

        Raises:
            BrewlineError: its archive is damaged.
        """
        return self._files.read(row[_FILE])
