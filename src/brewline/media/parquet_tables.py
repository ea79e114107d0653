"""Parquet tables with recordings or pictures in them.

A few hundred bytes of Parquet can stand for gigabytes: pages are compressed, a dictionary is said
once and meant a million times, and a prefix may be that of the value before. So nothing is decoded
before the headers of its pages were read, which say how large they become; and then it is decoded
few rows at a time, and counted.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from brewline.core.errors import BrewlineError
from brewline.media.containers import (
    HARMLESS_BYTES,
    MAX_MEMBERS,
    MAX_RATIO,
    Place,
    RawFile,
    name_as_text,
    refused,
)
from brewline.media.parquet_sizes import page_sizes, read_chunks

# A row group is kept in memory while it is read; those with recordings usually have 100 rows.
MAX_ROW_GROUP_BYTES = 4 << 30
# What may be decoded at once: at least a row, and no more rows than this.
_BATCH_BYTES = 64 << 20
_BATCH_ROWS = 1024
# What names the media of a row, the first of these columns that there is; several rows of one name
# hold the same file, as in copies of AudioCaps, which have a row for each caption.
_ID_COLUMNS = ("id", "video_id", "youtube_id")


class ParquetTable:
    """A table as the Hugging Face hub publishes media; a place is (column, row group, row).

    A column `x{bytes,path}` beside a column `id` (or another of `_ID_COLUMNS`) holds files called
    `x/<id>`; tables without one have no members.
    """

    def __init__(self, file: RawFile) -> None:
        self.file = file
        with self._explained(), file.open() as raw:
            self._chunks = read_chunks(raw)
        sizes = [sum(chunk.num_bytes for chunk in group) for group in self._chunks]
        if max(sizes, default=0) > MAX_ROW_GROUP_BYTES:
            raise refused(file, f"one of its row groups takes {max(sizes)} bytes")
        self._check_size(sum(sizes), _bound(file.size))
        with self._opened() as table:
            self._schema, num_rows = table.schema_arrow, table.metadata.num_rows
        if num_rows > MAX_MEMBERS:
            raise refused(file, f"it has more than {MAX_MEMBERS} rows")
        self._id = next((name for name in _ID_COLUMNS if name in self._schema.names), None)
        self._columns = self._media_columns()
        # The row group that was read last, and where it lies.
        self._group: tuple[int, int] | None = None
        self._contents: Any = None

    def _media_columns(self) -> list[str]:
        from pyarrow import types

        if self._id is None:
            return []
        columns = []
        for field in self._schema:
            if not types.is_struct(field.type) or field.type.get_field_index("bytes") < 0:
                continue
            kind = field.type.field("bytes").type
            if not (types.is_binary(kind) or types.is_large_binary(kind)):
                raise refused(self.file, f"its column {field.name} has {kind} for bytes")
            columns.append(field.name)
        return columns

    def _check_size(self, num_bytes: int, limit: int) -> None:
        if num_bytes > limit:
            raise refused(self.file, f"it swells to more than {limit} bytes")

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The open table."""
        import pyarrow.parquet

        with (
            self._explained(),
            pyarrow.parquet.ParquetFile(self.file.for_library(), pre_buffer=False) as table,
        ):
            yield table

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns whatever is found to be wrong in the file into one sentence."""
        import pyarrow

        try:
            yield
        # Arrow's own errors, those of its decompressors, and those of its bindings.
        except (pyarrow.ArrowException, OSError, ValueError, LookupError, OverflowError) as error:
            what = next(iter(str(error).splitlines()), type(error).__name__)
            raise BrewlineError(f"{self.file} is not a whole Parquet file: {what}") from None

    def members(self) -> Iterator[tuple[str, Place]]:
        if self._id is None or not self._columns:
            return
        row, last, limit = 0, 0, _bound(self.file.size)
        for group, batch in self._batches(range(len(self._chunks)), [self._id], limit):
            row, last = row if group == last else 0, group
            for raw in self._column(batch, self._id):
                if raw is None:
                    told = f"row {row} of its row group {group} has no {self._id}"
                    raise refused(self.file, told)
                name = name_as_text(raw) if isinstance(raw, bytes) else str(raw)
                for column, kind in enumerate(self._columns):
                    yield f"{kind}/{name}", (column, group, row)
                row += 1

    def open(self, place: Place) -> BinaryIO:
        import pyarrow

        column, group, row = place
        # Rows are read in order mostly, so the last row group is kept.
        if self._group != (column, group):
            self._group = self._contents = None
            name = self._columns[column]
            packed_bytes = sum(
                chunk.packed_bytes for chunk in self._chunks[group] if chunk.is_of(f"{name}.bytes")
            )
            limit = min(_bound(packed_bytes), MAX_ROW_GROUP_BYTES)
            chunks = [
                batch.column(name).field("bytes")
                for _, batch in self._batches([group], [f"{name}.bytes"], limit)
            ]
            self._contents = pyarrow.chunked_array(chunks) if chunks else []
            self._group = (column, group)
        content = self._contents[row].as_py() if row < len(self._contents) else None
        if content is None:
            raise BrewlineError(f"{self.file}: row {row} of its row group {group} has no bytes")
        return io.BytesIO(content)

    def rows(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        """The rows, with these columns only: text, or whole numbers.

        What is no UTF-8 in a text comes as lone surrogates, as in `MediaStore.lines`.

        Raises:
            BrewlineError: it lacks one of them, has one twice or of another type, is damaged, or
                swells beyond measure.
        """
        missing = [name for name in columns if name not in self._schema.names]
        if missing:
            raise BrewlineError(f"{self.file} has no column {', '.join(missing)}")
        limit = _bound(self.file.size)
        for _, batch in self._batches(range(len(self._chunks)), columns, limit):
            cells = [self._column(batch, name) for name in columns]
            for row in zip(*cells, strict=True):
                texts = (
                    cell.decode("utf-8", "surrogateescape") if isinstance(cell, bytes) else cell
                    for cell in row
                )
                yield dict(zip(columns, texts, strict=True))

    def _column(self, batch: Any, name: str) -> list[bytes | int | None]:
        """The values of a column of text, as bytes, or of whole numbers.

        Raises:
            BrewlineError: it is of another type, or there are two.
        """
        import pyarrow
        from pyarrow import types

        if batch.schema.names.count(name) != 1:
            raise refused(self.file, f"it has two columns {name}")
        column = batch.column(name)
        with self._explained():
            if types.is_dictionary(column.type):
                column = column.dictionary_decode()
            if types.is_string(column.type) or types.is_large_string(column.type):
                column = column.cast(pyarrow.large_binary())
            elif not types.is_integer(column.type):
                raise refused(
                    self.file, f"its column {name} holds {column.type}, not text or whole numbers"
                )
            values: list[bytes | int | None] = column.to_pylist()
        return values

    def _batches(
        self, groups: Iterable[int], columns: Sequence[str], limit: int
    ) -> Iterator[tuple[int, Any]]:
        """The rows of row groups, with the group, so few at a time that they cannot be large.

        A value is no larger than the largest page: it stands in one, or in the dictionary, or it
        goes on from the beginning of those before, which stand there too.

        Raises:
            BrewlineError: the pages or the values take more bytes than the limit.
        """
        in_pages = in_values = 0
        with self._opened() as table, self.file.open() as raw:
            for group in groups:
                sizes = [
                    page_sizes(raw, chunk)
                    for chunk in self._chunks[group]
                    if any(map(chunk.is_of, columns))
                ]
                in_pages += sum(total for total, _ in sizes)
                self._check_size(in_pages, limit)
                largest = sum(largest for _, largest in sizes)
                for batch in table.iter_batches(
                    batch_size=max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(largest, 1))),
                    row_groups=[group],
                    columns=list(columns),
                    use_threads=False,
                ):
                    in_values += batch.nbytes
                    self._check_size(in_values, limit)
                    yield group, batch


def _bound(packed_bytes: int) -> int:
    """The bytes that so many may become: many times as many only where it does no harm."""
    return max(HARMLESS_BYTES, MAX_RATIO * packed_bytes)
