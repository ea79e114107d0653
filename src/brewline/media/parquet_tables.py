"""Parquet tables with recordings or pictures in them."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from brewline.core.errors import BrewlineError
from brewline.media.containers import Place, refused

# A row group is decoded at once; those with recordings or pictures usually have 100 rows.
MAX_ROW_GROUP_BYTES = 4 << 30


class ParquetTable:
    """A table as the Hugging Face hub publishes media; a place is (column, row group, row).

    A column `x{bytes,path}` beside a column `id` holds files called `x/<id>`; tables without one
    have no members.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet

        self.path = path
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                schema, self._num_row_groups = file.schema_arrow, file.num_row_groups
                largest = max(
                    (
                        file.metadata.row_group(group).total_byte_size
                        for group in range(file.num_row_groups)
                    ),
                    default=0,
                )
        except pyarrow.ArrowInvalid as error:
            raise BrewlineError(f"{path} is not a whole Parquet file: {error}") from None
        if largest > MAX_ROW_GROUP_BYTES:
            raise refused(path, f"one of its row groups takes {largest} bytes")
        self._columns = [
            field.name
            for field in schema
            if "id" in schema.names
            and pyarrow.types.is_struct(field.type)
            and field.type.get_field_index("bytes") >= 0
        ]
        # The row group that was read last, and where it lies.
        self._group: tuple[int, int] | None = None
        self._contents: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_group": None, "_contents": None}

    def members(self) -> Iterator[tuple[str, Place]]:
        import pyarrow.parquet

        if not self._columns:
            return
        with pyarrow.parquet.ParquetFile(self.path) as file:
            for group in range(self._num_row_groups):
                ids = file.read_row_group(group, columns=["id"]).column("id").to_pylist()
                for column, name in enumerate(self._columns):
                    for row, row_id in enumerate(ids):
                        yield f"{name}/{row_id}", (column, group, row)

    def open(self, place: Place) -> BinaryIO:
        import pyarrow.parquet

        column, group, row = place
        # Rows are read in order mostly, so the last row group is kept.
        if self._group != (column, group):
            name = self._columns[column]
            with pyarrow.parquet.ParquetFile(self.path) as file:
                table = file.read_row_group(group, columns=[f"{name}.bytes"])
            self._contents = table.column(name).combine_chunks().field("bytes")
            self._group = (column, group)
        return io.BytesIO(self._contents[row].as_py() or b"")

    def rows(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        """The rows, with these columns only.

        Raises:
            BrewlineError: it lacks one of them.
        """
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise BrewlineError(f"{self.path} has no column {', '.join(missing)}")
            for batch in file.iter_batches(columns=columns):
                yield from batch.to_pylist()
