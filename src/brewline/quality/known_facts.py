"""The facts of a corpus, as stage `inspect` wrote them, by the name of the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

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
            table = pyarrow.parquet.read_table(path)
        except FileNotFoundError:
            raise BrewlineError(f"{path} is missing; run `dvc repro`") from None
        except pyarrow.ArrowInvalid as error:
            raise BrewlineError(f"{path} is not a whole Parquet file: {error}") from None
        self._path, self._kind = path, kind
        self._rows = {name: row for row, name in enumerate(table.column("path").to_pylist())}
        self._columns = {
            name: table.column(name).combine_chunks()
            for name in table.column_names
            if name != "path"
        }

    def __getitem__(self, name: str) -> Facts | Fault:
        """What is known of a file, or why it could not be opened.

        Raises:
            BrewlineError: the file is new since then.
        """
        row = self._rows.get(name)
        if row is None:
            raise BrewlineError(f"{self._path} does not know {name!r}; run `dvc repro`")
        values: dict[str, Any] = {
            name: column[row].as_py() for name, column in self._columns.items()
        }
        reason, detail = values.pop("reason"), values.pop("detail")
        return Fault(reason, detail) if reason else self._kind(**values)


def known_recordings(folder: Path) -> KnownFacts[RecordingFacts]:
    """The facts of the recordings in `data/facts/<corpus>`."""
    return KnownFacts(folder / "recordings.parquet", RecordingFacts)


def known_pictures(folder: Path) -> KnownFacts[PictureFacts]:
    """The facts of the pictures in `data/facts/<corpus>`."""
    return KnownFacts(folder / "pictures.parquet", PictureFacts)
