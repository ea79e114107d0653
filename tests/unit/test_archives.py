"""Reading in place, and what an archive may not hold."""

import gzip
import io
import json
import os
import pickle
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from world import write_tar

from brewline.core.errors import BrewlineError
from brewline.core.survey import files_at, survey
from brewline.media import file_runs, parquet_tables, tars, zips
from brewline.media.archives import MediaStore
from brewline.media.file_runs import FileRuns, PlacedFiles, list_runs, run_length


def test_reads_loose_tar_and_zip_under_one_tree(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("loose")
    write_tar(tmp_path / "b.tar", {"audio/b.ogg": b"in a tar", "audio/c.ogg": b""})
    with zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/d.jpg", b"in a zip" * 100)
        for name in ("__MACOSX/images/d.jpg", "images/._d.jpg", ".DS_Store", "a/__MACOSX/d.jpg"):
            archive.writestr(name, b"shadow")
    store = MediaStore(tmp_path)
    assert store.names() == ["audio/b.ogg", "audio/c.ogg", "images/d.jpg", "notes/a.txt"]
    assert store.read("audio/b.ogg") == b"in a tar"
    assert store.read("audio/c.ogg") == b""
    assert store.read("images/d.jpg") == b"in a zip" * 100
    assert store.read_text("notes/a.txt") == "loose"


def write_targz(path: Path, files: dict[str, bytes]) -> None:
    write_tar(path.with_suffix(".plain"), files)
    path.write_bytes(gzip.compress(path.with_suffix(".plain").read_bytes()))
    path.with_suffix(".plain").unlink()


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, where `work/` may be written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    return tmp_path


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz"])
def test_reads_a_gzipped_tar_at_random(workplace: Path, suffix: str) -> None:
    noise = {f"wavs/{number}.wav": os.urandom(150_000) for number in range(20)}
    write_targz(workplace / f"raw/a{suffix}", noise)
    store = MediaStore(workplace / "raw")
    assert store.names() == sorted(noise)
    for name in ("wavs/19.wav", "wavs/0.wav", "wavs/7.wav"):
        assert store.read(name) == noise[name]
    # The index lies under work/, not in the corpus, which is an output of another stage.
    assert [path.name for path in (workplace / "raw").iterdir()] == [f"a{suffix}"]


def test_a_gzipped_tar_is_gone_through_once(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_targz(workplace / "raw/a.tar.gz", {"x": b"1", "y": b"2"})
    MediaStore(workplace / "raw")
    monkeypatch.setattr(tars, "_list_tar", None)
    assert MediaStore(workplace / "raw").read("y") == b"2"


def test_a_gzipped_tar_that_changed_is_listed_again(workplace: Path) -> None:
    write_targz(workplace / "raw/a.tar.gz", {"x": b"1"})
    MediaStore(workplace / "raw")
    write_targz(workplace / "raw/a.tar.gz", {"new": b"other"})
    assert MediaStore(workplace / "raw").read("new") == b"other"


@pytest.mark.parametrize("damage", ["cut", "flipped", "no gzip"])
def test_a_damaged_gzip_is_named(workplace: Path, damage: str) -> None:
    path = workplace / "raw/a.tar.gz"
    write_targz(path, {str(number): os.urandom(50_000) for number in range(10)})
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes({"cut": content[:-100_000], "no gzip": b"<html>"}.get(damage, content))
    with pytest.raises(BrewlineError, match=r"a\.tar\.gz is not a whole tar"):
        MediaStore(workplace / "raw")


@pytest.mark.parametrize("name", ["members.parquet", "seek-points"])
@pytest.mark.parametrize("content", [b"", b"PAR1 and rubbish", None])
def test_a_damaged_index_is_set_aside_and_made_again(
    workplace: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None
) -> None:
    write_targz(workplace / "raw/a.tar.gz", {"x.txt": b"one", "y.txt": b"two"})
    assert MediaStore(workplace / "raw").read("y.txt") == b"two"
    index = next(Path("work/archives").rglob(name))
    if content is None:
        index.unlink()
    else:
        index.write_bytes(content)
    assert MediaStore(workplace / "raw").read("y.txt") == b"two"
    told = "members.parquet is damaged" in capsys.readouterr().err
    assert told == (content is not None or name == "seek-points")


@pytest.mark.parametrize("at", [1024, 1024 + 124, 1024 + 153])
def test_a_tar_with_a_damaged_header_does_not_just_end_there(tmp_path: Path, at: int) -> None:
    """In a name, a size, and the checksum itself."""
    write_tar(tmp_path / "a.tar", {"x": b"1", "y": b"2"})
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[at] ^= 1
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(BrewlineError, match=r"a\.tar is damaged at byte 1024"):
        MediaStore(tmp_path)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("is_packed", [False, True])
def test_a_tar_is_listed_as_tarfile_lists_it(workplace: Path, format: int, is_packed: bool) -> None:
    """Plain headers are read without tarfile; each of these ones, between them, is not plain."""
    path = workplace / "raw/a.tar"
    folder = "folder-" * 12
    with tarfile.open(path, "w", format=format) as archive:
        for number, name in enumerate(
            (
                "a",
                "b.wav",
                f"{folder}/{folder}",
                "c",
                "é" * 40,
                "d",
                "e/f",
                "g" * 99,
                "h" * 100,
                "i",
            )
        ):
            member = tarfile.TarInfo(name)
            member.size = 0 if name == "c" else 500 * number + 12
            archive.addfile(member, io.BytesIO(bytes([number]) * member.size))
            if name == "d":
                member = tarfile.TarInfo("e")
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
    with tarfile.open(path) as archive:
        expected = {
            member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
            if member.isfile()
        }
    if is_packed:
        path.with_suffix(".tar.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    store = MediaStore(workplace / "raw")
    assert {name: store.read(name) for name in store.names()} == expected


def test_what_a_global_header_says_holds_for_plain_members(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a", "b"):
            archive.addfile(tarfile.TarInfo(name))
        archive.fileobj.write(tarfile.TarInfo.create_pax_global_header({"path": "all"}))  # type: ignore[union-attr]
        archive.offset = archive.fileobj.tell()  # type: ignore[union-attr]
        for name in ("c", "d"):
            archive.addfile(tarfile.TarInfo(name))
    assert MediaStore(tmp_path).names() == ["a", "all", "b"]


@pytest.mark.parametrize("missing", [1, 512, 700, 1100])
def test_a_tar_that_is_cut_within_a_plain_member_is_named(tmp_path: Path, missing: int) -> None:
    write_tar(tmp_path / "a.tar", dict.fromkeys("xyz", b"1" * 1000))
    whole = 3 * (512 + 1024)
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[: whole - missing])
    with pytest.raises(
        BrewlineError, match=r"a\.tar is (not a whole|damaged|refused: its member 'z')"
    ):
        MediaStore(tmp_path)


def media_table(path: Path, column: str, files: dict[str, bytes], **more: Any) -> None:
    """Writes a table as the hub publishes media, two rows to a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    media = [{"bytes": content, "path": None} for content in files.values()]
    table = pyarrow.table({"id": list(files), column: media, **more})
    pyarrow.parquet.write_table(table, path, row_group_size=2)


def test_reads_media_in_parquet_tables(tmp_path: Path) -> None:
    sounds = {str(number): bytes([number]) * 10 for number in range(5)}
    media_table(tmp_path / "audio/train-00000-of-00001.parquet", "audio", sounds)
    media_table(tmp_path / "images/0.parquet", "image", {"p": b"jpg"}, text=["A picture."])
    store = MediaStore(tmp_path)
    assert store.names() == [*(f"audio/{number}" for number in range(5)), "image/p"]
    assert [store.read(f"audio/{name}") for name in "40312"] == [sounds[name] for name in "40312"]
    assert store.tables() == ["audio/train-00000-of-00001.parquet", "images/0.parquet"]
    assert list(store.rows("images/0.parquet", ["text"])) == [{"text": "A picture."}]
    with pytest.raises(BrewlineError, match=r"0\.parquet has no column speaker"):
        list(store.rows("images/0.parquet", ["id", "speaker"]))


def test_reads_sources_where_they_lie(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "raw"
    (outside / "photos/deep").mkdir(parents=True)
    (outside / "photos/deep/a.jpg").write_bytes(b"jpg")
    write_tar(outside / "t.tar", {"wavs/a.wav": b"wav"})
    root.mkdir()
    places = {"Images": outside / "photos", "audio.tar": outside / "t.tar"}
    links = {name: {"path": str(path), **survey(files_at(path))} for name, path in places.items()}
    (root / "links.json").write_text(json.dumps(links))
    store = MediaStore(root)
    assert store.names() == ["Images/deep/a.jpg", "wavs/a.wav"]
    assert store.read("Images/deep/a.jpg") == b"jpg"
    (outside / "photos/b.jpg").write_bytes(b"new")
    with pytest.raises(BrewlineError, match=r"photos has changed since .*dvc repro"):
        MediaStore(root)
    (outside / "t.tar").unlink()
    links.pop("Images")
    (root / "links.json").write_text(json.dumps(links))
    with pytest.raises(BrewlineError, match=r"t\.tar, which is 'audio\.tar' of .*, is gone"):
        MediaStore(root)


def test_files_are_read_without_the_listing(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_runs, "_FEWEST_FILES", 2)
    raw = workplace / "raw"
    write_targz(raw / "a.tar.gz", {"in-gzip": b"1"})
    write_tar(raw / "b.tar", {"in-tar": b"2"})
    with zipfile.ZipFile(raw / "c.zip", "w") as archive:
        archive.writestr("in-zip", b"3")
    (raw / os.fsdecode(b"B\xe4ume.txt")).write_bytes(b"5")
    media_table(raw / "audio/0.parquet", "audio", {"in-parquet": b"4"})
    # Where it lies, it has another name.
    write_tar(workplace / "elsewhere", {"linked": b"6"})
    elsewhere = workplace / "elsewhere"
    links = {"d.tar": {"path": str(elsewhere), **survey(files_at(elsewhere))}}
    (raw / "links.json").write_text(json.dumps(links))
    store = MediaStore(raw)
    names = store.in_stored_order(store.names())
    runs = list_runs(workplace / "list.parquet", store, names)
    assert runs.sizes() == [2, 2, 2]
    files = [file for number in range(3) for file in runs.read(number)]
    assert [file.name for file in files] == names
    reader = PlacedFiles(raw)
    # As it comes out of a pipe.
    contents = [reader.read(pickle.loads(pickle.dumps(file))) for file in files]
    assert contents == [store.read(name) for name in names]
    assert sorted(contents) == [b"1", b"2", b"3", b"4", b"5", b"6"]
    with pytest.raises(BrewlineError, match="has no file 'elsewhere'"):
        store.placed("elsewhere")


def test_a_part_of_a_list_is_read_by_its_numbers(tmp_path: Path) -> None:
    """In any order, across runs, and where one file follows itself."""
    write_tar(tmp_path / "a.tar", {f"{number}": b"%d" % number for number in range(90)})
    write_tar(tmp_path / "b.tar", {"7": b"7"})
    store = MediaStore(tmp_path)
    names = [str(number * 7 % 90) for number in range(90)] + ["7", "7", "8"] * 20
    runs = list_runs(tmp_path / "list.parquet", store, names)
    assert len(runs.sizes()) > 2
    reader = PlacedFiles(tmp_path, in_order=False)
    for part in (slice(0, 5), slice(60, 70), slice(63, 130), slice(88, 95), slice(149, 150)):
        files = runs.files(part)
        assert [file.name for file in files] == names[part]
        assert [reader.read(file).decode() for file in files] == names[part]
    assert len(runs.files(slice(1, 2))[0].places) == 2


def test_how_many_files_a_run_has_depends_on_their_number_alone() -> None:
    for num_files, length in ((0, 64), (1, 64), (1024, 64), (1600, 100), (600_000, 1024)):
        assert run_length(num_files) == length
        runs = FileRuns(Path("list"), num_files, length, 0.0)
        assert sum(runs.sizes()) == num_files
        assert all(0 < size <= length for size in runs.sizes())
        assert set(runs.sizes()[:-1]) <= {length}


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes("\ufeffone\u2028still\x85one\r\ntwo".encode())
    assert list(MediaStore(tmp_path).lines("a.jsonl")) == ["one\u2028still\x85one\n", "two"]


def test_what_is_no_utf_8_spoils_its_own_line_alone(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"good\nb\xff\nfine\n")
    good, bad, fine = MediaStore(tmp_path).lines("b.txt")
    assert (good, fine) == ("good\n", "fine\n")
    with pytest.raises(UnicodeEncodeError):
        bad.encode()


def test_finds_a_recording_under_another_suffix(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"wavs/x_0.ogg": b"x"})
    store = MediaStore(tmp_path)
    assert store.find("wavs/x_0.wav") == "wavs/x_0.ogg"
    assert store.find("wavs/x_1.wav") is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../up.txt",
        "a/../../up.txt",
        "..\\up.txt",
        "a\\..\\..\\up.txt",
        "\\etc\\passwd",
        "\\\\host\\share",
        "C:\\Windows\\x",
    ],
)
def test_refuses_members_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "bad.tar", {name: b"x"})
    with pytest.raises(BrewlineError, match=r"bad\.tar is refused"):
        MediaStore(tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_refuses_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        member = tarfile.TarInfo("x")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(BrewlineError, match="link or a device"):
        MediaStore(tmp_path)


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o010644])
def test_refuses_links_and_devices_in_a_zip(tmp_path: Path, mode: int) -> None:
    entry = zipfile.ZipInfo("x")
    entry.external_attr = mode << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(BrewlineError, match="link or a device"):
        MediaStore(tmp_path)


def test_a_folder_in_a_zip_may_lack_its_slash(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("folder")
    entry.external_attr = 0o040755 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(entry, "")
    assert MediaStore(tmp_path).names() == []


def test_refuses_a_zip_that_swells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "HARMLESS_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.wav", bytes(2 << 20))
    with pytest.raises(
        BrewlineError, match=r"bomb\.zip is refused: .*'zeros\.wav' swells \d+ times"
    ):
        MediaStore(tmp_path)


def test_refuses_a_zip_that_swells_in_many_small_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zips, "HARMLESS_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(str(number), bytes(1 << 18))
    with pytest.raises(BrewlineError, match="swells to more than 100 times its size"):
        MediaStore(tmp_path)


def test_silence_is_no_bomb(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("silent.wav", bytes(1 << 20))
    assert MediaStore(tmp_path).read("silent.wav") == bytes(1 << 20)


@pytest.mark.parametrize("inside", ["a member", "what follows the members"])
def test_refuses_a_gzip_that_swells(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    monkeypatch.setattr(tars, "HARMLESS_BYTES", 1 << 20)
    path = workplace / "raw/bomb.tar.gz"
    write_targz(path, {"zeros": bytes(8 << 20) if inside == "a member" else b"x"})
    if inside != "a member":
        path.write_bytes(path.read_bytes() + gzip.compress(bytes(8 << 20)))
    with pytest.raises(BrewlineError, match=r"bomb\.tar\.gz is refused: .* swells"):
        MediaStore(workplace / "raw")


def test_refuses_a_tar_header_of_gigabytes(workplace: Path) -> None:
    """Python's tarfile reads a long name as a whole, and a gzip holds a thousand times its size."""
    member = tarfile.TarInfo("name")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 7 << 30
    (workplace / "raw/bad.tar.gz").write_bytes(gzip.compress(member.tobuf() + bytes(1 << 20)))
    with pytest.raises(BrewlineError, match=r"headers claims to take 7516192768 bytes"):
        MediaStore(workplace / "raw")


def test_refuses_many_tar_headers_of_one_member(workplace: Path) -> None:
    """Each is small, but tarfile keeps them all until the member itself comes."""
    member = tarfile.TarInfo("name")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1 << 19
    one = member.tobuf() + bytes(1 << 19)
    (workplace / "raw/bad.tar.gz").write_bytes(gzip.compress(one * 50))
    with pytest.raises(BrewlineError, match=r"headers of one of its members take more than"):
        MediaStore(workplace / "raw")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.REGTYPE, "has a negative size"),
        (tarfile.DIRTYPE, "has a negative size"),
        (tarfile.GNUTYPE_LONGNAME, "claims to take -512 bytes"),
    ],
)
def test_refuses_negative_sizes(workplace: Path, kind: bytes, message: str) -> None:
    """A size of -1 means all there is to Python's `read`, and a step back to its tarfile."""
    member = tarfile.TarInfo("x")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"  # -512 in base 256
    header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header[:512]):06o}\0 ".encode()
    (workplace / "raw/bad.tar.gz").write_bytes(gzip.compress(bytes(header) + bytes(1 << 20)))
    with pytest.raises(BrewlineError, match=rf"bad\.tar\.gz is refused: .*{message}"):
        MediaStore(workplace / "raw")


def test_damaged_tables_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"<html>")
    with pytest.raises(BrewlineError, match=r"a\.parquet is not a whole Parquet file"):
        MediaStore(tmp_path)


def test_refuses_a_table_that_is_read_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_tables, "MAX_ROW_GROUP_BYTES", 1 << 10)
    media_table(tmp_path / "a.parquet", "audio", {"x": os.urandom(1 << 11)})
    with pytest.raises(BrewlineError, match=r"one of its row groups takes \d+ bytes"):
        MediaStore(tmp_path)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_refuses_too_many_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(tars if kind == "tar" else zips, "MAX_MEMBERS", 10)
    names = [str(number) for number in range(11)]
    if kind == "tar":
        write_tar(tmp_path / "a.tar", dict.fromkeys(names, b""))
    else:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name in names:
                archive.writestr(name, "")
    with pytest.raises(BrewlineError, match=r"is refused: it has more than 10 members"):
        MediaStore(tmp_path)


def test_refuses_a_zip_with_a_huge_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zips, "MAX_ZIP_DIRECTORY_BYTES", 66_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(1500):
            archive.writestr(str(number), "")
    with pytest.raises(BrewlineError, match=r"its directory takes \d+ bytes"):
        MediaStore(tmp_path)


def test_refuses_an_encrypted_zip(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", "secret")
    content = bytearray(buffer.getvalue())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(BrewlineError, match="'x' is encrypted"):
        MediaStore(tmp_path)


def test_a_zip_member_that_was_damaged_is_no_recording(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.wav", b"speech")
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(b"speech", b"spEEch", 1))
    with pytest.raises(BrewlineError, match=r"a\.zip is damaged after byte 0"):
        MediaStore(tmp_path).read("x.wav")


def test_a_name_that_occurs_twice_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        files = {f"{name}.ogg": b"speech", "README": name.encode(), "LICENSE": b"equal"}
        write_tar(tmp_path / f"{name}.tar", files | {"x.ogg": bytes([number])})
    store = MediaStore(tmp_path)
    assert store.names() == ["LICENSE", "README", "a.ogg", "b.ogg", "x.ogg"]
    assert store.read("a.ogg") == store.read("b.ogg") == b"speech"
    assert store.read_text("LICENSE") == "equal"
    one, twice = list_runs(tmp_path / "list.parquet", store, ["a.ogg", "x.ogg"]).read(0)
    reader = PlacedFiles(tmp_path)
    assert reader.read(one) == b"speech"
    for read in (store.read, store.read_text, lambda _: reader.read(twice)):
        with pytest.raises(
            BrewlineError, match=r"'x\.ogg' lies in .*a\.tar and, with other .* b\.tar|b\.tar$"
        ):
            read("x.ogg")


def test_a_name_that_occurs_twice_in_one_archive(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for content in (b"one", b"two"):
            member = tarfile.TarInfo("x")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(BrewlineError, match="with other content"):
        MediaStore(tmp_path).read("x")


NFC, NFD = "Jos\u00e9/caf\u00e9.wav", "Jose\u0301/cafe\u0301.wav"


@pytest.mark.parametrize(("stored", "listed"), [(NFD, NFC), (NFC, NFD)])
@pytest.mark.parametrize("kind", ["tar", "zip", "folder"])
def test_accents_may_be_written_in_two_ways(
    tmp_path: Path, stored: str, listed: str, kind: str
) -> None:
    if kind == "tar":
        write_tar(tmp_path / "a.tar", {stored: b"speech"})
    elif kind == "zip":
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(stored, b"speech")
    else:
        (tmp_path / stored).parent.mkdir()
        (tmp_path / stored).write_bytes(b"speech")
    store = MediaStore(tmp_path)
    assert store.names() == [NFC]
    assert listed in store
    assert store.find(listed) == NFC
    assert store.find(listed.replace("wav", "ogg")) == NFC
    assert store.read(listed) == b"speech"


@pytest.mark.parametrize("name", ["cafe.jpg", "Café.jpg", "\uff43afé.JPG"])
def test_a_name_that_is_only_spelt_otherwise_is_told_of(tmp_path: Path, name: str) -> None:
    (tmp_path / "café.jpg").write_bytes(b"")
    store = MediaStore(tmp_path)
    assert name not in store
    assert store.absence(name) == (
        f"{name} is not in the archives; 'caf\\xe9.jpg' is, and differs in spelling alone"
    )
    assert store.absence("dog.jpg") == "dog.jpg is not in the archives"


def foreign_zip(path: Path, name: bytes) -> None:
    """Writes a zip whose only member has a name that is not marked as UTF-8."""
    stand_in = "q" * len(name)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(stand_in, b"speech")
    path.write_bytes(path.read_bytes().replace(stand_in.encode(), name))


@pytest.mark.parametrize("encoding", ["utf-8", "cp437", "latin-1"])
def test_names_in_a_zip_may_be_of_older_programs(tmp_path: Path, encoding: str) -> None:
    foreign_zip(tmp_path / "a.zip", "José/ä.wav".encode(encoding))
    store = MediaStore(tmp_path)
    assert store.names() == ["José/ä.wav"]
    assert store.read("José/ä.wav") == b"speech"


@pytest.mark.parametrize("kind", ["a.tar", "a.tar.gz", "loose"])
def test_names_that_are_no_utf_8_are_read_as_latin_1(workplace: Path, kind: str) -> None:
    raw = os.fsdecode("José.wav".encode("latin-1"))
    if kind == "loose":
        (workplace / "raw" / raw).write_bytes(b"speech")
    elif kind == "a.tar":
        write_tar(workplace / "raw/a.tar", {raw: b"speech"})
    else:
        write_targz(workplace / "raw/a.tar.gz", {raw: b"speech"})
    store = MediaStore(workplace / "raw")
    assert store.names() == ["José.wav"]
    assert store.read("José.wav") == b"speech"


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_backslashes_separate_folders(tmp_path: Path, kind: str) -> None:
    if kind == "tar":
        write_tar(tmp_path / "a.tar", {"clips\\ann\\one.wav": b"speech"})
    else:
        foreign_zip(tmp_path / "a.zip", b"clips\\ann\\one.wav")
    store = MediaStore(tmp_path)
    assert store.names() == ["clips/ann/one.wav"]
    assert store.read("clips\\ann\\one.wav") == b"speech"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_a_text_says_how_it_is_encoded(tmp_path: Path, encoding: str) -> None:
    text = "audio,split\nJosé.wav,test\n"
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    store = MediaStore(tmp_path)
    assert store.read_text("a.csv") == text
    assert list(store.lines("a.csv")) == text.splitlines(keepends=True)


def test_a_line_beyond_measure_is_not_read(tmp_path: Path) -> None:
    """The old way took seven times the size of the line in memory."""
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(b"short\n")
        file.truncate(200 << 20)
    lines = MediaStore(tmp_path).lines("a.jsonl")
    assert next(lines) == "short\n"
    tracemalloc.start()
    with pytest.raises(BrewlineError, match=r"a\.jsonl in .*, line 2: more than 33554432 signs"):
        next(lines)
    assert tracemalloc.get_traced_memory()[1] < 150 << 20
    tracemalloc.stop()


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(BrewlineError, match=r"a\.zip is not a whole zip"):
        MediaStore(tmp_path)


def test_a_missing_folder_says_which_stage_makes_it(tmp_path: Path) -> None:
    with pytest.raises(BrewlineError, match="dvc repro download"):
        MediaStore(tmp_path / "nothing")
