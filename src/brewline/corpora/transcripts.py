"""Transcripts that exist already, to be taken instead of Whisper's.

Two forms, told apart by the suffix:

    *.csv    a header, then rows; columns `id` and `text`; others are ignored
             (`*.tsv` as well: see `csv_objects`)
    *.txt    `<id>#<text>`, as BrewCLIP's authors keep theirs (`aud2trans_<split>_<corpus>.txt`)

The id is that of the utterance, or the path of its recording, with or without the suffix, from the
corpus' folder or from any folder below it on. The shortest, the bare name, does where no other
recording has it.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from brewline.core.errors import BrewlineError
from brewline.corpora.reading import csv_objects, lines_of, one_file, safe_id
from brewline.media.archives import MediaStore, canonical_name
from brewline.tables.listing import Listing

_TABLES = (".csv", ".tsv")


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
        BrewlineError: a file is missing or malformed, names several utterances at once, names an
            utterance twice with different texts, or the files have no utterance of the corpus.
    """
    if not names:
        return listings, 0
    recordings = _Recordings(listings)
    texts: dict[str, str] = {}
    unused: set[str] = set()
    for name in names:
        file = one_file(store, name)
        for number, key, text in _entries(store, file):
            where = f"{file}, line {number}"
            meant = recordings.find(where, key)
            if not meant:
                unused.add(key)
            if any(texts.setdefault(recording, text) != text for recording in meant):
                raise BrewlineError(f"{where}: {key!r} has another transcript before")
    if not texts:
        raise BrewlineError(f"{', '.join(names)}: no transcript is of an utterance of this corpus")
    found = [
        replace(row, transcript=texts[row.audio_path])
        if not row.fault and row.audio_path in texts
        else row
        for row in listings
    ]
    return found, len(unused)


class _Recordings:
    """The recordings of a corpus, to be found by what a table of transcripts calls them."""

    def __init__(self, listings: list[Listing]) -> None:
        # Of two rows with one id, it is not known yet which one is good.
        self._by_id: defaultdict[str, set[str]] = defaultdict(set)
        # By the file's name, with and without its suffix.
        self._by_name: defaultdict[str, set[str]] = defaultdict(set)
        for row in listings:
            if row.fault:
                continue
            self._by_id[row.utterance_id].add(row.audio_path)
            for form in _forms(row.audio_path):
                self._by_name[form.rpartition("/")[2]].add(row.audio_path)

    def find(self, where: str, key: str) -> set[str]:
        """The paths of the recordings that are meant: several only where they share the id.

        Raises:
            BrewlineError: it may be one of several.
        """
        for utterance_id in (key, safe_id(key)):
            if utterance_id in self._by_id:
                return self._by_id[utterance_id]
        path = canonical_name(key).removeprefix("./").removeprefix("/")
        meant = {
            each
            for each in self._by_name.get(path.rpartition("/")[2], ())
            if any(f"/{form}".endswith(f"/{path}") for form in _forms(each))
        }
        exact = {each for each in meant if path in _forms(each)} or meant
        if len(exact) > 1:
            first, second = sorted(exact)[:2]
            raise BrewlineError(
                f"{where}: {key!r} may be {first} or {second}; name the recording by its path"
            )
        return exact


def _forms(path: str) -> tuple[str, str]:
    """A path as it is, and without its suffix, in their canonical spelling."""
    path = canonical_name(path)
    folder, slash, name = path.rpartition("/")
    return path, folder + slash + (name.rpartition(".")[0] or name)


def _entries(store: MediaStore, name: str) -> Iterator[tuple[int, str, str]]:
    """Line number, key and text of each transcript."""
    if not name.lower().endswith(_TABLES):
        for number, line in lines_of(store, name):
            key, mark, text = line.partition("#")
            if not mark or not key:
                raise BrewlineError(f"{name}, line {number}: expected `<recording>#<text>`")
            yield number, key, text.strip()
        return
    for number, row in csv_objects(store, name):
        if isinstance(row, BrewlineError):
            raise row
        if not {"id", "text"} <= row.keys():
            raise BrewlineError(f"{name}: expected columns id and text, not {', '.join(row)}")
        yield number, row["id"], row["text"].strip()
