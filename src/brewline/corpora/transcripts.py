"""Transcripts that exist already, to be taken instead of Whisper's.

Two forms, told apart by the suffix:

    *.csv    a header, then rows; columns `id` (of the utterance, or its recording's name without
             the suffix) and `text`; others are ignored
    *.txt    `<recording's name without the suffix>#<text>`, as BrewCLIP's authors keep theirs
             (`aud2trans_<split>_<corpus>.txt`)
"""

from collections.abc import Iterator
from dataclasses import replace

from brewline.core.errors import BrewlineError
from brewline.corpora.reading import csv_objects, lines_of, one_file, stem
from brewline.media.archives import MediaStore
from brewline.tables.listing import Listing


def with_transcripts(
    store: MediaStore, listings: list[Listing], names: list[str]
) -> tuple[list[Listing], int]:
    """Gives utterances the transcripts that the files name; the others are left to Whisper.

    Args:
        store: The corpus' files, those with transcripts among them.
        listings: What the corpus lists.
        names: Of the files.

    Returns:
        The listings, and how many transcripts belong to none of them.

    Raises:
        BrewlineError: a file is missing or malformed, names an utterance twice with different
            texts, or the files have no utterance of the corpus.
    """
    texts: dict[str, str] = {}
    for name in names:
        file = one_file(store, name)
        for number, key, text in _entries(store, file):
            if texts.setdefault(key, text) != text:
                raise BrewlineError(f"{file}, line {number}: {key!r} has another transcript before")
    used: set[str] = set()
    found = []
    for row in listings:
        keys = [key for key in (row.utterance_id, stem(row.audio_path)) if key in texts]
        found.append(replace(row, transcript=texts[keys[0]]) if keys else row)
        used.update(keys)
    if names and not used:
        raise BrewlineError(f"{', '.join(names)}: no transcript is of an utterance of this corpus")
    return found, len(texts.keys() - used)


def _entries(store: MediaStore, name: str) -> Iterator[tuple[int, str, str]]:
    """Line number, key and text of each transcript."""
    if not name.endswith(".csv"):
        for number, line in lines_of(store, name):
            key, mark, text = line.partition("#")
            if not mark or not key:
                raise BrewlineError(f"{name}, line {number}: expected `<recording>#<text>`")
            yield number, key, text.strip()
        return
    for number, row in csv_objects(store, name):
        if not {"id", "text"} <= row.keys():
            raise BrewlineError(f"{name}: expected columns id and text, not {', '.join(row)}")
        yield number, row["id"], row["text"].strip()
