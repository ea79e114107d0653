"""Programs: alone with what they write, and ended by one sentence."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from brewline.core.errors import BrewlineError
from brewline.core.programs import LOCKS, exits_cleanly, failure_file

# A stage that says that it has begun and does not end by itself.
SLEEPER = """
import time
from brewline.core.programs import exits_cleanly

@exits_cleanly
def main():
    print("begun", flush=True)
    time.sleep(60)

main()
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    (tmp_path / "train.py").write_text(SLEEPER)
    return tmp_path


def begin(*arguments: str) -> "subprocess.Popen[str]":
    child = subprocess.Popen(
        [sys.executable, "train.py", *arguments], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    assert child.stdout.readline() == "begun\n"
    return child


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "train.py", *arguments], capture_output=True, text=True, timeout=20
    )


def test_a_second_writer_of_an_output_is_refused_with_the_holder_named() -> None:
    first = begin("corpus", "full")
    try:
        second = run("corpus", "full")
    finally:
        first.kill()
        first.wait()
    assert second.returncode == 1
    assert second.stderr.startswith(
        f"error: process {first.pid} is at work on the outputs of train@corpus@full already; "
    )
    assert second.stderr.count("\n") == 1
    assert json.loads(failure_file("train@corpus@full").read_text())["kind"] == "busy"


def test_another_output_is_nobodys_business_and_a_look_disturbs_nobody() -> None:
    children = [begin("corpus", "full")]
    try:
        children += [begin("corpus", "e2e"), begin("corpus", "full", "--explain")]
    finally:
        for child in children:
            child.kill()
            child.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_however_a_writer_ends_the_next_one_may_begin(number: signal.Signals) -> None:
    first = begin("corpus")
    first.send_signal(number)
    first.wait()
    second = begin("corpus")
    second.kill()
    second.wait()


def test_a_writer_that_fails_frees_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["stage", "corpus"])
    calls: list[Callable[[], None]] = []

    @exits_cleanly
    def main() -> None:
        calls.append(main)
        raise BrewlineError("no such corpus")

    for _ in range(2):
        with pytest.raises(SystemExit):
            main()
    assert len(calls) == 2


def test_how_a_stage_failed_is_told_until_it_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [BrewlineError("no such corpus", "data"), None]

    @exits_cleanly
    def main() -> None:
        error = errors.pop(0)
        if error:
            raise error

    failure = failure_file("test_programs@corpus")
    monkeypatch.setattr(sys, "argv", ["stage", "corpus"])
    with pytest.raises(SystemExit):
        main()
    told = {"stage": "test_programs@corpus", "kind": "data", "message": "no such corpus"}
    assert json.loads(failure.read_text()) == told
    main()
    assert not failure.exists()


def test_no_argument_is_a_path_out_of_the_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["stage", "../../outside", "x" * 400])

    @exits_cleanly
    def main() -> None:
        assert [path.parent for path in LOCKS.rglob("*.lock")] == [LOCKS]

    main()


def test_a_worker_that_outlives_a_killed_stage_holds_nothing() -> None:
    """Else a rerun would be refused for a process that nobody knows of."""
    code = SLEEPER.replace("time.sleep(60)", "__import__('subprocess').run(['sleep', '30'])")
    Path("train.py").write_text(code)
    first = begin("corpus")
    first.kill()
    first.wait()
    second = begin("corpus")
    second.kill()
    second.wait()


def stages_of_names() -> list[str]:
    """The stages of `dvc.yaml` that are run for each of a list."""
    graph = yaml.safe_load((Path(__file__).parents[2] / "dvc.yaml").read_text())
    return [name for name, stage in graph["stages"].items() if "foreach" in stage]


@pytest.mark.parametrize("stage", stages_of_names())
def test_every_stage_says_which_names_it_takes(
    stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(Path(__file__).parents[2] / "params.yaml", "params.yaml")
    monkeypatch.setattr("sys.argv", [stage, "nobody"])
    with pytest.raises(SystemExit):
        import_module(f"brewline.stages.{stage}").main()
    assert "'nobody'" in capsys.readouterr().err
