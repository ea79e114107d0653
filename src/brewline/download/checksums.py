"""What was found at the first download, so that a later one of other bytes is an error.

A file from another machine whose `sha256` is null in `params.yaml` has its hash recorded in
`checksums/<corpus>.json`, beside `params.yaml`, to be committed with it. Not in `data/raw/`: a
record must outlive what it guards, and `make clean`; and it has a date, which an output may not
have. Not in `params.yaml`: that is the user's file, and a change in it makes the stage stale. The
record can only stop a run, never change its result, so it is no dependency of the stage. A hash in
`params.yaml` wins.
"""

import datetime
from dataclasses import asdict, dataclass
from pathlib import Path

from brewline.core.files import read_json, write_json

CHECKSUMS_DIR = Path("checksums")


@dataclass(frozen=True)
class Checksum:
    """A file as it was at its first download: content, size in bytes, and where it came from."""

    sha256: str
    size: int
    url: str
    tag: str | None
    date: str


def checksums_file(owner: str) -> Path:
    """Where the checksums of a corpus stand."""
    return CHECKSUMS_DIR / f"{owner}.json"


def read_checksums(owner: str) -> dict[str, Checksum]:
    """Returns what is recorded, by published name."""
    path = checksums_file(owner)
    return (
        {name: Checksum(**facts) for name, facts in read_json(path).items()}
        if path.exists()
        else {}
    )


def record_checksums(owner: str, found: dict[str, Checksum]) -> None:
    """Adds to what is recorded; what stands there stays as it is."""
    known = read_checksums(owner)
    if found.keys() - known.keys():
        merged = {**found, **known}
        write_json(checksums_file(owner), {name: asdict(one) for name, one in merged.items()})


def today() -> str:
    """The date in UTC, as a record has it."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()
