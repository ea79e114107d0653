"""What the files of a corpus may lie in: a folder, a tar, a tar.gz, a zip or a Parquet table.

Each container lists its members once and then reads any of them in place; nothing is unpacked.
Containers come from outside and are not trusted: what could leave its folder, point elsewhere or
swell beyond measure is refused, with the reason.
"""

import fcntl
import hashlib
import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import indexed_gzip
from tqdm import tqdm

from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path, work_dir

# Where a member lies in its container; only the container knows what the numbers mean.
Place = tuple[int, ...]

# The largest speech corpora have under a million recordings and pictures (Localized Narratives on
# Open Images: 671,000 of each); a listing takes some 300 bytes of memory a member.
MAX_MEMBERS = 2_000_000
# A zip's directory is read at once. A member takes 46 bytes there and its name: 605,000 recordings
# of SpokenCOCO take about 80 MB.
MAX_ZIP_DIRECTORY_BYTES = 256 << 20
# Deflate reaches 1,032 at most, and does on silence. Speech and pictures reach 2, annotations 20.
# So a high ratio is refused where it is large enough to hurt.
MAX_RATIO = 100
HARMLESS_BYTES = 256 << 20
# Of a tar only headers are read to list it; the long ones hold a path of at most 4,096 bytes.
MAX_TAR_HEADER_BYTES = 1 << 20
# A row group is decoded at once; those with recordings or pictures usually have 100 rows.
MAX_ROW_GROUP_BYTES = 4 << 30

# A point of a gzip's seek index takes 32 KiB of memory and of disk, so there are at most this
# many (256 MiB); on average half the distance between two of them is decompressed for a read.
_MAX_SEEK_POINTS = 8192
_MIN_SEEK_SPACING = 1 << 20

_ZIP_LOCAL_HEADER = struct.Struct("<4s22xHH")


class Container(Protocol):
    """Files under one roof. It can be pickled: a listing travels to worker processes."""

    def members(self) -> Iterator[tuple[str, Place]]:
        """Lists the files with their names as stored, in the order of the container.

        Raises:
            BrewlineError: the container is damaged or hostile.
        """
        ...

    def open(self, place: Place) -> BinaryIO:
        """Opens a file for reading from its beginning to its end.

        Raises:
            BrewlineError: it cannot be read.
        """
        ...


def open_container(path: Path, name: str) -> Container:
    """The container at `path`; what kind it is, its published name says."""
    kinds: dict[str, Callable[[Path], Container]] = {
        ".tar": Tar,
        ".tar.gz": GzippedTar,
        ".tgz": GzippedTar,
        ".zip": Zip,
        ".parquet": ParquetTable,
    }
    for suffix, kind in kinds.items():
        if name.lower().endswith(suffix):
            return kind(path)
    return LooseFile(path, name)


def refused(path: Path, reason: str) -> BrewlineError:
    """The error for a hostile container."""
    return BrewlineError(f"{path} is refused: {reason}")


class LooseFile:
    """A file that is in no container: the only member of its own, under its published name."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name

    def members(self) -> Iterator[tuple[str, Place]]:
        yield self._name, ()

    def open(self, place: Place) -> BinaryIO:
        del place
        return self._path.open("rb")


class _Part(io.RawIOBase):
    """The bytes [offset, offset + size) of an open file, which is closed with it."""

    def __init__(self, file: BinaryIO, offset: int, size: int, owned: bool) -> None:
        self._file, self._offset, self._left, self._owned = file, offset, size, owned

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._offset)
        chunk = self._file.read(min(len(buffer), self._left))
        if self._left and not chunk and len(buffer):
            raise EOFError
        buffer[: len(chunk)] = chunk
        self._offset += len(chunk)
        self._left -= len(chunk)
        return len(chunk)

    def close(self) -> None:
        if self._owned:
            self._file.close()
        super().close()


class _HeadersOnly:
    """A file that gives no more at once than a header of a tar takes.

    tarfile reads a long header as a whole, whatever size it claims.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_TAR_HEADER_BYTES:
            raise refused(self._path, f"one of its headers claims to take {size} bytes")
        return self._file.read(size)


def _list_tar(file: BinaryIO, path: Path, max_bytes: int) -> Iterator[tuple[str, Place]]:
    """Lists the members of an uncompressed tar stream of at most `max_bytes`."""
    reader = cast(BinaryIO, _HeadersOnly(file, path))
    try:
        with tarfile.open(fileobj=reader, mode="r:") as archive:
            number = 0
            while (member := archive.next()) is not None:
                # tarfile keeps all it has seen.
                archive.members.clear()  # type: ignore[attr-defined]
                number += 1
                if number > MAX_MEMBERS:
                    raise refused(path, f"it has more than {MAX_MEMBERS} members")
                if member.size < 0:
                    raise refused(path, f"its member {member.name!r} has a negative size")
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise refused(path, f"its member {member.name!r} is a link or a device")
                if member.offset_data + member.size > max_bytes:
                    raise refused(
                        path, f"its member {member.name!r} swells it to more than {max_bytes} bytes"
                    )
                yield member.name, (member.offset_data, member.size)
            # tarfile takes a damaged header for the end, which two blocks of zeros mark.
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise BrewlineError(f"{path} is damaged at byte {archive.offset}")
    except (tarfile.TarError, EOFError) as error:
        raise BrewlineError(f"{path} is not a whole tar archive: {error}") from None


class Tar:
    """An uncompressed tar; a place is (offset, size)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def members(self) -> Iterator[tuple[str, Place]]:
        with self._path.open("rb") as file:
            yield from _list_tar(file, self._path, self._path.stat().st_size)

    def open(self, place: Place) -> BinaryIO:
        offset, size = place
        return io.BufferedReader(_Part(self._path.open("rb"), offset, size, owned=True))


class GzippedTar:
    """A tar.gz; a place is (offset, size) in the uncompressed stream.

    A gzip can only be read from its beginning, so the first to open one goes through it once. What
    it finds, the members and points from which to read on, is kept under `work/archives/` until
    the file changes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        facts = path.stat()
        self._packed_bytes = facts.st_size
        key = f"{path.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}"
        self._folder = work_dir("archives", hashlib.sha256(key.encode()).hexdigest()[:16])
        self._file: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def members(self) -> Iterator[tuple[str, Place]]:
        import pyarrow.parquet

        listing = self._folder / "members.parquet"
        with (self._folder / "lock").open("w") as lock:
            # Workers that start together wait for the first instead of doing the same.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not listing.exists():
                self._index(listing)
        for batch in pyarrow.parquet.ParquetFile(listing).iter_batches():
            columns = [batch.column(name).to_pylist() for name in ("name", "offset", "size")]
            for name, offset, size in zip(*columns, strict=True):
                yield name, (offset, size)

    def _index(self, listing: Path) -> None:
        """Writes the seek index and, last, the list of members."""
        import pyarrow.parquet

        spacing = max(_MIN_SEEK_SPACING, self._packed_bytes // _MAX_SEEK_POINTS)
        try:
            with indexed_gzip.IndexedGzipFile(str(self._path), spacing=spacing) as file:
                limit = max(HARMLESS_BYTES, MAX_RATIO * self._packed_bytes)
                found = list(
                    tqdm(
                        _list_tar(file, self._path, limit),
                        f"indexing {self._path.name}",
                        unit=" files",
                        disable=None,
                    )
                )
                # Up to the end, where the checksum stands.
                while file.read(_MIN_SEEK_SPACING):
                    if file.tell() > limit:
                        raise refused(self._path, f"it swells to more than {limit} bytes")
                with atomic_path(self._folder / "seek-points") as partial:
                    file.export_index(str(partial))
        except (indexed_gzip.NotCoveredError, indexed_gzip.ZranError, OSError, EOFError) as error:
            raise BrewlineError(f"{self._path} is not a whole tar.gz archive: {error}") from None
        table = pyarrow.table(
            {
                "name": pyarrow.array([name for name, _ in found], pyarrow.string()),
                "offset": pyarrow.array([place[0] for _, place in found], pyarrow.int64()),
                "size": pyarrow.array([place[1] for _, place in found], pyarrow.int64()),
            }
        )
        with atomic_path(listing) as partial:
            pyarrow.parquet.write_table(table, partial)

    def open(self, place: Place) -> BinaryIO:
        if self._file is None:
            index = self._folder / "seek-points"
            self._file = indexed_gzip.IndexedGzipFile(str(self._path), index_file=str(index))
        offset, size = place
        return io.BufferedReader(_Part(self._file, offset, size, owned=False))


class Zip:
    """A zip; a place is (offset of the local header, packed size, size, method, CRC-32).

    Its directory is read once; zipfile would read it again for each new `ZipFile`, which takes
    seconds at the size of the large corpora.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def members(self) -> Iterator[tuple[str, Place]]:
        packed_bytes = self._path.stat().st_size
        total = 0
        for entry in self._directory():
            if entry.is_dir() or stat.S_ISDIR(entry.external_attr >> 16):
                continue
            self._check(entry)
            total += entry.file_size
            if total > max(HARMLESS_BYTES, MAX_RATIO * packed_bytes):
                raise refused(self._path, f"it swells to more than {MAX_RATIO} times its size")
            yield (
                entry.filename,
                (
                    entry.header_offset,
                    entry.compress_size,
                    entry.file_size,
                    entry.compress_type,
                    entry.CRC,
                ),
            )

    def _directory(self) -> list[zipfile.ZipInfo]:
        try:
            with self._path.open("rb") as file:
                reader = cast(BinaryIO, _DirectoryOnly(file, self._path))
                with zipfile.ZipFile(reader) as archive:
                    entries = archive.infolist()
        except zipfile.BadZipFile as error:
            raise BrewlineError(f"{self._path} is not a whole zip archive: {error}") from None
        if len(entries) > MAX_MEMBERS:
            raise refused(self._path, f"it has more than {MAX_MEMBERS} members")
        return entries

    def _check(self, entry: zipfile.ZipInfo) -> None:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise refused(self._path, f"its member {entry.filename!r} is a link or a device")
        if entry.flag_bits & 1:
            raise refused(self._path, f"its member {entry.filename!r} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refused(self._path, f"its member {entry.filename!r} is not packed with deflate")
        ratio = entry.file_size / max(entry.compress_size, 1)
        if entry.file_size > HARMLESS_BYTES and ratio > MAX_RATIO:
            raise refused(
                self._path,
                f"its member {entry.filename!r} swells {ratio:.0f} times, to "
                f"{entry.file_size} bytes",
            )

    def open(self, place: Place) -> BinaryIO:
        offset, packed_size, size, method, checksum = place
        with self._path.open("rb") as file:
            file.seek(offset)
            header = file.read(_ZIP_LOCAL_HEADER.size)
            if len(header) < _ZIP_LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
                raise BrewlineError(f"{self._path} is damaged at byte {offset}")
            _, name_size, extra_size = _ZIP_LOCAL_HEADER.unpack(header)
            file.seek(name_size + extra_size, os.SEEK_CUR)
            content = file.read(packed_size)
        if method == zipfile.ZIP_DEFLATED:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
            except zlib.error:
                content = b""
        if len(content) != size or zlib.crc32(content) != checksum:
            raise BrewlineError(f"{self._path} is damaged after byte {offset}")
        return io.BytesIO(content)


class _DirectoryOnly:
    """A file that gives no more at once than the directory of a zip may take."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self.tell, self.seek, self.seekable = file.tell, file.seek, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > MAX_ZIP_DIRECTORY_BYTES:
            raise refused(self._path, f"its directory takes {size} bytes")
        return self._file.read(size)


class ParquetTable:
    """A table as the Hugging Face hub publishes media; a place is (column, row group, row).

    A column `x{bytes,path}` beside a column `id` holds files called `x/<id>`; tables without one
    have no members.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet

        self._path = path
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
        with pyarrow.parquet.ParquetFile(self._path) as file:
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
            with pyarrow.parquet.ParquetFile(self._path) as file:
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

        with pyarrow.parquet.ParquetFile(self._path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise BrewlineError(f"{self._path} has no column {', '.join(missing)}")
            for batch in file.iter_batches(columns=columns):
                yield from batch.to_pylist()
