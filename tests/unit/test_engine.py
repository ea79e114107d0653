"""Units of work: which are done, which fail alone, what a rerun does; the same for each engine."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from brewline.core.engine import Engine, Job, Processes, choose_units_device, run_units
from brewline.core.engines import open_engine
from brewline.core.errors import BrewlineError
from brewline.core.files import write_text
from brewline.core.workers import Lost, Worker


def _square(task: str) -> int:
    if task == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "hang":
        time.sleep(600)
    if task == "pid":
        return os.getpid()
    return int(task) ** 2


@dataclass(frozen=True)
class Squares(Job[str, str, int, str]):
    """A unit is numbers with commas; its file has their squares, and the place of who was lost."""

    folder: Path
    limit_s: float = 20.0
    has_model: bool = True

    def prepare(self) -> Callable[[str], int]:
        if not self.has_model:
            raise BrewlineError("the model is no model")
        return _square

    def is_done(self, unit: str) -> bool:
        return (self.folder / unit).exists()

    def do(self, unit: str, worker: Worker[str, int]) -> Iterator[str]:
        with (self.folder / "log").open("a") as log:
            log.write(f"{unit}\n")
        if unit == "bad":
            raise BrewlineError("the picture is no picture")
        if unit == "full":
            raise OSError(28, "No space left on device", "/a/disk")
        if unit == "mistake":
            raise LookupError("a mistake of ours")
        answers = list(worker.map(unit.split(",")))
        lines = [one.how if isinstance(one, Lost) else str(one) for one in answers]
        write_text(self.folder / unit, "\n".join(lines))
        yield unit

    def begun(self) -> list[str]:
        return (self.folder / "log").read_text().split()


@pytest.fixture(scope="module", params=["processes", "ray"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with open_engine(request.param, workers=2, ray_address="local") as engine:
        yield engine


def test_units_end_in_files_and_only_what_is_missing_is_done(
    engine: Engine, tmp_path: Path
) -> None:
    job = Squares(tmp_path)
    write_text(tmp_path / "1,2", "from before")
    units = ["1,2", "3", "4,5,6", "7"]
    assert sorted(run_units(engine, job, units)) == ["3", "4,5,6", "7"]
    assert (tmp_path / "4,5,6").read_text() == "16\n25\n36"
    assert (tmp_path / "1,2").read_text() == "from before"
    assert list(run_units(engine, job, units)) == []
    assert sorted(job.begun()) == ["3", "4,5,6", "7"]


def test_what_kills_or_stops_its_process_is_lost_alone(engine: Engine, tmp_path: Path) -> None:
    job = Squares(tmp_path, limit_s=3.0)
    list(run_units(engine, job, ["1,die,2", "3,hang,4", "5,6"]))
    assert (tmp_path / "1,die,2").read_text() == "1\ncrash\n4"
    assert (tmp_path / "3,hang,4").read_text() == "9\ntimeout\n16"
    assert (tmp_path / "5,6").read_text() == "25\n36"


def test_a_unit_that_fails_leaves_the_others_and_the_end_says_so(
    engine: Engine, tmp_path: Path
) -> None:
    job = Squares(tmp_path)
    units = ["1", "bad", "2", "3"]
    with pytest.raises(BrewlineError, match=r"1 of 4 parts .* the picture is no picture"):
        list(run_units(engine, job, units))
    assert all(job.is_done(unit) for unit in ("1", "2", "3"))
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        list(run_units(engine, job, ["mistake", "4"]))
    assert job.is_done("4")


def test_what_would_befall_all_ends_all(engine: Engine, tmp_path: Path) -> None:
    job = Squares(tmp_path)
    units = ["full", *map(str, range(200))]
    with pytest.raises(BrewlineError, match="disk of /a/disk is full"):
        list(run_units(engine, job, units))
    assert len(job.begun()) < 150
    job = Squares(tmp_path, has_model=False)
    with pytest.raises(BrewlineError, match="the model is no model"):
        list(run_units(engine, job, ["a", "b", "c"]))


def test_one_unit_alone_fails_in_its_own_words(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(BrewlineError, match=r"^the picture is no picture$"):
        list(run_units(engine, Squares(tmp_path), ["bad"]))


def test_whoever_stops_ends_the_processes_and_no_task_is_lost(tmp_path: Path) -> None:
    job = Squares(tmp_path)
    stream = run_units(Processes(2), job, ["pid", "hang", "1", "hang,1"])
    assert next(stream) == "pid"
    process = psutil.Process(int((tmp_path / "pid").read_text()))
    stream.close()  # type: ignore[attr-defined]
    assert not process.is_running()
    # The unit in work was given up; nothing says that its task failed.
    assert not job.is_done("hang")


def test_each_gpu_is_shown_to_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5")
    shown = Processes(7)._of_gpus()
    assert [one["CUDA_VISIBLE_DEVICES"] for one in shown] == ["2", "GPU-5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(Processes, "num_gpus", lambda self: 2)
    assert [one["CUDA_VISIBLE_DEVICES"] for one in Processes(7)._of_gpus()] == ["0", "1"]


def test_models_run_where_the_engine_has_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where this machine has them."""
    engine = Processes(1)
    monkeypatch.setattr(Processes, "num_gpus", lambda self: 3)
    assert [choose_units_device(engine, name) for name in ("auto", "cpu", "cuda")] == [
        "cuda",
        "cpu",
        "cuda",
    ]
    monkeypatch.setattr(Processes, "num_gpus", lambda self: 0)
    assert choose_units_device(engine, "auto") == "cpu"
    with pytest.raises(BrewlineError, match="there is no GPU"):
        choose_units_device(engine, "cuda")
