"""Tar and tar.gz archives, read in place.

One that has to be gone through from its beginning to its end to be listed, a tar.gz and any that
lies in an object store, is gone through once; its members are kept under `work/archives/` until it
changes.
"""

import hashlib
import io
import re
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import indexed_gzip
from tqdm import tqdm

from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path, set_aside, work_dir
from brewline.core.locks import locked
from brewline.media.containers import (
    HARMLESS_BYTES,
    MAX_MEMBERS,
    MAX_RATIO,
    FilePart,
    Place,
    RawFile,
    name_as_text,
    refused,
)

# Of a tar only headers are read to list it; the long ones hold a path of at most 4,096 bytes.
MAX_TAR_HEADER_BYTES = 1 << 20
# A point of a gzip's seek index takes 32 KiB of memory and of disk, so there are at most this
# many (256 MiB); on average half the distance between two of them is decompressed for a read.
_MAX_SEEK_POINTS = 8192
_MIN_SEEK_SPACING = 1 << 20


_LONG_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class _HeadersOnly:
    """A file that gives no more for one member of a tar than its headers may take together.

    tarfile reads long headers as a whole, in one piece or in many, whatever size they claim.
    """

    def __init__(self, file: BinaryIO, raw: RawFile) -> None:
        self._file, self._raw = file, raw
        self._position = file.tell()
        self._left, self._num_members = MAX_TAR_HEADER_BYTES, 0
        # The block that was looked at last, with the byte before it, of which tarfile makes sure.
        self._block, self._block_at = b"", 0

    def next_member(self) -> None:
        """Counts a member, and begins with the headers of the next one."""
        self._left = MAX_TAR_HEADER_BYTES
        self._num_members += 1
        if self._num_members > MAX_MEMBERS:
            raise refused(self._raw, f"it has more than {MAX_MEMBERS} members")

    def block(self, position: int) -> bytes:
        """The block at a position."""
        self._block_at = max(0, position - 1)
        self._file.seek(self._block_at)
        self._block = self._file.read(position - self._block_at + tarfile.BLOCKSIZE)
        return self._block[position - self._block_at :]

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        self._position = position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._left:
            raise refused(
                self._raw,
                f"the headers of one of its members take more than {MAX_TAR_HEADER_BYTES} bytes",
            )
        self._left -= size
        start = self._position - self._block_at
        content = self._block[start : start + size] if start >= 0 else b""
        if len(content) < size:
            self._file.seek(self._position)
            content = self._file.read(size)
        self._position += len(content)
        return content


# Of a header in one block: name, size, checksum, type, magic, prefix (POSIX.1-1988, "ustar").
_HEADER = struct.Struct("100s 24x 12s 12x 8s c 100x 6s 82x s 166x")
_PLAIN_SIZE = re.compile(rb"([0-7]{11})[ \0]")
_PLAIN_CHECKSUM = re.compile(rb"([0-7]{6,7})[ \0]+")
# RFC 1950, section 8.2.
_ADLER_MODULUS = 65_521


def _plain_file(block: bytes) -> tuple[bytes, int] | None:
    """The name and size of a file that one plain block describes; anything else is tarfile's.

    Nearly all are such, and tarfile takes ten times as long for each.
    """
    if len(block) < tarfile.BLOCKSIZE:
        return None
    name, size, checksum, kind, magic, prefix = _HEADER.unpack(block)
    size, checksum = _PLAIN_SIZE.fullmatch(size), _PLAIN_CHECKSUM.fullmatch(checksum)
    is_plain = kind == tarfile.REGTYPE and magic in (b"ustar\0", b"ustar ") and prefix == b"\0"
    if not (is_plain and size and checksum):
        return None
    # The sum of all bytes, among which the checksum itself counts as eight spaces. Adler's is that
    # sum, and one, in its lower half: Python's takes longer than all that is done with a member.
    summed = zlib.adler32(block[:148] + b" " * 8 + block[156:]) & 0xFFFF
    if summed != (1 + int(checksum[1], 8)) % _ADLER_MODULUS:
        return None
    return name.partition(b"\0")[0], int(size[1], 8)


def _checked_header(raw: RawFile) -> type[tarfile.TarInfo]:
    """A header that is looked at before tarfile acts on what it claims.

    tarfile names `_proc_member` as the method to override. What it says by itself of such headers
    differs from one version of Python to the next, and some versions believe them.
    """

    class CheckedHeader(tarfile.TarInfo):
        def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
            if self.type in _LONG_HEADERS and not 0 <= self.size <= MAX_TAR_HEADER_BYTES:
                raise refused(raw, f"one of its headers claims to take {self.size} bytes")
            if self.size < 0:
                raise refused(raw, f"its member {self.name!r} has a negative size")
            if self.type == tarfile.GNUTYPE_SPARSE:
                raise refused(raw, f"its member {self.name!r} is sparse")
            member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
            return member

    return CheckedHeader


def _list_tar(file: BinaryIO, raw: RawFile, max_bytes: int) -> Iterator[tuple[str, Place]]:
    """Lists the members of an uncompressed tar stream of at most `max_bytes`."""
    reader = _HeadersOnly(file, raw)
    try:
        with tarfile.open(
            fileobj=cast(BinaryIO, reader),
            mode="r:",
            tarinfo=_checked_header(raw),
            encoding="utf-8",
        ) as archive:
            for stored, offset, size in _files_in(archive, reader, raw):
                name = name_as_text(stored)
                if offset + size > max_bytes:
                    raise refused(
                        raw, f"its member {name!r} swells it to more than {max_bytes} bytes"
                    )
                yield name, (offset, size)
    except RecursionError:
        raise refused(raw, "one of its members has hundreds of headers") from None
    except (tarfile.TarError, EOFError, ValueError, LookupError, ArithmeticError) as error:
        # What tarfile takes for granted of extended headers, of sparse files above all, ends in
        # whatever `int`, `index` and slices raise.
        raise BrewlineError(f"{raw} is not a whole tar archive: {error}") from None


def _files_in(
    archive: tarfile.TarFile, reader: _HeadersOnly, raw: RawFile
) -> Iterator[tuple[bytes, int, int]]:
    """The name, offset and size of each file."""
    start = 0
    while (member := archive.next()) is not None:
        # tarfile keeps all it has seen.
        archive.members.clear()  # type: ignore[attr-defined]
        reader.next_member()
        if member.isreg() and not member.issparse():
            name = member.name.encode("utf-8", "surrogateescape")
            yield name, member.offset_data, member.size
        elif not member.isdir():
            raise refused(raw, f"its member {member.name!r} is a link or a device")
        # What a global header says, it says of all members after it.
        while not archive.pax_headers and (plain := _plain_file(reader.block(archive.offset))):
            reader.next_member()
            name, size = plain
            content = archive.offset + tarfile.BLOCKSIZE
            archive.offset = content + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            yield name, content, size
        start = archive.offset
    # tarfile takes a damaged header for the end, which two blocks of zeros mark. It may have read
    # on from there.
    if reader.block(start).strip(b"\0"):
        raise BrewlineError(f"{raw} is damaged at byte {start}")


def _kept_in(raw: RawFile) -> Path:
    """The folder for what is kept of an archive as it is now."""
    return work_dir("archives", hashlib.sha256(raw.version.encode()).hexdigest()[:16])


def _kept_members(
    raw: RawFile,
    folder: Path,
    is_usable: Callable[[Path], bool],
    list_members: Callable[[], Iterable[tuple[str, Place]]],
) -> Iterator[tuple[str, Place]]:
    """The members of an archive, listed by the first who asks for them."""
    import pyarrow.parquet

    listing = folder / "members.parquet"
    # Workers that start together wait for the first instead of doing the same.
    with locked(folder / "lock"):
        if listing.exists() and not is_usable(listing):
            set_aside(listing, f"{raw.name} is indexed again")
        if not listing.exists():
            _write_members(listing, list_members())
    for batch in pyarrow.parquet.ParquetFile(listing).iter_batches():
        columns = [batch.column(name).to_pylist() for name in ("name", "offset", "size")]
        for name, offset, size in zip(*columns, strict=True):
            yield name, (offset, size)


def _write_members(listing: Path, members: Iterable[tuple[str, Place]]) -> None:
    import pyarrow.parquet

    found = list(members)
    table = pyarrow.table(
        {
            "name": pyarrow.array([name for name, _ in found], pyarrow.string()),
            "offset": pyarrow.array([place[0] for _, place in found], pyarrow.int64()),
            "size": pyarrow.array([place[1] for _, place in found], pyarrow.int64()),
        }
    )
    with atomic_path(listing) as partial:
        pyarrow.parquet.write_table(table, partial)


def _is_listing(path: Path) -> bool:
    """Whether a list of members is as it was written."""
    import pyarrow.parquet

    try:
        pyarrow.parquet.read_metadata(path)
    except pyarrow.ArrowInvalid:
        return False
    return True


def _shown_as_they_come(
    raw: RawFile, members: Iterable[tuple[str, Place]]
) -> Iterable[tuple[str, Place]]:
    bar: Iterable[tuple[str, Place]] = tqdm(
        members, f"indexing {raw.name}", unit=" files", disable=None
    )
    return bar


class Tar:
    """An uncompressed tar; a place is (offset, size)."""

    def __init__(self, file: RawFile) -> None:
        self.file = file

    def members(self) -> Iterator[tuple[str, Place]]:
        if self.file.is_near:
            return self._list()
        return _kept_members(
            self.file,
            _kept_in(self.file),
            _is_listing,
            lambda: _shown_as_they_come(self.file, self._list()),
        )

    def _list(self) -> Iterator[tuple[str, Place]]:
        with self.file.open() as file:
            yield from _list_tar(file, self.file, self.file.size)

    def open(self, place: Place) -> BinaryIO:
        offset, size = place
        return io.BufferedReader(FilePart(self.file.open(), offset, size, owned=True))


class GzippedTar:
    """A tar.gz; a place is (offset, size) in the uncompressed stream.

    A gzip can only be read from its beginning, so points from which to read on are kept beside the
    list of its members.
    """

    def __init__(self, file: RawFile) -> None:
        self.file = file
        self._folder = _kept_in(file)
        self._gzip: Any = None

    def members(self) -> Iterator[tuple[str, Place]]:
        return _kept_members(self.file, self._folder, self._is_usable, self._index)

    def _indexed(self) -> Any:
        """The archive, with the points from which it can be read."""
        return indexed_gzip.IndexedGzipFile(
            self.file.for_library(), index_file=str(self._folder / "seek-points")
        )

    def _is_usable(self, listing: Path) -> bool:
        """Whether the list of members and the seek index are as they were written."""
        try:
            self._indexed().close()
        except (indexed_gzip.ZranError, FileNotFoundError):
            return False
        return _is_listing(listing)

    def _index(self) -> list[tuple[str, Place]]:
        """Lists the members, and writes the seek index."""
        packed_bytes = self.file.size
        spacing = max(_MIN_SEEK_SPACING, packed_bytes // _MAX_SEEK_POINTS)
        limit = max(HARMLESS_BYTES, MAX_RATIO * packed_bytes)
        try:
            with (
                _troubles_of_the_store(),
                indexed_gzip.IndexedGzipFile(self.file.for_library(), spacing=spacing) as file,
            ):
                found = list(_shown_as_they_come(self.file, _list_tar(file, self.file, limit)))
                # Up to the end, where the checksum stands.
                while file.read(_MIN_SEEK_SPACING):
                    if file.tell() > limit:
                        raise refused(self.file, f"it swells to more than {limit} bytes")
                with atomic_path(self._folder / "seek-points") as partial:
                    file.export_index(str(partial))
        except (indexed_gzip.NotCoveredError, indexed_gzip.ZranError, OSError, EOFError) as error:
            raise BrewlineError(f"{self.file} is not a whole tar.gz archive: {error}") from None
        return found

    def open(self, place: Place) -> BinaryIO:
        if self._gzip is None:
            self._gzip = self._indexed()
        offset, size = place
        return io.BufferedReader(_GzipPart(self._gzip, offset, size, owned=False))


class _GzipPart(FilePart):
    """A part of what a gzip holds."""

    def readinto(self, buffer: Any) -> int:
        with _troubles_of_the_store():
            return super().readinto(buffer)


@contextmanager
def _troubles_of_the_store() -> Iterator[None]:
    """Brings back our errors that indexed_gzip has taken for those of the archive."""
    try:
        yield
    except (indexed_gzip.ZranError, OSError, EOFError) as error:
        behind: BaseException | None = error
        while behind is not None and not isinstance(behind, BrewlineError):
            behind = behind.__cause__ or behind.__context__
        raise behind or error from None
