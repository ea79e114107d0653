"""Tar and tar.gz archives, read in place."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
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

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self.tell, self.seek = file.tell, file.seek
        self._left = 0

    def next_member(self) -> None:
        self._left = MAX_TAR_HEADER_BYTES

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._left:
            raise refused(
                self._path,
                f"the headers of one of its members take more than {MAX_TAR_HEADER_BYTES} bytes",
            )
        self._left -= size
        return self._file.read(size)


def _checked_header(path: Path) -> type[tarfile.TarInfo]:
    """A header that is looked at before tarfile acts on what it claims.

    tarfile names `_proc_member` as the method to override. What it says by itself of such headers
    differs from one version of Python to the next, and some versions believe them.
    """

    class CheckedHeader(tarfile.TarInfo):
        def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
            if self.type in _LONG_HEADERS and not 0 <= self.size <= MAX_TAR_HEADER_BYTES:
                raise refused(path, f"one of its headers claims to take {self.size} bytes")
            if self.size < 0:
                raise refused(path, f"its member {self.name!r} has a negative size")
            if self.type == tarfile.GNUTYPE_SPARSE:
                raise refused(path, f"its member {self.name!r} is sparse")
            member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
            return member

    return CheckedHeader


def _list_tar(file: BinaryIO, path: Path, max_bytes: int) -> Iterator[tuple[str, Place]]:
    """Lists the members of an uncompressed tar stream of at most `max_bytes`."""
    reader = _HeadersOnly(file, path)
    reader.next_member()
    try:
        with tarfile.open(
            fileobj=cast(BinaryIO, reader),
            mode="r:",
            tarinfo=_checked_header(path),
            encoding="utf-8",
        ) as archive:
            number = 0
            while (member := archive.next()) is not None:
                # tarfile keeps all it has seen.
                archive.members.clear()  # type: ignore[attr-defined]
                reader.next_member()
                number += 1
                if number > MAX_MEMBERS:
                    raise refused(path, f"it has more than {MAX_MEMBERS} members")
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise refused(path, f"its member {member.name!r} is a link or a device")
                if member.offset_data + member.size > max_bytes:
                    raise refused(
                        path, f"its member {member.name!r} swells it to more than {max_bytes} bytes"
                    )
                name = name_as_text(member.name.encode("utf-8", "surrogateescape"))
                yield name, (member.offset_data, member.size)
            # tarfile takes a damaged header for the end, which two blocks of zeros mark.
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise BrewlineError(f"{path} is damaged at byte {archive.offset}")
    except RecursionError:
        raise refused(path, "one of its members has hundreds of headers") from None
    except (tarfile.TarError, EOFError, ValueError, LookupError, ArithmeticError) as error:
        # What tarfile takes for granted of extended headers, of sparse files above all, ends in
        # whatever `int`, `index` and slices raise.
        raise BrewlineError(f"{path} is not a whole tar archive: {error}") from None


class Tar:
    """An uncompressed tar; a place is (offset, size)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def members(self) -> Iterator[tuple[str, Place]]:
        with self.path.open("rb") as file:
            yield from _list_tar(file, self.path, self.path.stat().st_size)

    def open(self, place: Place) -> BinaryIO:
        offset, size = place
        return io.BufferedReader(FilePart(self.path.open("rb"), offset, size, owned=True))


class GzippedTar:
    """A tar.gz; a place is (offset, size) in the uncompressed stream.

    A gzip can only be read from its beginning, so the first to open one goes through it once. What
    it finds, the members and points from which to read on, is kept under `work/archives/` until
    the file changes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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
        # Workers that start together wait for the first instead of doing the same.
        with locked(self._folder / "lock"):
            if listing.exists() and not self._is_usable(listing):
                set_aside(listing, f"{self.path.name} is indexed again")
            if not listing.exists():
                self._index(listing)
        for batch in pyarrow.parquet.ParquetFile(listing).iter_batches():
            columns = [batch.column(name).to_pylist() for name in ("name", "offset", "size")]
            for name, offset, size in zip(*columns, strict=True):
                yield name, (offset, size)

    def _is_usable(self, listing: Path) -> bool:
        """Whether the list of members and the seek index are as they were written."""
        import pyarrow.parquet

        try:
            pyarrow.parquet.read_metadata(listing)
            indexed_gzip.IndexedGzipFile(
                str(self.path), index_file=str(self._folder / "seek-points")
            ).close()
        except (pyarrow.ArrowInvalid, indexed_gzip.ZranError, FileNotFoundError):
            return False
        return True

    def _index(self, listing: Path) -> None:
        """Writes the seek index and, last, the list of members."""
        import pyarrow.parquet

        spacing = max(_MIN_SEEK_SPACING, self._packed_bytes // _MAX_SEEK_POINTS)
        try:
            with indexed_gzip.IndexedGzipFile(str(self.path), spacing=spacing) as file:
                limit = max(HARMLESS_BYTES, MAX_RATIO * self._packed_bytes)
                found = list(
                    tqdm(
                        _list_tar(file, self.path, limit),
                        f"indexing {self.path.name}",
                        unit=" files",
                        disable=None,
                    )
                )
                # Up to the end, where the checksum stands.
                while file.read(_MIN_SEEK_SPACING):
                    if file.tell() > limit:
                        raise refused(self.path, f"it swells to more than {limit} bytes")
                with atomic_path(self._folder / "seek-points") as partial:
                    file.export_index(str(partial))
        except (indexed_gzip.NotCoveredError, indexed_gzip.ZranError, OSError, EOFError) as error:
            raise BrewlineError(f"{self.path} is not a whole tar.gz archive: {error}") from None
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
            self._file = indexed_gzip.IndexedGzipFile(str(self.path), index_file=str(index))
        offset, size = place
        return io.BufferedReader(FilePart(self._file, offset, size, owned=False))
