"""Inputs that are damaged or hostile: each ends in one sentence, and costs no more than itself."""

import io
import json
import struct
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pyarrow
import pyarrow.parquet
import pytest
from world import encode_audio, tone, tone_limits, write_facts, write_tar

from brewline.config.sources import SourceParams
from brewline.config.validate import ValidateParams
from brewline.core.errors import BrewlineError
from brewline.corpora.readers import READERS
from brewline.download.whole import check_whole
from brewline.media import parquet_tables
from brewline.media.archives import MediaStore
from brewline.media.containers import LocalFile
from brewline.pages.players import Players
from brewline.quality.checks import Fault
from brewline.quality.results import write_tables
from brewline.quality.verdicts import Judge, judge_listings
from brewline.tables.listing import Listing
from brewline.tables.parquet import read_frame, read_table

LIMITS = ValidateParams(**tone_limits())
MB = 1 << 20


def listings(folder: Path) -> list[Listing]:
    """What the table `i.jsonl` or `i.csv` in a folder lists."""
    index = next(path.name for path in folder.iterdir() if path.stem == "i")
    source = SourceParams(reader="folder", licence="", files={}, index=index, dev_fraction=0.0)
    return READERS["folder"](MediaStore(folder), source)


def validated(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of manifest and quarantine of a corpus of one's own."""
    listed = listings(folder)
    good, bad = folder / "good", folder / "bad"
    store = MediaStore(folder)
    with tempfile.TemporaryDirectory() as beside:
        facts = Path(beside, "facts")
        write_facts(store, listed, facts)
        write_tables(Judge(store, facts, LIMITS).corpus(listed), "mine", good, bad)
    rows = read_table(good), read_table(bad)
    assert sorted(row["utterance_id"] for table in rows for row in table) == sorted(
        row.utterance_id for row in listed
    )
    return rows


def write_media(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).write_bytes(encode_audio(tone(number, 1.0), "WAV", "PCM_16"))


DEEP = b"[" * 200_000 + b"]" * 200_000
BROKEN = {
    "latin-1 speaker": (b'{"audio": "b.wav", "split": "test", "speaker": "Jos\xe9"}', "bad_text"),
    "lone surrogate": (
        b'{"audio": "b.wav", "split": "test", "speaker": "a\\ud800b"}',
        "bad_text",
    ),
    "latin-1 path": (b'{"audio": "Jos\xe9.wav", "split": "test"}', "bad_text"),
    "latin-1 picture": (b'{"audio": "b.wav", "image": "\xe9.jpg", "split": "test"}', "bad_text"),
    "surrogate in a path": (b'{"audio": "\\udce9.wav", "split": "test"}', "bad_text"),
    "bad caption": (b'{"audio": "b.wav", "split": "test", "caption": "\xff"}', "bad_text"),
    "bad split": (b'{"audio": "b.wav", "split": "t\xe9st"}', "bad_record"),
    "deep": (b'{"audio": "b.wav", "split": "test", "caption": ' + DEEP + b"}", "bad_record"),
    "digits": (b'{"audio": "b.wav", "split": "test", "id": ' + b"7" * 10_000 + b"}", "bad_record"),
    "a list": (b"[1]", "bad_record"),
    "no JSON": (b'{"audio": ', "bad_record"),
    "a key twice": (b'{"audio": "b.wav", "audio": "a.wav", "split": "test"}', "bad_record"),
    "a number": (b'{"audio": 7, "split": "test"}', "bad_record"),
    "leaves the folder": (b'{"audio": "..\\\\..\\\\x.wav", "split": "test"}', "bad_record"),
    "NUL": (b'{"audio": "b\\u0000.wav", "split": "test"}', "missing_audio"),
}


def write_broken(folder: Path, lines: list[bytes]) -> None:
    for name in ("a.wav", "b.wav", "José.wav", "é.wav", "é.jpg"):
        (folder / name).write_bytes(b"")
    write_media(folder, "a.wav")
    ok = b'{"audio": "a.wav", "split": "test"}'
    (folder / "i.jsonl").write_bytes(b"\n".join([ok, *lines, b""]))


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_line_is_named(tmp_path: Path, kind: str) -> None:
    line, reason = BROKEN[kind]
    write_broken(tmp_path, [line])
    (_, found), (_, fault) = judge_listings(MediaStore(tmp_path), listings(tmp_path))
    assert found == "a.wav"
    assert isinstance(fault, Fault)
    assert fault.reason == reason
    assert fault.detail.encode()
    assert len(fault.detail) < 400
    if reason == "bad_record":
        assert fault.detail.startswith("i.jsonl, line 2: ")


def test_broken_lines_cost_no_other(tmp_path: Path) -> None:
    write_broken(tmp_path, [line for line, _ in BROKEN.values()])
    (good,), bad = validated(tmp_path)
    assert good["audio_path"] == "a.wav"
    assert Counter(row["reason"] for row in bad) == Counter(reason for _, reason in BROKEN.values())


def test_of_a_latin_1_table_the_lines_in_ascii_are_read(tmp_path: Path) -> None:
    write_media(tmp_path, "a.wav", "b.wav")
    table = "audio,split,speaker\na.wav,test,José\nb.wav,test,Ann\n"
    (tmp_path / "i.csv").write_bytes(table.encode("latin-1"))
    (good,), (bad,) = validated(tmp_path)
    assert (good["speaker_id"], bad["reason"]) == ("Ann", "bad_text")
    assert bad["detail"] == "its speaker_id is no UTF-8 text: Jos\\udce9"


def test_a_recording_that_cannot_be_read_has_no_player_in_the_page(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.wav", b"speech")
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(b"speech", b"spEEch", 1))
    player = Players(MediaStore(tmp_path), 1).player("x.wav")
    assert player == {"uri": "", "note": "cannot be read"}


def test_a_recording_is_not_taken_for_another_of_its_name(tmp_path: Path) -> None:
    """A recording may be stored under another suffix, but not under that of another one."""
    write_media(tmp_path, "dog.mp3", "cat.flac")
    rows = [("dog.wav", "a"), ("dog.mp3", "b"), ("cat.wav", "c")]
    text = "".join(f"{audio},test,{name}\n" for audio, name in rows)
    (tmp_path / "i.csv").write_text("audio,split,id\n" + text)
    good, (bad,) = validated(tmp_path)
    assert sorted(row["utterance_id"] for row in good) == ["b", "c"]
    assert (bad["reason"], bad["detail"]) == (
        "missing_audio",
        "dog.wav is not in the archives",
    )


# Parquet

LONG = "x" * MB


def save(folder: Path, table: Any, **options: Any) -> Path:
    path = folder / "a.parquet"
    pyarrow.parquet.write_table(table, path, store_schema=False, compression="zstd", **options)
    return path


def dictionary(value: str | bytes, count: int) -> Any:
    """An array that says one value many times, and costs it once."""
    indices = pyarrow.array([0] * count, pyarrow.int32())
    return pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array([value]))


def struct_of(column: Any) -> Any:
    return pyarrow.StructArray.from_arrays([column], ["bytes"])


def numbers(count: int) -> Any:
    return pyarrow.array([str(number) for number in range(count)])


@pytest.mark.parametrize("what", ["dictionary", "prefixes", "pages"])
def test_refuses_ids_that_swell(tmp_path: Path, what: str) -> None:
    """Each takes a few hundred bytes for every GB."""
    media = struct_of(dictionary(b"speech", 40_000 if what == "dictionary" else 300))
    if what == "dictionary":
        table, options = pyarrow.table({"id": dictionary(LONG, 40_000), "audio": media}), {}
    else:
        table = pyarrow.table({"id": [LONG] * 300, "audio": media})
        encoding = "DELTA_BYTE_ARRAY" if what == "prefixes" else "PLAIN"
        encodings = {"id": encoding, "audio.bytes": "PLAIN"}
        options = {"use_dictionary": False, "column_encoding": encodings}
    path = save(tmp_path, table, **options)
    assert path.stat().st_size < MB
    start = time.monotonic()
    with pytest.raises(BrewlineError, match=r"a\.parquet is refused: it swells to more than"):
        MediaStore(tmp_path)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("what", ["dictionary", "pages"])
def test_refuses_recordings_that_swell(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_tables, "HARMLESS_BYTES", 16 * MB)
    if what == "dictionary":
        save(
            tmp_path,
            pyarrow.table({"id": numbers(100), "audio": struct_of(dictionary(bytes(MB), 100))}),
        )
        store = MediaStore(tmp_path)
        with pytest.raises(BrewlineError, match="it swells to more than"):
            store.read("audio/7")
        return
    media = struct_of(pyarrow.array([bytes(MB)] * 100))
    save(tmp_path, pyarrow.table({"id": numbers(100), "audio": media}), use_dictionary=False)
    with pytest.raises(BrewlineError, match="it swells to more than"):
        MediaStore(tmp_path)


def test_refuses_texts_that_swell(tmp_path: Path) -> None:
    save(tmp_path, pyarrow.table({"id": numbers(2_000), "text": dictionary(LONG, 2_000)}))
    store = MediaStore(tmp_path)
    with pytest.raises(BrewlineError, match="it swells to more than"):
        for _ in store.rows("a.parquet", ["id", "text"]):
            pass


def varint(number: int) -> bytes:
    """A positive number as Thrift's compact protocol writes it."""
    number *= 2
    parts = []
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def test_what_a_table_says_of_itself_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The footer says how large a column is; the headers of its pages say it too."""
    media = struct_of(pyarrow.array([b"speech"]))
    path = save(tmp_path, pyarrow.table({"id": [LONG], "audio": media}), use_dictionary=False)
    with pyarrow.parquet.ParquetFile(path) as file:
        size = file.metadata.row_group(0).column(0).total_uncompressed_size
    content = path.read_bytes()
    footer = content.rindex(varint(size))
    understated = content[:footer] + content[footer:].replace(varint(size), varint(10_000), 1)
    path.write_bytes(shortened(content, understated))
    assert MediaStore(tmp_path).read(f"audio/{LONG}") == b"speech"
    monkeypatch.setattr(parquet_tables, "HARMLESS_BYTES", MB // 2)
    with pytest.raises(BrewlineError, match="it swells to more than"):
        MediaStore(tmp_path)


def shortened(content: bytes, changed: bytes) -> bytes:
    """The changed file, with the length of its footer as it is now."""
    (length,) = struct.unpack("<I", content[-8:-4])
    length -= len(content) - len(changed)
    return changed[:-8] + struct.pack("<I", length) + b"PAR1"


def test_nulls_in_a_table_are_named(tmp_path: Path) -> None:
    media = [{"bytes": b"speech"}, {"bytes": None}, None]
    save(tmp_path, pyarrow.table({"id": ["a", "b", "c"], "audio": media}))
    store = MediaStore(tmp_path)
    assert store.read("audio/a") == b"speech"
    for number, name in ((1, "b"), (2, "c")):
        with pytest.raises(
            BrewlineError, match=rf"a\.parquet: row {number} of its row group 0 has no bytes"
        ):
            store.read(f"audio/{name}")
    save(tmp_path, pyarrow.table({"id": ["a", None, "c"], "audio": media}))
    with pytest.raises(BrewlineError, match="row 1 of its row group 0 has no id"):
        MediaStore(tmp_path)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pyarrow.array([1.5, 2.5]), "its column id holds double, not text or whole numbers"),
        (pyarrow.array([["a"], ["b"]]), "its column id holds list<"),
        (pyarrow.array([{"bytes": b"x"}] * 2), "its column id holds struct<"),
        (pyarrow.array([b"a", b"b"]), "its column id holds binary"),
    ],
)
def test_ids_of_a_wrong_type_are_named(tmp_path: Path, ids: Any, message: str) -> None:
    save(tmp_path, pyarrow.table({"id": ids, "audio": [{"bytes": b"1"}, {"bytes": b"2"}]}))
    with pytest.raises(BrewlineError, match=message):
        MediaStore(tmp_path)
    with pytest.raises(BrewlineError, match=message):
        list(parquet_tables.ParquetTable(LocalFile(tmp_path / "a.parquet")).rows(["id"]))


def test_bytes_of_a_wrong_type_are_named(tmp_path: Path) -> None:
    save(tmp_path, pyarrow.table({"id": ["a"], "audio": [{"bytes": [1, 2]}]}))
    with pytest.raises(BrewlineError, match=r"its column audio has list<.* for bytes"):
        MediaStore(tmp_path)


def test_two_columns_of_one_name_are_named(tmp_path: Path) -> None:
    ids = pyarrow.array(["a"])
    media = struct_of(pyarrow.array([b"x"]))
    save(tmp_path, pyarrow.Table.from_arrays([ids, ids, media], ["id", "id", "audio"]))
    with pytest.raises(BrewlineError, match="it has two columns id"):
        MediaStore(tmp_path)


def test_ids_may_be_numbers_or_categories_or_no_utf_8(tmp_path: Path) -> None:
    media = [{"bytes": b"1"}, {"bytes": b"2"}]
    save(tmp_path, pyarrow.table({"id": [7, 8], "audio": media}))
    assert MediaStore(tmp_path).read("audio/8") == b"2"
    table = pyarrow.table({"id": dictionary("a", 1), "audio": media[:1]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert MediaStore(tmp_path).names() == ["audio/a"]
    latin_1 = pyarrow.array(["é".encode("latin-1"), b"b"]).view(pyarrow.string())
    save(tmp_path, pyarrow.table({"id": latin_1, "audio": media}))
    store = MediaStore(tmp_path)
    assert store.names() == ["audio/b", "audio/é"]
    assert list(store.rows("a.parquet", ["id"])) == [{"id": "\udce9"}, {"id": "b"}]


def test_a_damaged_table_of_a_stage_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, pyarrow.table({"text": ["some words"] * 1000, "n": list(range(1000))}))
    content = path.read_bytes()
    named = 0
    for position in range(4, len(content), 7):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]
        )
        for read in (read_table, read_frame):
            try:
                read(path)
            except BrewlineError as error:
                named += "is not a whole Parquet file" in str(error)
    assert named > 10


# Tars and zips


def pax(path: Path, headers: dict[str, str], content: bytes) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("x")
        member.size, member.pax_headers = len(content), headers
        archive.addfile(member, io.BytesIO(content))


VERSION_1 = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x"}


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"GNU.sparse.map": "0,x", "GNU.sparse.size": "3"}, b"abc"),
        ({"GNU.sparse.map": "0,3", "GNU.sparse.size": "three"}, b"abc"),
        ({"GNU.sparse.size": "3", "GNU.sparse.offset": "", "GNU.sparse.numbytes": "3"}, b"abc"),
        ({**VERSION_1, "GNU.sparse.realsize": "3"}, b"many\n0\n3\nabc"),
        ({**VERSION_1, "GNU.sparse.realsize": "-"}, b"1\n0\n3\nabc"),
        ({**VERSION_1, "GNU.sparse.realsize": "3"}, b"9"),
        ({"size": "9" * 30}, b"abc"),
    ],
)
def test_a_tar_with_malformed_headers_is_named(
    tmp_path: Path, headers: dict[str, str], content: bytes
) -> None:
    pax(tmp_path / "a.tar", headers, content)
    words = r"a\.tar (is not a whole tar archive|is refused|is damaged at byte)"
    with pytest.raises(BrewlineError, match=words):
        MediaStore(tmp_path)
    # At the download, the first header alone is looked at.
    with suppress(BrewlineError):
        check_whole(tmp_path / "a.tar", "a.tar")


def test_a_malformed_header_is_not_the_end_of_a_tar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some versions of Python take it for that, after they have read on."""
    pax(tmp_path / "a.tar", {"comment": "malformed"}, b"abc")
    plain = tarfile.TarInfo("good.wav").tobuf()
    (tmp_path / "a.tar").write_bytes(plain + (tmp_path / "a.tar").read_bytes())

    def refuse(self: tarfile.TarInfo, archive: tarfile.TarFile) -> NoReturn:
        archive.offset += 2048
        raise tarfile.InvalidHeaderError("invalid header")  # type: ignore[attr-defined]

    monkeypatch.setattr(tarfile.TarInfo, "_proc_pax", refuse)
    with pytest.raises(BrewlineError, match=r"a\.tar is damaged at byte 512"):
        MediaStore(tmp_path)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_tar_with_thousands_of_headers_for_a_member_is_named(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("name")
    member.type, member.size = kind, 12
    one = member.tobuf() + b"12 comment=x\n"[:12].ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(one * 3000 + bytes(1024))
    with pytest.raises(BrewlineError, match=r"a\.tar is (refused|not a whole tar archive)"):
        MediaStore(tmp_path)


def changed_zip(path: Path, offset: int, value: bytes, name: str = "x.wav") -> None:
    """Writes a zip with other bytes in the entry that its directory has."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"speech")
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\1\2") + offset
    content[start : start + len(value)] = value
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("offset", "value", "name"),
    [
        (46, b"\xff\xfe", "éx.wav"),  # a name that says it is UTF-8, and is not
        (6, b"\xff\x00", "x.wav"),  # the version that is needed
        (42, b"\xff\xff\x00\x00", "x.wav"),  # where the member begins
        (20, b"\xff\xff\xff\x7f", "x.wav"),  # how large it is when packed
        (28, b"\x00\x00", "x.wav"),  # how long the name is
    ],
)
def test_a_zip_with_a_damaged_directory_is_named(
    tmp_path: Path, offset: int, value: bytes, name: str
) -> None:
    changed_zip(tmp_path / "a.zip", offset, value, name)
    with pytest.raises(BrewlineError, match=r"a\.zip is (not a whole zip archive|refused)"):
        MediaStore(tmp_path)
    with suppress(BrewlineError):
        check_whole(tmp_path / "a.zip", "a.zip")


# Annotations of the published corpora


def test_a_broken_narrative_costs_itself(tmp_path: Path) -> None:
    row = {
        "image_id": "1",
        "annotator_id": 5,
        "caption": "x",
        "voice_recording": "coco_val/coco_val_1_5.ogg",
    }
    lines = [json.dumps(row).encode(), b'{"caption": ' + DEEP + b"}", b"{}"]
    lines += [
        json.dumps(row | {"caption": 7}).encode(),
        json.dumps(row | {"image_id": []}).encode(),
    ]
    (tmp_path / "coco_val_localized_narratives.jsonl").write_bytes(b"\n".join(lines))
    source = SourceParams(reader="localized_narratives", licence="", files={}, dev_fraction=0.1)
    good, *bad = READERS["localized_narratives"](MediaStore(tmp_path), source)
    assert (good.utterance_id, good.fault) == ("coco_val_1_5", None)
    assert [f"line {number}" in (one.fault or "") for number, one in enumerate(bad, start=2)] == (
        [True] * 4
    )
    assert len({one.utterance_id for one in bad}) == 4


def test_a_broken_entry_of_spokencoco_costs_itself(tmp_path: Path) -> None:
    ok = {"text": "A", "speaker": "m1", "uttid": "m1_1_0", "wav": "wavs/1.wav"}
    image = {"image": "val2014/COCO_val2014_000000000001.jpg", "captions": [ok, ok | {"text": 3}]}
    for part, data in (("train", []), ("val", [image, {"image": 7}, "x"])):
        path = tmp_path / f"SpokenCOCO_{part}.json"
        path.write_text(json.dumps({"data": data}))
    source = SourceParams(reader="spokencoco", licence="", files={}, split="own", dev_fraction=0.1)
    good, *bad = READERS["spokencoco"](MediaStore(tmp_path), source)
    assert good.utterance_id == "m1_1_0"
    assert [one.fault and one.fault.split(":")[0] for one in bad] == [
        "SpokenCOCO_val.json, image 1",
        "SpokenCOCO_val.json, image 2",
        "SpokenCOCO_val.json, image 3",
    ]
    path.write_bytes(b'{"data": ' + DEEP + b"}")
    with pytest.raises(BrewlineError, match=r"SpokenCOCO_val\.json: JSON that is nested too deep"):
        READERS["spokencoco"](MediaStore(tmp_path), source)


def test_a_table_whose_lines_are_all_broken_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "i.jsonl").write_bytes(DEEP + b"\n" + DEEP)
    with pytest.raises(BrewlineError, match=r"i\.jsonl, line 1: JSON that is nested too deep"):
        listings(tmp_path)


def test_a_quote_that_takes_lines_with_it_is_an_error(tmp_path: Path) -> None:
    """What lies between the quotes may have been utterances, so they cannot be accounted for."""
    rows = ["audio,split", "a.wav,test", '"b.wav,test', "c.wav,test", "d.wav,test"]
    (tmp_path / "i.csv").write_text("\n".join(rows))
    with pytest.raises(BrewlineError, match=r"i\.csv, line 3: unexpected end of data"):
        listings(tmp_path)
    rows[4] = 'd.wav",test,x'
    (tmp_path / "i.csv").write_text("\n".join(rows))
    with pytest.raises(BrewlineError, match=r"i\.csv, line 5: expected 2 cells"):
        listings(tmp_path)
    rows[2:] = ['"b.wav"x,test', "c.wav,test"]
    (tmp_path / "i.csv").write_text("\n".join(rows))
    faults = [one.fault for one in listings(tmp_path)]
    assert faults[0] is faults[2] is None
    assert (faults[1] or "").startswith("i.csv, line 3: ")


def test_twins_of_an_archive_cost_their_own_utterance(tmp_path: Path) -> None:
    for number in range(2):
        sound = encode_audio(tone(number, 1.0), "WAV", "PCM_16")
        files = {"x.wav": sound, f"{number}.wav": sound, "README": bytes([number])}
        write_tar(tmp_path / f"{number}.tar", files)
    lines = [json.dumps({"audio": f"{name}.wav", "split": "test"}) for name in "01x"]
    (tmp_path / "i.jsonl").write_text("\n".join(lines))
    good, (bad,) = validated(tmp_path)
    assert sorted(row["utterance_id"] for row in good) == ["0", "1"]
    assert (bad["utterance_id"], bad["reason"]) == ("x", "unreadable")
