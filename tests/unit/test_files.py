"""Whole or absent."""

import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TextIO

import pytest

import brewline
from brewline.core.files import (
    atomic_path,
    fingerprint,
    is_whole_zip,
    move_folder,
    read_partial_json,
    sha256_tree,
    stamps,
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


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".out.0123abcd.partial").mkdir()
    (tmp_path / ".out.0123abcd.partial/rubbish").write_text("x")
    # Somebody else's, who may be at work on it.
    others = [tmp_path / ".out.txt.0123abcd.partial", tmp_path / ".about.0123abcd.partial"]
    for other in others:
        other.write_text("half")
    with atomic_path(tmp_path / "out") as partial:
        partial.mkdir()
    assert list((tmp_path / "out").iterdir()) == []
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "out", *others])


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_two_writers_at_once_leave_one_whole_result(tmp_path: Path, kind: str) -> None:
    """As when a machine that was given up for lost goes on writing."""

    def begin(partial: Path) -> TextIO:
        if kind == "folder":
            partial.mkdir()
        file = (partial / "part" if kind == "folder" else partial).open("w")
        file.write("first half, ")
        file.flush()
        return file

    def finish(file: TextIO) -> None:
        file.write("second half")
        file.close()

    path = tmp_path / "out"
    first, second = atomic_path(path), atomic_path(path)
    files = [begin(first.__enter__()), begin(second.__enter__())]
    finish(files[0])
    first.__exit__(None, None, None)
    part = path / "part" if kind == "folder" else path
    assert part.read_text() == "first half, second half"
    finish(files[1])
    # What he wrote is gone, or has become the same.
    with suppress(OSError) if kind == "folder" else nullcontext():
        second.__exit__(None, None, None)
    assert part.read_text() == "first half, second half"
    assert list(tmp_path.iterdir()) == [path]


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


def test_fingerprint_depends_on_version_parameters_and_inputs(tmp_path: Path) -> None:
    source = tmp_path / "input"
    source.write_text("1")
    names = {fingerprint(1, {"a": 1}, [source]), fingerprint(1, {"a": 2}, [source])}
    names.add(fingerprint(2, {"a": 1}, [source]))
    source.write_text("2")
    names.add(fingerprint(1, {"a": 1}, [source]))
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


def test_a_comment_in_any_module_leaves_partial_work_its_name(tmp_path: Path) -> None:
    """With a package of its own, whose modules are given a comment each."""
    library = Path(brewline.__file__).parent
    package = tmp_path / "brewline"
    shutil.copytree(library, package, ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable,
        "-c",
        "from brewline.core import files; print(files.__file__, files.fingerprint(1, {}, []))",
    ]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    def name() -> str:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        place, found = done.stdout.split()
        assert Path(place).is_relative_to(package)
        return found

    before = name()
    for module in package.rglob("*.py"):
        module.write_text(module.read_text() + "# A remark.\n")
    assert name() == before


def test_stamps_see_a_change_without_opening_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder/large.tar"
    path.write_text("1")
    before = stamps(tmp_path)
    assert before == stamps(tmp_path)
    path.write_text("12")
    path.chmod(0)
    assert [(name, size) for name, size, _ in stamps(tmp_path)] == [("folder/large.tar", 2)]
    assert stamps(tmp_path) != before


@pytest.mark.parametrize("content", [None, "", '{"a": ', "\x00\x00"])
def test_partial_json_that_is_damaged_is_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    assert read_partial_json(path, "it is made again") is None
    told = capsys.readouterr().err
    assert told.endswith("set aside as run.json.damaged; it is made again\n") == bool(told)
    assert bool(told) == (content is not None)
    assert not path.exists()


def test_every_cut_of_a_zip_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one", b"content" * 9)
    assert is_whole_zip(path)
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        assert not is_whole_zip(path)
    start = content.index(b"content")
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        whole = is_whole_zip(path)
        assert not (whole and start <= place < start + 63)
