"""Transcripts that are imported: both forms, and what is wrong with them."""

from pathlib import Path

import pytest

from brewline.core.errors import BrewlineError
from brewline.corpora.transcripts import with_transcripts
from brewline.media.archives import MediaStore
from brewline.tables.listing import Listing

AUTHORS = "aud2trans_test_flickr8k.txt"
LISTINGS = [
    Listing("12_ab_0", "test", "wavs/12_ab_0.wav", "1"),
    Listing("12_ab_1", "test", "wavs/12_ab_1.wav", "1"),
    Listing("made-3f", "test", "wavs/12 ab 2.wav", "1"),
]


def read(folder: Path, **files: str) -> tuple[list[str | None], int]:
    """The transcripts of `LISTINGS`, and how many belong to none of them."""
    names = {"csv": "mine.csv", "txt": AUTHORS}
    for kind, text in files.items():
        (folder / names[kind]).write_bytes(text.encode(errors="surrogateescape"))
    found, unused = with_transcripts(MediaStore(folder), LISTINGS, [names[kind] for kind in files])
    return [row.transcript for row in found], unused


def test_the_authors_form(tmp_path: Path) -> None:
    # A space leads, a text may hold the mark or be empty, and one recording is of another corpus.
    text = "12_ab_0# A dog # one\n12_ab_1#\n99_zz_0# A cat\n"
    assert read(tmp_path, txt=text) == (["A dog # one", "", None], 1)


def test_a_table_names_utterances_or_recordings(tmp_path: Path) -> None:
    table = 'id,text,note\n12_ab_1,"one, two",x\n12 ab 2,three,y\n'
    assert read(tmp_path, csv=table) == ([None, "one, two", "three"], 0)


def test_several_files_are_joined(tmp_path: Path) -> None:
    found = read(tmp_path, txt="12_ab_0# a\n", csv="id,text\n12_ab_0,a\n12_ab_1,b\n")
    assert found == (["a", "b", None], 0)


def test_none_are_asked_for(tmp_path: Path) -> None:
    assert with_transcripts(MediaStore(tmp_path), LISTINGS, []) == (LISTINGS, 0)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"txt": "12_ab_0# a\nno mark\n"}, f"{AUTHORS}, line 2: expected `<recording>#<text>`"),
        ({"txt": "12_ab_0# a\n12_ab_0# b\n"}, f"{AUTHORS}, line 2: '12_ab_0' has another"),
        ({"txt": "99_zz_0# a\n"}, "no transcript is of an utterance of this corpus"),
        ({"csv": "name,text\n12_ab_0,a\n"}, "mine.csv: expected columns id and text, not name"),
        ({"csv": "id,text\n12_ab_0\n"}, "mine.csv, line 2: expected 2 cells"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(BrewlineError, match=message):
        read(tmp_path, **files)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrewlineError, match=r"has no other\.txt"):
        with_transcripts(MediaStore(tmp_path), LISTINGS, ["other.txt"])
