"""Files that are whole or absent: hashes, atomic writes, and a place for partial work.

DVC deletes a stage's outputs before it runs the stage. What a stage has done so far therefore
lives under `work/<stage>/<fingerprint>/`, and its outputs appear at the end by a rename.
"""

import csv
import errno
import hashlib
import json
import lzma
import os
import re
import shutil
import struct
import sys
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from brewline.core.errors import BrewlineError

WORK_DIR = Path("work")
# Vectors of frames, which the trainings on a corpus share; see `brewline.samples.frame_vectors`.
FRAMES_FOLDER = WORK_DIR / "frames"
# Decoded pictures, which they share too; see `brewline.samples.decoded_pictures`.
PICTURES_FOLDER = WORK_DIR / "pictures"
_CHUNK = 1 << 20


def sha256_file(path: Path) -> str:
    """Returns the hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(path: Path) -> str:
    """Returns the hex SHA-256 over the names and contents of a file or of a folder's files."""
    if path.is_file():
        return sha256_file(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".pyc"):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def total_size(path: Path) -> int:
    """Returns the size of a file, or of a folder's files together, in bytes."""
    if path.is_file():
        return path.stat().st_size
    files = (Path(parent, file) for parent, _, names in os.walk(path) for file in names)
    return sum(file.stat().st_size for file in files if file.is_file())


def human(size: int | None) -> str:
    """A number of bytes for people, in powers of 1000."""
    if size is None:
        return "unknown"
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a path to write to; the file or folder written there becomes `path` at the end.

    A reader sees the old content, or the new one, never a part. Nothing is left behind when the
    block raises; what a killed process leaves is removed by the next one that succeeds. Several may
    write equal content at the same time, on several machines too, as each has a place of its own.
    Who comes later may find that removed; then `path` is there and whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        _put(partial, path)
    except BaseException:
        remove(partial)
        raise
    _remove_partials(path)


def _put(partial: Path, path: Path) -> None:
    aside = _partial(path)
    try:
        if not partial.is_dir():
            sync(partial)
        else:
            # Removing many files takes longer than two renames.
            with suppress(FileNotFoundError):
                path.replace(aside)
        partial.replace(path)
    except FileNotFoundError:
        # Who was faster has removed ours; what we had put aside is his.
        with suppress(OSError):
            aside.replace(path)
        if not path.exists():
            raise
    sync(path.parent)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


def _remove_partials(path: Path) -> None:
    """Removes whatever else was going to be `path`, or was it before."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.partial")
    for other in path.parent.iterdir():
        if ours.fullmatch(other.name):
            # Whose half it is may be writing to it, or removing it too. He is not to find, and put
            # in place, a folder of which some files are gone.
            with suppress(OSError):
                remove(other.replace(_partial(path)))


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, with sorted keys, so that equal values give equal bytes.

    Raises:
        ValueError: the value holds NaN or an infinity, which JSON has no words for.
    """
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Writes rows as CSV, in UTF-8; None is an empty cell.

    Args:
        path: The file.
        rows: All with the same keys.
        columns: Their names; those of the first row, where there is one.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns) or list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_json(path: Path) -> Any:
    """Reads a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_stage_output(path: Path, stage: str = "") -> Any:
    """Reads a JSON file that a stage makes.

    Raises:
        BrewlineError: it is missing, and which stage makes it.
    """
    try:
        return read_json(path)
    except FileNotFoundError:
        command = f"dvc repro {stage}".rstrip()
        raise BrewlineError(f"{path} is missing; run `{command}`") from None
    except ValueError as error:
        raise BrewlineError(f"{path} is not valid JSON: {error}") from None


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def move_folder(source: Path, target: Path) -> None:
    """Puts a finished folder in the place of another one, from another disk too.

    Renamed where both lie on one disk; else copied beside the target, and renamed there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.stat().st_dev == target.parent.stat().st_dev:
        remove(target)
        source.replace(target)
        sync(target.parent)
        return
    with atomic_path(target) as partial:
        shutil.copytree(source, partial)
    remove(source)


def is_whole_zip(path: Path) -> bool:
    """Whether a zip (torch's and numpy's files are zips too) holds what was written into it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError):
        return False
    except OSError as error:
        # A place that the directory names lies before the file's beginning.
        if error.errno != errno.EINVAL:
            raise
        return False


def set_aside(path: Path, consequence: str) -> None:
    """Takes partial work that is damaged out of the way, and says so; nothing reads it again.

    Args:
        path: The file; it gets a name that ends in `.damaged`.
        consequence: What happens instead: "training starts anew".
    """
    aside = path.with_name(f"{path.name}.damaged")
    remove(aside)
    path.replace(aside)
    sys.stderr.write(f"{path} is damaged and is set aside as {aside.name}; {consequence}\n")


def read_partial_json(path: Path, consequence: str) -> Any:
    """Reads JSON of partial work; None where there is none, or a damaged one, which is set aside.

    Args:
        path: The file.
        consequence: See `set_aside`.
    """
    if not path.exists():
        return None
    try:
        return read_json(path)
    except ValueError:
        set_aside(path, consequence)
        return None


def link(source: Path, target: Path) -> None:
    """Gives a file a second name; where the file system cannot, a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Resolved: DVC may have put a symbolic link where the file was.
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def unpack_xz(source: Path, target: Path) -> None:
    """Writes what a file that ends in `.xz` holds.

    Raises:
        BrewlineError: it is cut, or none.
    """
    try:
        with lzma.open(source) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file)
    except (lzma.LZMAError, EOFError) as error:
        raise BrewlineError(f"{source.name} is not a whole xz file: {error}") from None


def stamps(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of a folder's files: for files too large to be hashed."""
    found = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        (path.relative_to(folder).as_posix(), facts.st_size, facts.st_mtime_ns)
        for path, facts in found
    ]


def fingerprint(version: int, parameters: Any, dependencies: list[Path]) -> str:
    """Names a piece of work by what determines its result: our code, parameters and inputs.

    Args:
        version: Of the stage, from `versions.yaml`: it stands for the code, so that a change
            which cannot change the result does not throw away what is half done.
        parameters: Anything that `json` can write.
        dependencies: Files and folders that are read, whole; each must exist.

    Returns:
        16 hex digits.
    """
    facts = {
        "version": version,
        "parameters": parameters,
        "dependencies": {str(path): sha256_tree(path) for path in dependencies},
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def work_dir(stage: str, name: str) -> Path:
    """Returns the folder for the partial work of `stage` under fingerprint `name`, made if new."""
    path = WORK_DIR / stage / name
    path.mkdir(parents=True, exist_ok=True)
    return path
