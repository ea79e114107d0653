"""Reading in place, and what an archive may not hold."""

import tarfile
import zipfile
from pathlib import Path

import pytest
from world import write_tar

from brewline.archives import MediaStore
from brewline.errors import BrewlineError


def test_reads_loose_tar_and_zip_under_one_tree(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("loose")
    write_tar(tmp_path / "b.tar", {"audio/b.ogg": b"in a tar", "audio/c.ogg": b""})
    with zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/d.jpg", b"in a zip" * 100)
        archive.writestr("__MACOSX/images/._d.jpg", b"shadow")
    store = MediaStore(tmp_path)
    assert store.names() == ["audio/b.ogg", "audio/c.ogg", "images/d.jpg", "notes/a.txt"]
    assert store.read("audio/b.ogg") == b"in a tar"
    assert store.read("audio/c.ogg") == b""
    assert store.read("images/d.jpg") == b"in a zip" * 100
    assert store.read_text("notes/a.txt") == "loose"


def test_finds_a_recording_under_another_suffix(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"wavs/x_0.ogg": b"x"})
    store = MediaStore(tmp_path)
    assert store.find("wavs/x_0.wav") == "wavs/x_0.ogg"
    assert store.find("wavs/x_1.wav") is None


@pytest.mark.parametrize("name", ["/etc/passwd", "../up.txt", "a/../../up.txt", "a\\b", ""])
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


def test_refuses_a_name_that_occurs_twice(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"x.ogg": b"1"})
    write_tar(tmp_path / "b.tar", {"x.ogg": b"2"})
    with pytest.raises(BrewlineError, match="occurs twice"):
        MediaStore(tmp_path)


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(BrewlineError, match=r"a\.zip is not a whole zip"):
        MediaStore(tmp_path)


def test_a_missing_folder_says_which_stage_makes_it(tmp_path: Path) -> None:
    with pytest.raises(BrewlineError, match="dvc repro download"):
        MediaStore(tmp_path / "nothing")
