"""Zip archives, read in place."""

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

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

# A zip's directory is read at once. A member takes 46 bytes there and its name: 605,000 recordings
# of SpokenCOCO take about 80 MB.
MAX_ZIP_DIRECTORY_BYTES = 256 << 20

# Set where the name of a member is UTF-8.
_UTF_8_FLAG = 0x800
_ZIP_LOCAL_HEADER = struct.Struct("<4s22xHH")


class Zip:
    """A zip; a place is (offset of the local header, packed size, size, method, CRC-32).

    Its directory is read once; zipfile would read it again for each new `ZipFile`, which takes
    seconds at the size of the large corpora.
    """

    def __init__(self, file: RawFile) -> None:
        self.file = file

    def members(self) -> Iterator[tuple[str, Place]]:
        packed_bytes = self.file.size
        total = 0
        for entry in self._directory():
            if entry.filename.endswith("/") or stat.S_ISDIR(entry.external_attr >> 16):
                continue
            self._check(entry, packed_bytes)
            total += entry.file_size
            if total > max(HARMLESS_BYTES, MAX_RATIO * packed_bytes):
                raise refused(self.file, f"it swells to more than {MAX_RATIO} times its size")
            yield (
                _name(entry),
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
            with self.file.open() as file:
                reader = cast(BinaryIO, _DirectoryOnly(file, self.file))
                with zipfile.ZipFile(reader) as archive:
                    entries = archive.infolist()
        # Besides its own error, zipfile raises what `decode`, `seek` and `unpack` do, and one for
        # versions of the format that it does not know.
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            ValueError,
            struct.error,
            EOFError,
            LookupError,
            ArithmeticError,
        ) as error:
            raise BrewlineError(f"{self.file} is not a whole zip archive: {error}") from None
        if len(entries) > MAX_MEMBERS:
            raise refused(self.file, f"it has more than {MAX_MEMBERS} members")
        return entries

    def _check(self, entry: zipfile.ZipInfo, packed_bytes: int) -> None:
        end = entry.header_offset + _ZIP_LOCAL_HEADER.size + entry.compress_size
        if entry.header_offset < 0 or end > packed_bytes:
            raise BrewlineError(
                f"{self.file} is not a whole zip archive: its member {entry.filename!r} would "
                "lie outside of it"
            )
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise refused(self.file, f"its member {entry.filename!r} is a link or a device")
        if entry.flag_bits & 1:
            raise refused(self.file, f"its member {entry.filename!r} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refused(self.file, f"its member {entry.filename!r} is not packed with deflate")
        ratio = entry.file_size / max(entry.compress_size, 1)
        if entry.file_size > HARMLESS_BYTES and ratio > MAX_RATIO:
            raise refused(
                self.file,
                f"its member {entry.filename!r} swells {ratio:.0f} times, to "
                f"{entry.file_size} bytes",
            )

    def open(self, place: Place) -> BinaryIO:
        offset, packed_size, size, method, checksum = place
        with self.file.open() as file:
            file.seek(offset)
            header = file.read(_ZIP_LOCAL_HEADER.size)
            if len(header) < _ZIP_LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
                raise BrewlineError(f"{self.file} is damaged at byte {offset}")
            _, name_size, extra_size = _ZIP_LOCAL_HEADER.unpack(header)
            file.seek(name_size + extra_size, os.SEEK_CUR)
            content = file.read(packed_size)
        if method == zipfile.ZIP_DEFLATED:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
            except zlib.error:
                content = b""
        if len(content) != size or zlib.crc32(content) != checksum:
            raise BrewlineError(f"{self.file} is damaged after byte {offset}")
        return io.BytesIO(content)


def _name(entry: zipfile.ZipInfo) -> str:
    """The name of a member; zipfile takes what is not marked as UTF-8 for CP437."""
    if entry.flag_bits & _UTF_8_FLAG:
        return entry.filename
    return name_as_text(entry.filename.encode("cp437"), cp437=True)


class _DirectoryOnly:
    """A file that gives no more at once than the directory of a zip may take."""

    def __init__(self, file: BinaryIO, raw: RawFile) -> None:
        self._file, self._raw = file, raw
        self.tell, self.seek, self.seekable = file.tell, file.seek, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > MAX_ZIP_DIRECTORY_BYTES:
            raise refused(self._raw, f"its directory takes {size} bytes")
        return self._file.read(size)
