"""Whole or absent."""

from pathlib import Path

import pytest

from brewline.core import files
from brewline.core.files import (
    atomic_path,
    fingerprint,
    move_folder,
    sha256_tree,
    write_json,
)


def test_a_failing_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "out"
    for content in ("first", "second"):
        with atomic_path(path) as partial:
            partial.mkdir()
            (partial / content).write_text(content)
    assert [p.name for p in path.iterdir()] == ["second"]


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial/rubbish").write_text("x")
    with atomic_path(tmp_path / "out") as partial:
        partial.mkdir()
    assert list((tmp_path / "out").iterdir()) == []


def test_equal_json_gives_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "y": [2.5]})
    write_json(tmp_path / "b", {"y": [2.5], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "c", float("nan"))


def test_tree_hash_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = sha256_tree(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = sha256_tree(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({before, renamed, sha256_tree(tmp_path)}) == 3


def test_fingerprint_depends_on_parameters_inputs_and_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "input"
    source.write_text("1")
    names = {fingerprint({"a": 1}, [source]), fingerprint({"a": 2}, [source])}
    source.write_text("2")
    names.add(fingerprint({"a": 1}, [source]))
    core = tmp_path / "package/core"
    core.mkdir(parents=True)
    (core / "files.py").write_text("other code")
    monkeypatch.setattr(files, "__file__", str(core / "files.py"))
    names.add(fingerprint({"a": 1}, [source]))
    assert len(names) == 4


def test_a_folder_moves_to_its_place_on_one_disk_and_on_two(tmp_path: Path) -> None:
    places = [tmp_path / "work"]
    other = Path("/dev/shm")
    if other.is_dir() and other.stat().st_dev != tmp_path.stat().st_dev:
        places.append(other / f"brewline-{tmp_path.name}-{tmp_path.parent.name}")
    for number, source in enumerate(places):
        source.mkdir()
        (source / "new").write_text(str(number))
        target = tmp_path / "data/shards"
        target.mkdir(parents=True, exist_ok=True)
        (target / f"old{number}").touch()
        move_folder(source, target)
        assert not source.exists()
        assert [path.name for path in target.iterdir()] == ["new"]
        assert [path.name for path in target.parent.iterdir()] == ["shards"]
    if len(places) == 1:
        pytest.skip("this system has no second file system at /dev/shm")
