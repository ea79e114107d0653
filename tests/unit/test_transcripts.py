"""Transcripts that are imported: both forms, and what is wrong with them."""

from pathlib import Path

import pytest

from brewline.core.errors import BrewlineError
from brewline.corpora.reading import safe_id
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


SPEAKERS = [
    Listing("a", "test", "wavs/spk1/001.wav", "1"),
    Listing("b", "test", "wavs/spk2/001.wav", "2"),
    Listing("c", "test", "wavs/spk2/002.wav", "2"),
    Listing("d", "test", "wavs/xspk2/002.wav", "2"),
]


def of_speakers(folder: Path, table: str) -> list[str | None]:
    (folder / "t.csv").write_text(f"id,text\n{table}")
    found, unused = with_transcripts(MediaStore(folder), SPEAKERS, ["t.csv"])
    assert not unused
    return [row.transcript for row in found]


@pytest.mark.parametrize(
    "form", ["{}", "{}.wav", "wavs/{}", "wavs/{}.wav", "./wavs/{}.wav", "wavs\\{}"]
)
def test_recordings_are_named_by_their_paths(tmp_path: Path, form: str) -> None:
    keys = [form.format(name) for name in ("spk1/001", "spk2/001", "spk2/002")]
    if "\\" in form:
        keys = [key.replace("/", "\\") for key in keys]
    table = "".join(f"{key},{number}\n" for number, key in enumerate(keys))
    assert of_speakers(tmp_path, table) == ["0", "1", "2", None]


def test_a_name_of_two_recordings_is_neither(tmp_path: Path) -> None:
    for key, paths in (
        ("001", "wavs/spk1/001.wav or wavs/spk2/001.wav"),
        ("002", "wavs/spk2/002.wav or wavs/xspk2/002.wav"),
    ):
        with pytest.raises(BrewlineError, match=f"t.csv, line 3: '{key}' may be {paths}; name"):
            of_speakers(tmp_path, f"a,one\n{key},two\n")


def test_accents_and_made_ids_of_a_table(tmp_path: Path) -> None:
    listings = [
        Listing("x", "test", "jos\u00e9.wav", "1"),
        Listing(safe_id("take 2"), "test", "b.wav", "1"),
    ]
    (tmp_path / "t.csv").write_text("id,text\njose\u0301,one\ntake 2,two\n")
    found, _ = with_transcripts(MediaStore(tmp_path), listings, ["t.csv"])
    assert [row.transcript for row in found] == ["one", "two"]


def test_of_two_rows_with_one_id_each_has_its_transcript(tmp_path: Path) -> None:
    listings = [Listing("x", "test", "a.wav", "1"), Listing("x", "test", "b.wav", "1")]
    (tmp_path / "t.csv").write_text("id,text\nx,one\n")
    found, _ = with_transcripts(MediaStore(tmp_path), listings, ["t.csv"])
    assert [row.transcript for row in found] == ["one", "one"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"txt": "12_ab_0# a\nno mark\n"}, f"{AUTHORS}, line 2: expected `<recording>#<text>`"),
        ({"txt": "12_ab_0# a\n12_ab_0# b\n"}, f"{AUTHORS}, line 2: '12_ab_0' has another"),
        ({"txt": "99_zz_0# a\n"}, "no transcript is of an utterance of this corpus"),
        ({"csv": "name,text\n12_ab_0,a\n"}, "mine.csv: expected columns id and text, not name"),
        (
            {"csv": "id,text\n12_ab_0,a\nwavs/12_ab_0.wav,b\n"},
            "mine.csv, line 3: 'wavs/12_ab_0.wav' has another transcript before",
        ),
        ({"csv": "id,text\n12_ab_0\n"}, "mine.csv, line 2: expected 2 cells"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(BrewlineError, match=message):
        read(tmp_path, **files)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrewlineError, match=r"has no other\.txt"):
        with_transcripts(MediaStore(tmp_path), LISTINGS, ["other.txt"])
