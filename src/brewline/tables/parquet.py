"""Parquet tables whose types are stated once: written row by row, equal rows to equal bytes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet

from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path

if TYPE_CHECKING:
    import pandas

# What is kept in memory of a table that is being written: a row group.
ROWS_PER_GROUP = 16_384

TEXT, FLOAT, INT, BOOL = pyarrow.string(), pyarrow.float64(), pyarrow.int64(), pyarrow.bool_()


def table_schema(**columns: Any) -> Any:
    """Columns by name; a type in brackets may be null."""
    return pyarrow.schema(
        [
            pyarrow.field(name, kind[0], nullable=True)
            if isinstance(kind, list)
            else pyarrow.field(name, kind, nullable=False)
            for name, kind in columns.items()
        ]
    )


def write_table(path: Path, schema: Any, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows as Parquet, atomically; equal rows give equal bytes.

    Raises:
        ValueError: a row lacks a column that may not be null, or has one of another type.
    """
    with atomic_path(path) as partial, open_table(partial, schema) as add_row:
        for row in rows:
            add_row(row)


@contextmanager
def open_table(path: Path, schema: Any) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Writes rows as Parquet as they come, keeping few of them in memory; not atomic by itself.

    Yields:
        A function that takes the next row.

    Raises:
        ValueError: see `write_table`.
    """
    waiting: list[Mapping[str, Any]] = []
    num_written = 0

    def write_waiting() -> None:
        nonlocal num_written
        num_written += len(waiting)
        table = pyarrow.Table.from_pylist(waiting, schema=schema)
        for field in schema:
            if not field.nullable and table.column(field.name).null_count:
                raise ValueError(f"column {field.name} has empty cells")
        writer.write_table(table)
        waiting.clear()

    def add_row(row: Mapping[str, Any]) -> None:
        waiting.append(row)
        if len(waiting) == ROWS_PER_GROUP:
            write_waiting()

    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        yield add_row
        # A table without rows has a row group too.
        if waiting or not num_written:
            write_waiting()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what is wrong with a table that a stage has made into one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise BrewlineError(f"{path} is missing; run `dvc repro`") from None
    # Damage inside of a page ends in errors of the decompressors, or in text that is none.
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        what = next(iter(str(error).splitlines()), type(error).__name__)
        raise BrewlineError(f"{path} is not a whole Parquet file: {what}") from None


def read_frame(path: Path) -> "pandas.DataFrame":
    """Reads a table as a data frame.

    Raises:
        BrewlineError: see `read_table`.
    """
    import pandas

    with _explained(path):
        return pandas.read_parquet(path)


def read_table(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Reads a table, or some columns of it, as one dictionary per row.

    Raises:
        BrewlineError: the file is missing or damaged.
    """
    with _explained(path):
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path, columns=columns).to_pylist()
    return rows
