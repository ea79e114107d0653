"""Whether a file that has no published hash is what its name says, and whole."""

import gzip
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

from brewline.core.errors import BrewlineError

_CHUNK_BYTES = 1 << 20
# A tar archive ends with two blocks of zeros (POSIX pax, "ustar Interchange Format").
_TAR_END = bytes(1024)
# What tarfile and zipfile raise besides their own errors, at headers that do not fit together.
_TROUBLES = (
    EOFError,
    ValueError,
    LookupError,
    ArithmeticError,
    RecursionError,
    NotImplementedError,
    struct.error,
)


def check_whole(path: Path, name: str) -> None:
    """Checks the form of an archive: the beginning and the end of a tar, the directory of a zip,
    every checksum of a gzip. Other files pass.

    Args:
        path: Where the content is.
        name: Its published name, which says what it should be.

    Raises:
        BrewlineError: it is something else, or a part of it is missing.
    """
    size = path.stat().st_size
    try:
        if name.endswith((".gz", ".tgz")):
            # To Python, no bytes at all are a whole gzip file.
            if size == 0:
                raise EOFError("it is empty")
            with gzip.open(path) as file:
                while file.read(_CHUNK_BYTES):
                    pass
        elif name.endswith(".zip"):
            zipfile.ZipFile(path).close()
        elif name.endswith(".tar"):
            tarfile.open(path, "r:").close()
            with path.open("rb") as file:
                file.seek(max(0, size - len(_TAR_END)))
                if file.read() != _TAR_END:
                    raise tarfile.TarError("its end mark is missing")
    except (
        gzip.BadGzipFile,
        zlib.error,
        zipfile.BadZipFile,
        tarfile.TarError,
        *_TROUBLES,
    ) as error:
        raise BrewlineError(f"{name} is damaged or something else: {error}") from None
