"""Whole or absent."""

import zipfile
from pathlib import Path

import pytest

from brewline.core import files
from brewline.core.files import atomic_path, fingerprint, sha256_tree, write_json


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


@pytest.mark.parametrize("content", [None, "", '{"a": ', "\x00\x00"])
def test_partial_json_that_is_damaged_is_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    assert files.read_partial_json(path, "it is made again") is None
    told = capsys.readouterr().err
    assert told.endswith("set aside as run.json.damaged; it is made again\n") == bool(told)
    assert bool(told) == (content is not None)
    assert not path.exists()


def test_every_cut_of_a_zip_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one", b"content" * 9)
    assert files.is_whole_zip(path)
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        assert not files.is_whole_zip(path)
    start = content.index(b"content")
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        whole = files.is_whole_zip(path)
        assert not (whole and start <= place < start + 63)
