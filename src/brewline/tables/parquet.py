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
    """Reads a table as a data frame, in which lists stay Arrow's.

    As pandas has them, each is an object by itself, an empty one too.

    Raises:
        BrewlineError: see `read_table`.
    """
    import pandas

    def lists(kind: Any) -> Any:
        return pandas.ArrowDtype(kind) if pyarrow.types.is_list(kind) else None

    with _explained(path):
        frame: pandas.DataFrame = pyarrow.parquet.read_table(path).to_pandas(types_mapper=lists)
    return frame


def read_table(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Reads a table, or some columns of it, as one dictionary per row.

    Raises:
        BrewlineError: the file is missing or damaged.
    """
    with _explained(path):
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path, columns=columns).to_pylist()
    return rows


def read_column(path: Path, name: str) -> Any:
    """Reads a column of a table, as Arrow has it.

    Raises:
        BrewlineError: see `read_table`.
    """
    with _explained(path):
        return pyarrow.parquet.read_table(path, columns=[name]).column(name)


def read_rows(path: Path, part: slice, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Reads rows of a large table, in little more memory than they and their row groups take.

    Args:
        path: The table.
        part: From its start to before its stop, both of which the table has.
        columns: Their names.

    Raises:
        BrewlineError: see `read_table`.
    """
    found, end = [], 0
    with _explained(path), pyarrow.parquet.ParquetFile(path) as table:
        for group in range(table.num_row_groups):
            start, end = end, end + table.metadata.row_group(group).num_rows
            if start < part.stop and part.start < end:
                rows = table.read_row_group(group, columns=list(columns))
                first = max(part.start - start, 0)
                found += rows.slice(first, part.stop - start - first).to_pylist()
    return found


def join_tables(path: Path, schema: Any, parts: Iterable[Path]) -> None:
    """Writes tables as one, atomically, in the bytes that `write_table` gives all of their rows.

    Raises:
        BrewlineError: a part is missing or damaged.
    """
    with atomic_path(path) as partial, pyarrow.parquet.ParquetWriter(partial, schema) as writer:
        waiting, is_empty = schema.empty_table(), True
        for part in parts:
            with _explained(part):
                read = pyarrow.parquet.read_table(part, schema=schema)
            waiting = pyarrow.concat_tables([waiting, read])
            while waiting.num_rows >= ROWS_PER_GROUP:
                writer.write_table(waiting.slice(0, ROWS_PER_GROUP).combine_chunks())
                waiting, is_empty = waiting.slice(ROWS_PER_GROUP), False
        # A table without rows has a row group too.
        if waiting.num_rows or is_empty:
            writer.write_table(waiting.combine_chunks())
