"""What a Parquet file says of its own sizes, read without decoding anything of it.

Arrow's metadata end the process where some of their numbers do not fit together, and do not show
the headers of pages at all. Both are read here, in Thrift's compact protocol:
github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift and
github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

_MAGIC = b"PAR1"
# 605,000 recordings in row groups of 100, in a single table, have a footer of 3 MB.
_MAX_FOOTER_BYTES = 64 << 20
# Writers keep the smallest and the largest value of a page in its header if these are short.
_MAX_PAGE_HEADER_BYTES = 1 << 20
_USUAL_PAGE_HEADER_BYTES = 1 << 12
_MAX_PAGES = 1 << 17
_MAX_DEPTH = 8


@dataclass(frozen=True)
class Chunk:
    """A column of a row group: its path, where it lies, and its sizes by its own account."""

    name: str
    start: int
    packed_bytes: int
    num_bytes: int

    def is_of(self, column: str) -> bool:
        """Whether it is that column, or a part of it."""
        return self.name == column or self.name.startswith(f"{column}.")


@dataclass(frozen=True)
class _Page:
    """What the header of a page says: its own size, and that of the page packed and unpacked."""

    header_bytes: int
    packed_bytes: int
    num_bytes: int


def read_chunks(file: BinaryIO) -> list[list[Chunk]]:
    """The chunks of each row group, from the footer of an open file.

    Raises:
        ValueError: it is no Parquet file, or a chunk would lie outside of it.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 8, 0))
    tail = file.read(8)
    num_bytes = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or num_bytes + 8 > size:
        raise ValueError("it has no footer")
    if num_bytes > _MAX_FOOTER_BYTES:
        raise ValueError(f"its footer takes {num_bytes} bytes")
    file.seek(size - 8 - num_bytes)
    try:
        groups = _CompactReader(file.read(num_bytes)).struct()[4]
        chunks = [[_chunk(column[3]) for column in group[1]] for group in groups]
        outside = [
            chunk.name
            for group in chunks
            for chunk in group
            if chunk.num_bytes < 0
            or not 0 < chunk.start <= chunk.start + chunk.packed_bytes <= size
        ]
    # A value may be of another type than the format says.
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        raise ValueError("its footer is damaged") from None
    if outside:
        raise ValueError(f"its column {outside[0]!a} would lie outside of it")
    return chunks


def _chunk(facts: dict[int, Any]) -> Chunk:
    """From `ColumnMetaData`; a dictionary lies before the other pages, if there is one."""
    start = facts[9]
    if 0 < facts.get(11, 0) < start:
        start = facts[11]
    name = ".".join(part.decode() for part in facts[3])
    return Chunk(name, start, packed_bytes=facts[7], num_bytes=facts[6])


def page_sizes(file: BinaryIO, chunk: Chunk) -> tuple[int, int]:
    """The sizes in bytes of all pages of a chunk when they are decompressed, and of the largest.

    Raises:
        ValueError: a header is damaged.
    """
    position, end = chunk.start, chunk.start + chunk.packed_bytes
    total = largest = 0
    for _ in range(_MAX_PAGES):
        if position >= end:
            return total, largest
        file.seek(position)
        start = file.read(_USUAL_PAGE_HEADER_BYTES)
        try:
            page = _read_page_header(start)
        except IndexError:
            page = _read_page_header(start + file.read(_MAX_PAGE_HEADER_BYTES))
        position += page.header_bytes + page.packed_bytes
        total += page.num_bytes
        largest = max(largest, page.num_bytes)
    raise ValueError(f"its column {chunk.name!a} has more than {_MAX_PAGES} pages")


def _read_page_header(start: bytes) -> _Page:
    reader = _CompactReader(start)
    facts = reader.struct()
    num_bytes, packed_bytes = facts.get(2), facts.get(3)
    if not isinstance(num_bytes, int) or not isinstance(packed_bytes, int):
        raise ValueError("a page has no sizes")
    if min(num_bytes, packed_bytes) < 0:
        raise ValueError("a page has a negative size")
    return _Page(reader.position, packed_bytes, num_bytes)


class _CompactReader:
    """Values in Thrift's compact protocol; a struct is a dictionary by the numbers of its fields.

    What is cut off raises IndexError, what is no such value ValueError.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self.position = data, 0
        self._readers: dict[int, Callable[[int], Any]] = {
            3: lambda depth: self._byte(),
            4: lambda depth: self._number(),
            5: lambda depth: self._number(),
            6: lambda depth: self._number(),
            7: lambda depth: self._bytes(8),
            8: lambda depth: self._bytes(self._varint()),
            9: self._list,
            10: self._list,
            12: self.struct,
        }

    def _byte(self) -> int:
        self.position += 1
        return self._data[self.position - 1]

    def _bytes(self, size: int) -> bytes:
        start, self.position = self.position, self.position + size
        if self.position > len(self._data):
            raise IndexError
        return self._data[start : self.position]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number has no end")

    def _number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _value(self, kind: int, depth: int) -> Any:
        if kind not in self._readers or depth > _MAX_DEPTH:
            raise ValueError("its structure is damaged")
        return self._readers[kind](depth + 1)

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._varint()
        # In a list, a truth value takes a byte.
        kind = 3 if head & 15 in (1, 2) else head & 15
        # Each value takes a byte or more.
        if size > len(self._data) - self.position:
            raise IndexError
        return [self._value(kind, depth) for _ in range(size)]

    def struct(self, depth: int = 0) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            step, kind = head >> 4, head & 15
            number = number + step if step else self._number()
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return fields
