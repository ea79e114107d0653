"""Files in an object store, read where they lie through fsspec.

A URL is `s3://<bucket>/<key>`, `gs://<bucket>/<key>` or `az://<container>/<path>`; one that ends in
`/` stands for all objects whose names begin with it. Keys, accounts, endpoints and regions come
from the environment and the files that the store's own tools read. fsspec's packages try again by
themselves what may pass.

A request takes some 30 ms, whatever it brings. So blocks are read, and as long as somebody goes on
where the last ones ended, twice as many each time; who jumps about pays for one block.
"""

import functools
import hashlib
import io
import os
import posixpath
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from brewline.config.sources import OBJECT_STORES
from brewline.core.errors import BrewlineError, outages_explained

# Some recordings of captions, or one of a story.
_BLOCK_BYTES = 256 << 10
# At 80 MB/s, which one connection reaches, the wait for an answer is then a fourth of the time.
_MOST_BLOCKS_AHEAD = 32
# Of each object in a process, and how many objects these are: 128 MiB in all.
_BLOCKS_KEPT = 64
_OBJECTS_KEPT = 8
# After which a store that does not answer is away, however often it was asked.
PATIENCE_S = 45.0
# What identifies the bytes of an object: on S3, on Google's store, on Azure's; or when they came.
_TAGS = ("ETag", "generation", "etag", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True)
class StoredObject:
    """One version of an object, or of all that lies below a prefix.

    Args:
        url: Where it is.
        size: In bytes.
        tag: Equal only for equal bytes; none where the store does not say.
    """

    url: str
    size: int
    tag: str | None
    # For containers that are slow to list.
    is_near = False

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of its name."""
        return posixpath.basename(self.url)

    @property
    def version(self) -> str:
        """Names these bytes."""
        return f"{self.url}\0{self.size}\0{self.tag}"

    def open(self) -> BinaryIO:
        """Opens it for reading at any place; nothing is asked of the store yet."""
        return io.BufferedReader(_ObjectFile(self))

    def for_library(self) -> BinaryIO:
        """What a library is given that reads by itself."""
        return self.open()


def replaced(stored: StoredObject) -> BrewlineError:
    """The error for whoever reads a version of which the store has another one."""
    return BrewlineError(
        f"{stored} has changed since the download; run `dvc repro download --force`"
    )


def is_stored(url: str) -> bool:
    """Whether a URL names something in an object store."""
    return urlsplit(url).scheme in OBJECT_STORES


def is_prefix(url: str) -> bool:
    """Whether the URL of something in an object store stands for all that lies below it."""
    return url.endswith("/")


@contextmanager
def opened_store(url: str) -> Iterator[Any]:
    """Yields fsspec's file system for a URL, and says what is wrong in our words.

    Raises:
        BrewlineError: of kind `settings` where a package or credentials are missing; `data` where
            the object or its bucket is; `network` where the store fails to answer.
    """
    import fsspec

    parts = urlsplit(url)
    package = OBJECT_STORES[parts.scheme]
    if "@" in parts.netloc:
        raise BrewlineError(
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}: an address names "
            "bucket and object alone; keys and accounts come from the environment",
            "settings",
        )
    with outages_explained(url):
        try:
            filesystem = fsspec.filesystem(parts.scheme)
            # Of what it listed before, nothing is believed.
            filesystem.invalidate_cache()
            yield filesystem
        except ImportError:
            raise BrewlineError(
                f"{url} needs one more package: uv pip install {package}", "settings"
            ) from None
        except FileNotFoundError:
            raise BrewlineError(f"{url} is not there") from None
        except PermissionError as error:
            raise BrewlineError(
                f"{url} is not open to these credentials: {error}", "settings"
            ) from None
        except Exception as error:
            if not _is_of_settings(error):
                raise
            raise BrewlineError(
                f"{url} cannot be opened with what {package} finds in the environment: {error}",
                "settings",
            ) from None


def _is_of_settings(error: Exception) -> bool:
    """Whether a key, an account or an address is missing or makes no sense.

    The packages share no class for it, and what they share with others below them is the name.
    """
    kinds = [kind.__name__ for kind in type(error).__mro__]
    # Not those of its subclasses that say of an answer that it makes no sense.
    return type(error) is ValueError or any(
        word in kind
        for kind in kinds
        for word in ("Credential", "Authentication", "ProfileNotFound")
    )


def look(url: str) -> StoredObject:
    """Asks for the size and the version of an object, or of all that lies below a prefix.

    Raises:
        BrewlineError: see `opened_store`; or it is a prefix that does not end in `/`.
    """
    if is_prefix(url):
        return together(url, list_below(url))
    with opened_store(url) as filesystem:
        facts = filesystem.info(url)
    if facts["type"] == "directory":
        raise BrewlineError(
            f"{url} is no object, but others lie below it; with a / at its end, they are read in "
            "place",
            "settings",
        )
    return _version(url, facts)


def list_below(prefix: str) -> list[StoredObject]:
    """The objects below a prefix, sorted by name.

    Raises:
        BrewlineError: see `opened_store`; or there are none.
    """
    with opened_store(prefix) as filesystem:
        root = filesystem._strip_protocol(prefix).rstrip("/") + "/"
        found = filesystem.find(prefix, detail=True)
    objects = [
        _version(prefix + path.removeprefix(root), facts)
        for path, facts in sorted(found.items())
        # Some tools make an empty object for a folder.
        if path.startswith(root) and not path.endswith("/")
    ]
    if not objects:
        raise BrewlineError(f"{prefix} is not there")
    return objects


def together(prefix: str, objects: Iterable[StoredObject]) -> StoredObject:
    """All that lies below a prefix as one: it changes when one of the objects does."""
    digest, size = hashlib.sha256(), 0
    for each in objects:
        digest.update(f"{each.version}\n".encode())
        size += each.size
    return StoredObject(prefix, size, digest.hexdigest())


def _version(url: str, facts: dict[str, Any]) -> StoredObject:
    tag = next((facts[name] for name in _TAGS if facts.get(name)), None)
    # In some answers it stands in quotes, in others of the same store it does not.
    return StoredObject(url, facts["size"], None if tag is None else str(tag).strip('"'))


class _ObjectFile(io.RawIOBase):
    """An object as a file. What is read of it is shared by all files of it in a process."""

    def __init__(self, stored: StoredObject) -> None:
        self._stored, self._position = stored, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._stored.size}
        if base[whence] + offset < 0:
            raise ValueError(f"negative position {base[whence] + offset}")
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._stored.size:
            return 0
        number, start = divmod(self._position, _BLOCK_BYTES)
        # A process that was forked talks to the store by connections of its own.
        block = _blocks_of(self._stored, os.getpid()).block(number)
        chunk = block[start : start + len(buffer)]
        buffer[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)


class _Blocks:
    """The blocks of an object that were read last."""

    def __init__(self, stored: StoredObject) -> None:
        self._stored = stored
        self._file: Any = None
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        # The block after those that came last, and how many came.
        self._next, self._num_ahead = 0, 0

    def block(self, number: int) -> bytes:
        """A block; all but the last have the same size.

        Raises:
            BrewlineError: see `opened_store`; or the object is another one by now.
        """
        with self._lock:
            if number not in self._kept:
                goes_on = number == self._next
                self._num_ahead = min(2 * self._num_ahead, _MOST_BLOCKS_AHEAD) if goes_on else 1
                self._num_ahead = max(self._num_ahead, 1)
                self._bring(number, self._num_ahead)
                self._next = number + self._num_ahead
            self._kept.move_to_end(number)
            return self._kept[number]

    def _bring(self, number: int, count: int) -> None:
        start = number * _BLOCK_BYTES
        content = memoryview(
            self._fetch(start, min(count * _BLOCK_BYTES, self._stored.size - start))
        )
        for at in range(0, len(content), _BLOCK_BYTES):
            self._kept[number + at // _BLOCK_BYTES] = bytes(content[at : at + _BLOCK_BYTES])
        while len(self._kept) > _BLOCKS_KEPT:
            self._kept.popitem(last=False)

    def _fetch(self, start: int, size: int) -> bytes:
        try:
            content = _in_time(self._stored, lambda: self._ask(start, size))
        except BrewlineError:
            # Who did not answer may still be reading from it.
            self._file = None
            raise
        if len(content) != size:
            raise BrewlineError(
                f"{self._stored}: {len(content)} bytes came where {size} were asked for; run it "
                "again to continue",
                "network",
            )
        return content

    def _ask(self, start: int, size: int) -> bytes:
        url, file = self._stored.url, self._file
        try:
            with opened_store(url) as filesystem:
                if file is None:
                    # Without a cache: each read is one request. On S3 it names the version too.
                    file = filesystem.open(url, "rb", cache_type="none")
                    if _version(url, file.details) != self._stored:
                        raise replaced(self._stored)
                    self._file = file
                file.seek(start)
                content: bytes = file.read(size)
        except BrewlineError:
            # Whatever a store says of it: one that was replaced is told as what it is.
            if file is not None and look(url) != self._stored:
                raise replaced(self._stored) from None
            raise
        return content


def _in_time(stored: StoredObject, ask: Callable[[], bytes]) -> bytes:
    """The answer of a store, unless it takes longer than `PATIENCE_S`.

    The packages bound each of their tries, but not all of them together.
    """
    answer: Future[bytes] = Future()

    def wait_for_it() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:  # noqa: BLE001 - it is raised again where the answer is wanted
            answer.set_exception(error)

    threading.Thread(target=wait_for_it, daemon=True).start()
    try:
        return answer.result(PATIENCE_S)
    except TimeoutError:
        raise BrewlineError(
            f"{stored}: no answer for {PATIENCE_S:g} s; run it again to continue", "network"
        ) from None


@functools.lru_cache(maxsize=_OBJECTS_KEPT)
def _blocks_of(stored: StoredObject, process: int) -> _Blocks:
    del process
    return _Blocks(stored)
