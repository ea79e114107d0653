"""What the machine lacks is one sentence, of a kind that says whether another try can help."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brewline.core.errors import BrewlineError, disk_faults_explained, explain
from brewline.core.programs import exits_cleanly, failure_file


def refused(number: int, place: str | None = "data/x") -> OSError:
    return OSError(number, os.strerror(number), place)


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


OutOfMemoryError.__module__ = "torch"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (refused(errno.ENOSPC), "disk", "the disk of data/x is full; make room"),
        (refused(errno.EDQUOT, None), "disk", "the disk is full; make room and run it again"),
        # As safetensors and SQLite wrap it.
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk", "is full"),
        (refused(errno.EROFS), "disk", "data/x lies on a disk that is read-only"),
        (refused(errno.EACCES), "settings", "may not use data/x; look at its owner"),
        (MemoryError(), "memory", "no memory is left in this machine"),
        (OutOfMemoryError("CUDA out of memory"), "memory", "no memory is left on the GPU"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory", "in this machine"),
    ],
)
def test_what_is_lacking_is_told(error: Exception, kind: str, words: str) -> None:
    told = explain(error)
    assert told is not None
    assert (told.kind, words in str(told)) == (kind, True)
    # Behind an error of a library, too.
    wrapped = RuntimeError("cannot write")
    wrapped.__cause__ = error
    assert str(explain(wrapped)) == str(told)


@pytest.mark.parametrize(
    "error", [ValueError("x"), refused(errno.ENOENT), refused(errno.EACCES, None), KeyError("a")]
)
def test_other_errors_are_not_explained_away(error: Exception) -> None:
    assert explain(error) is None


def test_only_faults_of_the_disk_become_sentences() -> None:
    with pytest.raises(BrewlineError, match="is full"), disk_faults_explained():
        raise refused(errno.ENOSPC)
    with pytest.raises(FileNotFoundError), disk_faults_explained():
        raise refused(errno.ENOENT)


def test_a_full_disk_ends_a_program_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["program"])

    @exits_cleanly
    def program() -> None:
        raise refused(errno.ENOSPC)

    with pytest.raises(SystemExit) as ended:
        program()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: the disk of data/x is full")
    assert json.loads(failure_file("test_errors").read_text())["kind"] == "disk"


def test_no_room_for_the_failure_hides_no_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def refuse(*_: object) -> None:
        raise refused(errno.ENOSPC)

    monkeypatch.setattr("brewline.core.programs.write_json", refuse)
    monkeypatch.setattr(sys, "argv", ["program"])

    @exits_cleanly
    def program() -> None:
        raise refused(errno.ENOSPC)

    with pytest.raises(SystemExit):
        program()
    assert "is full" in capsys.readouterr().err
    assert not failure_file("test_errors").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_is_really_full_is_recognised(tmp_path: Path) -> None:
    """The kernel's own refusal, through a library that writes in another language."""
    code = (
        "import pyarrow, pyarrow.parquet\n"
        "from brewline.core.programs import exits_cleanly\n"
        "@exits_cleanly\n"
        "def main():\n"
        "    table = pyarrow.table({'a': list(range(100_000))})\n"
        "    pyarrow.parquet.write_table(table, '/dev/full')\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "is full; make room" in done.stderr
