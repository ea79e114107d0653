"""Sources of a corpus that are read where they lie: folders, archives, objects in a store.

`links.json` in the corpus' folder names them, and what was found there when it was written.
"""

import json
import os
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from brewline.core.errors import BrewlineError
from brewline.core.survey import files_at, survey
from brewline.media.containers import LocalFile, RawFile, name_as_text
from brewline.media.objects import StoredObject, is_prefix, list_below, look, replaced, together

LINKS = "links.json"
# Put to an object store at a time.
_MOST_QUESTIONS = 16


def files_below(folder: Path, files: list[tuple[str, int, int]]) -> Iterator[tuple[str, RawFile]]:
    """What the files of a folder are called, and where they are."""
    for name, _, _ in files:
        # What is no UTF-8 in it, the system hands on as lone surrogates.
        yield name_as_text(os.fsencode(name)), LocalFile(folder / name)


def linked_files(root: Path) -> Iterator[tuple[str, RawFile]]:
    """The files of the sources that are used where they lie, by their published names.

    Raises:
        BrewlineError: one has changed since the download, or is gone.
    """
    if not (root / LINKS).exists():
        return
    links = json.loads((root / LINKS).read_text(encoding="utf-8"))
    far = {name: StoredObject(**link) for name, link in links.items() if "url" in link}
    for name, link in links.items():
        if name not in far:
            yield from _linked_here(root, name, link)
    if not far:
        return
    # An answer is waited for longer than it takes to ask.
    with ThreadPool(min(_MOST_QUESTIONS, len(far))) as pool:
        for found in pool.imap(lambda link: list(_linked_far(*link)), far.items()):
            yield from found


def _linked_here(root: Path, name: str, link: dict[str, Any]) -> Iterator[tuple[str, RawFile]]:
    path = Path(link["path"])
    if not path.exists():
        raise BrewlineError(f"{path}, which is {name!r} of {root}, is gone")
    files = files_at(path)
    if {"path": link["path"], **survey(files)} != link:
        raise BrewlineError(
            f"{path} has changed since {root} was made; run `dvc repro`, which looks again"
        )
    if path.is_dir():
        for below, file in files_below(path, files):
            yield f"{name.rstrip('/')}/{below}", file
    else:
        yield name, LocalFile(path)


def _linked_far(name: str, known: StoredObject) -> Iterator[tuple[str, RawFile]]:
    if not is_prefix(known.url):
        if look(known.url) != known:
            raise replaced(known)
        yield name, known
        return
    objects = list_below(known.url)
    if together(known.url, objects) != known:
        raise replaced(known)
    for each in objects:
        yield f"{name.rstrip('/')}/{each.url.removeprefix(known.url)}", each
