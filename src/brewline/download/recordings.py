"""Fetch the recordings of a corpus that publishes them one by one, into tar archives.

Localized Narratives has 143,000 files in a bucket that cannot be listed; its annotations name them.
The names are sorted and cut into archives of a fixed number, so what an archive holds, and in which
order, depends on the list alone. The files of one archive lie under `work/` until all were tried,
each appearing there by a rename: what is killed loses the files that were on their way. A file that
cannot be had is recorded with the reason.
"""

import hashlib
import json
import logging
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Never
from urllib.parse import quote

from tqdm import tqdm

from brewline.config.sources import RecordingsParams
from brewline.core.errors import BrewlineError, FailureKind
from brewline.core.files import (
    atomic_path,
    link,
    read_json,
    read_partial_json,
    remove,
    sha256_file,
    write_json,
)
from brewline.download.web import bring_small
from brewline.media.archives import bounded_lines, check_member_name

RECORD = "voice-recordings.json"
# Two minutes of stereo speech in OGG Vorbis have 2 MB. Each worker holds one file in memory.
_MAX_FILE_BYTES = 1 << 26
_MAX_TROUBLE_CHARS = 200
_BY_IMAGE = re.compile(r"(?P<split>[^/]+)/(?P=split)_(?P<image>.+)_(?P<annotator>\d+)\.ogg")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archives:
    """Finished archives in the work folder, and what is recorded of them."""

    paths: list[Path]
    record: dict[str, object]


def listed_recordings(annotations: list[Path]) -> list[str]:
    """Returns the field `voice_recording` of the lines of some JSONL files: sorted, each once.

    A line that names none costs no other: it is told of here, and listed by its number when the
    corpus is read.

    Raises:
        BrewlineError: a name leaves the folder, or no line of a file names any.
    """
    names = set()
    for path in annotations:
        named, troubles = set(), []
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as text:
            for number, line in enumerate(bounded_lines(text, str(path)), start=1):
                try:
                    name = json.loads(line)["voice_recording"]
                    name.encode()
                # ValueError: no JSON, digits beyond measure, or no UTF-8.
                except (
                    ValueError,
                    RecursionError,
                    LookupError,
                    TypeError,
                    AttributeError,
                ) as error:
                    what = f"{type(error).__name__}: {error}"[:_MAX_TROUBLE_CHARS]
                    troubles.append(f"{path}, line {number} names no voice_recording: {what}")
                else:
                    named.add(check_member_name(path, name))
        if troubles and not named:
            raise BrewlineError(troubles[0])
        for trouble in troubles:
            _log.warning("%s", trouble)
        names |= named
    return sorted(names)


def stored_path(name: str, rule: str) -> str:
    """Where a recording lies below the base URL.

    Args:
        name: The field `voice_recording`.
        rule: `as_listed` (COCO, Open Images), or `by_image` (Flickr30k, ADE20k): there the file is
            `{split}/{split}_{image, 16 digits}_{annotator}.ogg`, and the field alone leads nowhere.

    Raises:
        BrewlineError: the field does not have the form that the rule takes apart.
    """
    if rule == "as_listed":
        return name
    parts = _BY_IMAGE.fullmatch(name)
    if parts is None:
        raise BrewlineError(f"{name!r} is not <split>/<split>_<image>_<annotator>.ogg")
    return f"{parts['split']}/{parts['split']}_{parts['image']:0>16}_{parts['annotator']}.ogg"


def fetch_recordings(
    source: RecordingsParams, names: list[str], work: Path, old: Path, workers: int
) -> Archives:
    """Fetches the named recordings into archives under `work`, going on from what is there.

    Args:
        source: Where they are, and how many may be missing.
        names: See `listed_recordings`; also the names in the archives.
        work: For archives and partial work.
        old: The folder that was published before. Its archives are taken over where they were made
            from the same list; what they lack is tried again.
        workers: How many files are fetched at a time.

    Raises:
        BrewlineError: more are missing than allowed; or the server is out of reach.
    """
    fetch = _Fetch(source, names, work, old, workers)
    with tqdm(total=len(names), unit=" files", desc="recordings", disable=None) as progress:
        for index, start in enumerate(range(0, len(names), source.files_per_archive)):
            batch = names[start : start + source.files_per_archive]
            fetch.archive(index, batch, progress)
            # The ones that were here already.
            progress.update(start + len(batch) - progress.n)
    return fetch.result()


class _Fetch:
    """One list of recordings on its way into archives."""

    def __init__(
        self, source: RecordingsParams, names: list[str], work: Path, old: Path, workers: int
    ) -> None:
        facts = [source.base_url, source.path_rule, source.files_per_archive, names]
        self._list = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        self._source, self._names, self._workers = source, names, workers
        self._folder = work / f"recordings-{self._list[:16]}"
        self._folder.mkdir(parents=True, exist_ok=True)
        record = read_json(old / RECORD) if (old / RECORD).exists() else {}
        self._old = old
        same = record.get("list") == self._list
        self._old_archives: dict[str, str] = record["archives"] if same else {}
        self._old_failed: dict[str, str] = record["failed"] if same else {}
        self._archives: dict[str, str] = {}
        self._failed: dict[str, str] = {}

    def archive(self, index: int, names: list[str], progress: "tqdm[Never]") -> None:
        """Makes one archive, unless it is there."""
        path = self._folder / f"voice-recordings-{index:05d}.tar"
        done, staging = path.with_suffix(".json"), path.with_suffix("")
        facts = read_partial_json(done, "the archive is made again")
        if facts is None:
            staging.mkdir(exist_ok=True)
            failed: dict[str, str] = {}
            digest = self._take_over(path, names, staging)
            if digest is None:
                failed = self._fetch_missing(names, staging, progress)
                with atomic_path(path) as partial:
                    _pack(partial, names, staging)
                digest = sha256_file(path)
            facts = {"sha256": digest, "failed": failed}
            write_json(done, facts)
        remove(staging)
        self._archives[path.name] = facts["sha256"]
        self._failed.update(facts["failed"])
        self._check_share(self._failed, "data")

    def result(self) -> Archives:
        """What was made, and the record of it."""
        record = {
            "list": self._list,
            "listed": len(self._names),
            "archived": len(self._names) - len(self._failed),
            "archives": self._archives,
            "failed": self._failed,
        }
        return Archives([self._folder / name for name in self._archives], record)

    def _take_over(self, path: Path, names: list[str], staging: Path) -> str | None:
        """Takes the published archive, if it is complete, and returns its hash.

        If it is not, what it has goes to the staging folder.
        """
        published, digest = self._old / path.name, self._old_archives.get(path.name)
        if not published.exists() or sha256_file(published) != digest:
            return None
        if not self._old_failed.keys() & set(names):
            with atomic_path(path) as partial:
                link(published, partial)
            return digest
        places = {name: staging / f"{number:05d}" for number, name in enumerate(names)}
        with tarfile.open(published, "r:") as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None and not places[member.name].exists():
                    with atomic_path(places[member.name]) as partial:
                        partial.write_bytes(content.read())
        return None

    def _fetch_missing(
        self, names: list[str], staging: Path, progress: "tqdm[Never]"
    ) -> dict[str, str]:
        missing = {
            name: staging / f"{number:05d}"
            for number, name in enumerate(names)
            if not (staging / f"{number:05d}").exists()
        }
        failed: dict[str, str] = {}
        in_a_row = 0
        for name, error in self._fetch_all(missing):
            progress.update()
            in_a_row = in_a_row + 1 if error and error.kind == "network" else 0
            if error is None:
                continue
            # One after another: not the files' trouble, and none of it is recorded as theirs.
            if in_a_row > self._workers:
                raise error
            _log.warning("%s", error)
            failed[name] = str(error)
            self._check_share({**self._failed, **failed}, error.kind)
        return dict(sorted(failed.items()))

    def _fetch_all(self, missing: dict[str, Path]) -> Iterator[tuple[str, BrewlineError | None]]:
        def fetch(name: str) -> tuple[str, BrewlineError | None]:
            try:
                url = self._source.base_url + quote(stored_path(name, self._source.path_rule))
                content = bring_small(url, _MAX_FILE_BYTES)
            except BrewlineError as error:
                return name, error
            with atomic_path(missing[name]) as partial:
                partial.write_bytes(content)
            return name, None

        with ThreadPool(self._workers) as pool:
            yield from pool.imap_unordered(fetch, missing)

    def _check_share(self, failed: dict[str, str], kind: FailureKind) -> None:
        allowed = self._source.max_failed_fraction * len(self._names)
        if len(failed) > allowed:
            name, reason = list(failed.items())[-1]
            raise BrewlineError(
                f"{len(failed)} of {len(self._names)} recordings cannot be had, and "
                f"recordings.max_failed_fraction allows {int(allowed)}; the last is {name}: "
                f"{reason}",
                kind,
            )


def _pack(path: Path, names: list[str], staging: Path) -> None:
    """Writes the staged files in the order of their names, and nothing of when or by whom."""
    with tarfile.open(path, "w") as archive:
        for number, name in enumerate(names):
            staged = staging / f"{number:05d}"
            if staged.exists():
                member = tarfile.TarInfo(name)
                member.size = staged.stat().st_size
                with staged.open("rb") as content:
                    archive.addfile(member, content)


def publish(archives: Archives, folder: Path) -> None:
    """Links the archives into the corpus' folder, and writes their record."""
    for path in archives.paths:
        link(path, folder / path.name)
    write_json(folder / RECORD, archives.record)
