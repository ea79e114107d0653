"""A corpus: what its download will do, and the download itself.

The files come into `work/download/<corpus>/` and stay there until all of them are right. Then they
get their second name in `data/raw/<corpus>/`, which is replaced as a whole.
"""

import logging
import shutil
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

from brewline.config.sources import FileParams, SourceParams
from brewline.core.errors import BrewlineError, disk_faults_explained
from brewline.core.files import (
    WORK_DIR,
    atomic_path,
    human,
    link,
    read_json,
    remove,
    sha256_tree,
    write_json,
)
from brewline.core.survey import files_at, survey
from brewline.download.checksums import (
    Checksum,
    checksums_file,
    read_checksums,
    record_checksums,
    today,
)
from brewline.download.fetching import Fetched, alone, fetch_verified, is_recorded, partial_path
from brewline.download.local import missing, path_in_place
from brewline.download.objects_in_place import is_object_in_place, object_entry
from brewline.download.places import look
from brewline.download.recordings import (
    RECORD,
    Archives,
    fetch_recordings,
    listed_recordings,
    publish,
)
from brewline.download.troubles import shown
from brewline.media import objects
from brewline.media.links import LINKS

RAW_DIR = Path("data/raw")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedFile:
    """What is known of a file before it is fetched; sizes in bytes, none where nobody says."""

    name: str
    url: str
    size: int | None
    here: int
    state: str


@dataclass(frozen=True)
class Plan:
    """What the download of a corpus will bring; sizes in bytes."""

    files: list[PlannedFile]
    free: int

    @property
    def needed(self) -> int:
        """What has still to come, as far as it is known."""
        return sum(max(file.size - file.here, 0) for file in self.files if file.size is not None)

    @property
    def shortage(self) -> str | None:
        """One sentence if the disk is short."""
        if self.needed <= self.free:
            return None
        return (
            f"the disk is short: {human(self.needed)} have still to come, "
            f"and {human(self.free)} are free"
        )


def make_plan(corpus: str, source: SourceParams, workers: int) -> Plan:
    """Asks every source for its size, and looks what is here already.

    Raises:
        BrewlineError: a URL is of a kind that we cannot read.
    """

    def plan(item: tuple[str, FileParams]) -> PlannedFile:
        return _plan_file(corpus, *item, known.get(item[0]))

    known = read_checksums(corpus)
    with ThreadPool(workers) as pool:
        files = pool.map(plan, source.files.items())
    if source.recordings:
        files.append(_plan_recordings(corpus, source.recordings.base_url))
    return Plan(files, shutil.disk_usage(Path()).free)


def _plan_file(corpus: str, name: str, file: FileParams, known: Checksum | None) -> PlannedFile:
    in_place, published = path_in_place(file), RAW_DIR / corpus / name
    if in_place and in_place.exists():
        have = int(survey(files_at(in_place))["size"])
        return PlannedFile(name, file.url, have, have, "used in place")
    if is_object_in_place(file):
        return _plan_object(name, file.url)
    size = file.size if file.size is not None else known.size if known else None
    if published.is_file() and (file.sha256 or known):
        have = published.stat().st_size
        if size in (None, have):
            return PlannedFile(name, shown(file.url), have, have, "here")
    urls, trouble = [file.url, *file.mirrors], ""
    if size is None:
        size, trouble = _ask_size(urls)
    parts = [partial_path(WORK_DIR / "download" / corpus, name, url) for url in urls]
    here = max((part.stat().st_size for part in parts if part.exists()), default=0)
    state = trouble or (f"{human(here)} here" if here else "to fetch")
    return PlannedFile(name, shown(file.url), size, here, state)


def _plan_object(name: str, url: str) -> PlannedFile:
    try:
        size = objects.look(url).size
    except BrewlineError as error:
        return PlannedFile(name, shown(url), None, 0, str(error))
    return PlannedFile(name, url, size, size, "read in place")


def _plan_recordings(corpus: str, base_url: str) -> PlannedFile:
    """What is known of the recordings that are fetched one by one; no server says their sizes."""
    record = RAW_DIR / corpus / RECORD
    if record.exists():
        facts = read_json(record)
        state = f"{facts['archived']} of {facts['listed']} here"
    else:
        state = "listed in the annotations"
    return PlannedFile("voice-recordings-*.tar", base_url, None, 0, state)


def _ask_size(urls: list[str]) -> tuple[int | None, str]:
    """The size at the first place that has the file, and what is wrong if none has."""
    troubles = []
    for url in urls:
        try:
            return look(url).size, ""
        except BrewlineError as error:
            troubles.append(str(error))
    return None, "; ".join(troubles)


def download_corpus(corpus: str, source: SourceParams, workers: int) -> list[str]:
    """Replaces `data/raw/<corpus>/` by the files of a corpus, when all of them are whole and right.

    What a killed run had brought is continued. A file that was published before is taken over if
    its hash is the right one.

    Args:
        corpus: Its name.
        source: Its files, and where they come from.
        workers: How many files are fetched at a time.

    Returns:
        A line for each file.

    Raises:
        BrewlineError: the licence is not accepted; the disk is short; or a file cannot be had.
    """
    if source.accept_licence is False:
        raise BrewlineError(
            f"{corpus} is published under {source.licence}; read it, and if you accept it, set "
            f"sources.{corpus}.accept_licence: true",
            "settings",
        )
    shortage = make_plan(corpus, source, workers).shortage
    if shortage:
        raise BrewlineError(shortage, "settings")
    work = WORK_DIR / "download" / corpus
    with alone(work), disk_faults_explained():
        links = {
            name: _link_entry(file, path)
            for name, file in source.files.items()
            if (path := path_in_place(file))
        }
        links |= {
            name: object_entry(name, file)
            for name, file in source.files.items()
            if is_object_in_place(file)
        }
        copied = {name: file for name, file in source.files.items() if name not in links}
        fetched = _fetch_all(corpus, copied, work, workers)
        archives = _fetch_recordings(corpus, source, links, fetched, work, workers)
        with atomic_path(RAW_DIR / corpus) as partial:
            partial.mkdir()
            for name, file in fetched.items():
                link(file.path, partial / name)
            if links:
                write_json(partial / LINKS, links)
            if archives:
                publish(archives, partial)
        found = {name: fetched[name].checksum for name in copied if is_recorded(copied[name])}
        record_checksums(corpus, found)
        remove(work)
    return [
        *(f"{name}  sha256 {file.checksum.sha256}" for name, file in fetched.items()),
        *(
            f"{name}  in place at {entry.get('path') or entry['url']}"
            for name, entry in links.items()
        ),
        *([f"recordings  {_counts(archives)}"] if archives else []),
    ]


def _counts(archives: Archives) -> str:
    return (
        f"{archives.record['archived']} of {archives.record['listed']} "
        f"in {len(archives.paths)} archives"
    )


def _link_entry(file: FileParams, path: Path) -> dict[str, str | int]:
    if not path.exists():
        raise missing(path)
    found = survey(files_at(path))
    if file.size is not None and found["size"] != file.size:
        raise BrewlineError(f"{path} has {found['size']} bytes; expected are {file.size}")
    if file.sha256 and (digest := sha256_tree(path)) != file.sha256:
        raise BrewlineError(
            f"{path} is damaged or another version: expected SHA-256 {file.sha256}, found {digest}"
        )
    return {"path": str(path.resolve()), **found}


def _fetch_all(
    corpus: str, files: dict[str, FileParams], work: Path, workers: int
) -> dict[str, Fetched]:
    known = read_checksums(corpus)

    def fetch(item: tuple[str, FileParams]) -> Fetched | BrewlineError:
        name, file = item
        try:
            return _published(RAW_DIR / corpus / name, file, known.get(name)) or fetch_verified(
                name, file, work, known.get(name), checksums_file(corpus)
            )
        except BrewlineError as error:
            return error

    # A file that cannot be had does not stop the others: what they bring is kept for the next run.
    with ThreadPool(workers) as pool:
        results = pool.map(fetch, files.items(), chunksize=1)
    errors = [result for result in results if isinstance(result, BrewlineError)]
    if errors:
        lasting = [error for error in errors if error.kind != "network"]
        raise (lasting or errors)[0]
    return {
        name: result
        for name, result in zip(files, results, strict=True)
        if isinstance(result, Fetched)
    }


def _published(path: Path, file: FileParams, known: Checksum | None) -> Fetched | None:
    """The file as it was published before, if it is the one that is wanted now."""
    wanted = file.sha256 or (known.sha256 if known else None)
    if wanted is None or not path.is_file() or sha256_tree(path) != wanted:
        return None
    return Fetched(path, Checksum(wanted, path.stat().st_size, shown(file.url), None, today()))


def _fetch_recordings(
    corpus: str,
    source: SourceParams,
    links: dict[str, dict[str, str | int]],
    fetched: dict[str, Fetched],
    work: Path,
    workers: int,
) -> Archives | None:
    if source.recordings is None:
        return None
    far = [name for name, entry in links.items() if "url" in entry and name.endswith(".jsonl")]
    if far:
        raise BrewlineError(
            f"{far[0]} names recordings that are fetched one by one, so it has to be copied; "
            f"take `in_place` from sources.{corpus}.files.{far[0]}",
            "settings",
        )
    paths = {name: file.path for name, file in fetched.items()}
    paths |= {name: Path(str(entry["path"])) for name, entry in links.items() if "path" in entry}
    annotations = [path for name, path in sorted(paths.items()) if name.endswith(".jsonl")]
    names = listed_recordings(annotations)
    if not names:
        raise BrewlineError(f"{corpus} has `recordings`, but no .jsonl file that names any")
    return fetch_recordings(source.recordings, names, work, RAW_DIR / corpus, workers)
