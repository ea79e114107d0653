"""Decoded pictures in a file that processes share: each is decoded by the first that needs it.

`squares.u8` has the squares that a model sees of each picture, one behind the other, and
`pictures.bin` says where those of a picture stand. A picture is written before it is named there,
so that whoever is killed leaves nothing half made behind, and is read where it lies: the processes
that train on the same pictures have them in memory once, and the next one finds them there.
"""

import mmap
import os
import threading
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brewline.core.files import PICTURES_FOLDER, fingerprint
from brewline.core.locks import locked
from brewline.core.system import load_mapped

_SQUARES, _PICTURES = "squares.u8", "pictures.bin"
_MB = 1 << 20
_RECORD = np.dtype([("number", "<i8"), ("first", "<i8"), ("count", "<i4"), ("checksum", "<u4")])

# (squares, 3, side, side) of a picture.
Squares = NDArray[np.uint8]


class DecodedPictures:
    """Keeps the first pictures that fit, by their numbers; others are decoded each time.

    Args:
        folder: Named by whatever determines what is seen of a picture; made if new.
        side: Of a square, in pixels.
        max_mb: How large the file may become.
    """

    def __init__(self, folder: Path, side: int, max_mb: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock_path = folder / "pictures.lock"
        self._shape = (3, side, side)
        self._square_bytes = 3 * side * side
        self._room = max_mb * _MB // self._square_bytes
        flags = os.O_RDWR | os.O_CREAT
        self._data = os.open(folder / _SQUARES, flags)
        self._index = os.open(folder / _PICTURES, flags)
        self._mapped: mmap.mmap | None = None
        self._squares: Squares = np.empty((0, *self._shape), np.uint8)
        self._known: dict[int, np.void] = {}
        self._checked: set[int] = set()
        self._num_read = self._end = 0
        # Batches of training are made while dev is looked at.
        self._threads = threading.Lock()

    def __del__(self) -> None:
        os.close(self._data)
        os.close(self._index)

    def get(self, numbers: Sequence[int]) -> dict[int, Squares]:
        """Those of some pictures that are there."""
        with self._threads:
            if any(number not in self._known for number in numbers):
                self._read_index()
            found = {number: self._look_up(number) for number in numbers if number in self._known}
        return {number: squares for number, squares in found.items() if squares is not None}

    def put(self, pictures: Mapping[int, Squares]) -> None:
        """Keeps pictures, as far as there is room for them."""
        if not pictures or not self._room:
            return
        with locked(self._lock_path), self._threads:
            self._read_index()
            end, records = self._end, []
            for number, squares in pictures.items():
                if number in self._known or end + len(squares) > self._room:
                    continue
                content = np.ascontiguousarray(squares).tobytes()
                _write(self._data, content, end * self._square_bytes)
                records.append((number, end, len(squares), zlib.crc32(content)))
                end += len(squares)
            added = np.array(records, _RECORD).tobytes()
            _write(self._index, added, self._num_read * _RECORD.itemsize)

    def _read_index(self) -> None:
        """Learns what was added since the last look."""
        start = self._num_read * _RECORD.itemsize
        content = os.pread(self._index, os.fstat(self._index).st_size - start, start)
        new = np.frombuffer(content, _RECORD, len(content) // _RECORD.itemsize)
        self._known |= zip(new["number"].tolist(), new, strict=True)
        self._num_read += len(new)
        if len(new):
            self._end = int(new[-1]["first"] + new[-1]["count"])

    def _look_up(self, number: int) -> Squares | None:
        """The squares of a known picture; none if a disk has lost them."""
        record = self._known[number]
        first, count = int(record["first"]), int(record["count"])
        if first + count > len(self._squares):
            self._map()
        squares = self._squares[first : first + count]
        if number not in self._checked:
            try:
                if self._mapped is not None:
                    load_mapped(self._mapped, first * self._square_bytes, squares.nbytes)
            except OSError:
                return None
            if len(squares) < count or zlib.crc32(squares.tobytes()) != record["checksum"]:
                return None
            self._checked.add(number)
        return squares

    def _map(self) -> None:
        """Maps all that is there by now."""
        if num := os.fstat(self._data).st_size // self._square_bytes:
            size = num * self._square_bytes
            self._mapped = mmap.mmap(self._data, size, access=mmap.ACCESS_READ)
            self._squares = np.frombuffer(self._mapped, np.uint8).reshape(num, *self._shape)


def _write(file: int, content: bytes, place: int) -> None:
    """Writes all of it, or raises."""
    while content:
        written = os.pwrite(file, content, place)
        content, place = content[written:], place + written


def shared_pictures(
    clip: str | None, views: str, shards: str, side: int, max_mb: int
) -> DecodedPictures | None:
    """What all trainings of a project share that see the same of the same pictures.

    Args:
        clip: The hash of the CLIP, which says how pictures are prepared.
        views: What is seen of a picture; see `brewline.config.variants`.
        shards: The digest of the corpus' shards.
        side: Of a square, in pixels.
        max_mb: How much of them is kept; nothing: none are.
    """
    if not max_mb:
        return None
    name = fingerprint(1, [clip, views, shards], [])
    return DecodedPictures(PICTURES_FOLDER / name, side, max_mb)
