"""The facts of a corpus, as stage `inspect` wrote them, by the name of the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow
import pyarrow.parquet

from brewline.core.errors import BrewlineError
from brewline.quality.checks import Fault
from brewline.tables.facts import PictureFacts, RecordingFacts

Facts = TypeVar("Facts")


class KnownFacts(Generic[Facts]):
    """The facts of many files; they stay in their columns, which take a tenth of the memory."""

    def __init__(self, path: Path, kind: Callable[..., Facts]) -> None:
        """Reads a table of facts.

        Raises:
            BrewlineError: it is missing or damaged.
        """
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                names = file.schema_arrow.names
                # One after the other: each is in memory twice while it is read.
                self._columns = {
                    name: _cells(file.read([name]).column(0)) for name in names if name != "path"
                }
                paths = file.read(["path"]).column(0).to_pylist()
        except FileNotFoundError:
            raise BrewlineError(f"{path} is missing; run `dvc repro`") from None
        except pyarrow.ArrowInvalid as error:
            raise BrewlineError(f"{path} is not a whole Parquet file: {error}") from None
        self._path, self._kind = path, kind
        self._rows = {name: row for row, name in enumerate(paths)}

    def __getitem__(self, name: str) -> Facts | Fault:
        """What is known of a file, or why it could not be opened.

        Raises:
            BrewlineError: the file is new since then.
        """
        row = self._rows.get(name)
        if row is None:
            raise BrewlineError(f"{self._path} does not know {name!r}; run `dvc repro`")
        values: dict[str, Any] = {name: cell(row) for name, cell in self._columns.items()}
        reason, detail = values.pop("reason"), values.pop("detail")
        return Fault(reason, detail) if reason else self._kind(**values)


def _cells(column: Any) -> Callable[[int], Any]:
    """Gives the cells of a column of pyarrow by their row; NumPy does it ten times as fast."""
    array = column.combine_chunks()
    if pyarrow.types.is_string(array.type):
        return lambda row: array[row].as_py()
    known = array.is_valid().to_numpy(zero_copy_only=False)
    values = array.fill_null(pyarrow.scalar(0).cast(array.type)).to_numpy(zero_copy_only=False)
    return lambda row: values.item(row) if known[row] else None


def known_recordings(folder: Path) -> KnownFacts[RecordingFacts]:
    """The facts of the recordings in `data/facts/<corpus>`."""
    return KnownFacts(folder / "recordings.parquet", RecordingFacts)


def known_pictures(folder: Path) -> KnownFacts[PictureFacts]:
    """The facts of the pictures in `data/facts/<corpus>`."""
    return KnownFacts(folder / "pictures.parquet", PictureFacts)
