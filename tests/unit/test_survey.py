"""Whether a place is as it was, without reading it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from brewline.core.survey import files_at, survey


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.wav").write_bytes(b"1234")
    (folder / "deep/b.wav").write_bytes(b"12")
    return folder


def test_files_are_listed_by_their_paths_below_the_place(place: Path) -> None:
    assert [(name, size) for name, size, _ in files_at(place)] == [("a.wav", 4), ("deep/b.wav", 2)]
    assert files_at(place)[0][2] == (place / "a.wav").stat().st_mtime_ns
    assert [(name, size) for name, size, _ in files_at(place / "a.wav")] == [("", 4)]
    assert files_at(place / "nothing") == []
    found = survey(files_at(place))
    assert (found["files"], found["size"]) == (2, 6)


def later(path: Path) -> None:
    facts = path.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))


def swap(place: Path) -> None:
    (place / "a.wav").rename(place / "c")
    (place / "deep/b.wav").rename(place / "a.wav")
    (place / "c").rename(place / "deep/b.wav")


@pytest.mark.parametrize(
    "change",
    [
        lambda place: (place / "c.wav").write_bytes(b""),
        lambda place: (place / "a.wav").unlink(),
        lambda place: (place / "a.wav").rename(place / "A.wav"),
        lambda place: (place / "a.wav").rename(place / "deep/a.wav"),
        lambda place: (place / "a.wav").write_bytes(b"12345"),
        lambda place: later(place / "deep/b.wav"),
        swap,
        lambda place: (place / "caf\udce9.wav").write_bytes(b""),
    ],
    ids=["added", "removed", "renamed", "moved", "grown", "same size", "swapped", "no UTF-8"],
)
def test_every_change_is_noticed(place: Path, change: Callable[[Path], object]) -> None:
    before = survey(files_at(place))
    change(place)
    assert survey(files_at(place))["digest"] != before["digest"]


def test_what_no_corpus_means_changes_nothing(place: Path) -> None:
    before = survey(files_at(place))
    (place / ".DS_Store").write_bytes(b"1")
    (place / "deep/.hidden").mkdir()
    (place / "deep/.hidden/c.wav").write_bytes(b"1")
    (place / "__MACOSX").mkdir()
    (place / "__MACOSX/a.wav").write_bytes(b"1")
    (place / "empty").mkdir()
    os.mkfifo(place / "pipe")
    (place / "nowhere").symlink_to("gone")
    assert survey(files_at(place)) == before


def test_a_link_stands_for_the_file_that_it_leads_to(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.wav"
    target.write_bytes(b"123")
    (place / "link.wav").symlink_to(target)
    before = survey(files_at(place))
    assert before["files"] == 3
    target.write_bytes(b"1234")
    assert survey(files_at(place)) != before
