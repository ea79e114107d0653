"""Ray: machines of a cluster that are lost, drivers that are killed, who does not fit."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import alive, words_of

from brewline.core import ray_engine
from brewline.core.engine import Job, Processes, run_units
from brewline.core.engines import open_engine
from brewline.core.errors import BrewlineError
from brewline.core.files import sha256_tree, write_text
from brewline.core.ray_engine import RayCluster
from brewline.core.workers import Worker

ray = pytest.importorskip("ray")

HERE = Path(__file__).parent


def _visit(pause_s: float, task: str) -> dict[str, Any]:
    begun = time.time()
    time.sleep(pause_s)
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"gpu": shown, "pid": os.getpid(), "begun": begun, "ended": time.time()}


@dataclass(frozen=True)
class Visits(Job[str, str, Any, str]):
    """Each unit writes a file, and a line in the log of who did it, where and when."""

    folder: Path
    pause_s: float = 0.0
    on_gpu: bool = False
    limit_s: float = 60.0

    def prepare(self) -> Callable[[str], Any]:
        return partial(_visit, self.pause_s)

    def is_done(self, unit: str) -> bool:
        return (self.folder / "done" / unit).exists()

    def do(self, unit: str, worker: Worker[str, Any]) -> Iterator[str]:
        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
        self._log(unit=unit, node=node)
        if unit == "bad":
            raise BrewlineError("the picture is no picture")
        if unit == "deadly":
            os._exit(1)
        [answer] = worker.map([unit])
        self._log(unit=unit, node=node, **answer)
        write_text(self.folder / "done" / unit, f"what {unit} is")
        yield unit

    def _log(self, **facts: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("a") as log:
            log.write(json.dumps(facts) + "\n")

    def begun(self) -> list[dict[str, Any]]:
        return [facts for facts in self._lines() if "pid" not in facts]

    def ended(self) -> list[dict[str, Any]]:
        return [facts for facts in self._lines() if "pid" in facts]

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]


def drive(folder: str, address: str, *units: str) -> None:
    """A driver of its own, which may be killed."""
    with open_engine("ray", workers=2, ray_address=address) as engine:
        for unit in run_units(engine, Visits(Path(folder), pause_s=0.5), units):
            sys.stdout.write(f"{unit}\n")
            sys.stdout.flush()


def start_driver(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """Starts `drive` in a process group of its own, and a session that a terminal would have."""
    # Who was started in the background by a shell ignores Ctrl-C, and so do its children.
    command = (
        "import signal, sys, test_ray; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "test_ray.drive(*sys.argv[1:])"
    )
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    environment |= {"PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}
    return subprocess.Popen(
        [sys.executable, "-c", command, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=inherited | environment,
    )  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head with two GPUs that are not there; others join it."""
    from ray.cluster_utils import Cluster

    # It notices in seconds that a machine is lost.
    quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
    args = {"num_cpus": 2, "num_gpus": 2, "include_dashboard": False, "_system_config": quick}
    # A node that is started in a process leaves its own handler there.
    before = signal.getsignal(signal.SIGTERM)
    cluster = Cluster(initialize_head=True, head_node_args=args)
    try:
        yield cluster
    finally:
        cluster.shutdown()
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_a_machine_that_is_lost_costs_no_unit(cluster: Any, tmp_path: Path) -> None:
    other = cluster.add_node(num_cpus=2)
    job = Visits(tmp_path, pause_s=1.0)
    units = [f"unit-{number}" for number in range(12)]
    done = []
    with RayCluster(cluster.address, workers=1) as engine:
        for unit in run_units(engine, job, units):
            done.append(unit)
            # Both machines were at work when one of them is lost.
            if len(done) == 4:
                assert {facts["node"] for facts in job.begun()} >= {other.node_id}
                cluster.remove_node(other, allow_graceful=False)
    assert len({facts["node"] for facts in job.begun()}) == 2
    assert all(job.is_done(unit) for unit in units)
    # What it had in work was begun once more.
    assert len(job.begun()) > len(units)


@pytest.mark.slow
def test_a_unit_has_a_gpu_and_the_next_one_finds_the_model_loaded(
    cluster: Any, tmp_path: Path
) -> None:
    job = Visits(tmp_path, pause_s=0.7, on_gpu=True)
    units = [f"unit-{number}" for number in range(8)]
    with RayCluster(cluster.address, workers=1) as engine:
        assert engine.num_gpus() == 2
        list(run_units(engine, job, units))
    ended = job.ended()
    assert {facts["gpu"] for facts in ended} == {"0", "1"}
    for gpu in ("0", "1"):
        own = sorted((facts for facts in ended if facts["gpu"] == gpu), key=lambda f: f["begun"])
        assert all(a["ended"] <= b["begun"] for a, b in pairwise(own))
    pairs = [(a, b) for a in ended for b in ended if a["gpu"] < b["gpu"]]
    assert any(a["begun"] < b["ended"] and b["begun"] < a["ended"] for a, b in pairs)
    assert len({facts["pid"] for facts in ended}) < len(units)


@pytest.mark.slow
def test_a_unit_that_ends_its_process_is_given_up_alone(cluster: Any, tmp_path: Path) -> None:
    job = Visits(tmp_path)
    with (
        RayCluster(cluster.address, workers=1) as engine,
        pytest.raises(BrewlineError, match=r"1 of 3 parts .* it took 4 processes .* with it"),
    ):
        list(run_units(engine, job, ["one", "deadly", "two"]))
    assert job.is_done("one") and job.is_done("two")
    assert [facts["unit"] for facts in job.begun()].count("deadly") == 4


@pytest.mark.slow
def test_who_does_not_fit_is_told_in_one_sentence(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Visits(tmp_path)
    with RayCluster(cluster.address, workers=1) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(ray_engine.Path, "cwd", lambda: Path("/mnt/only-here"))
            with pytest.raises(BrewlineError, match=r"does not see /mnt/only-here .*same place"):
                list(run_units(engine, job, ["one", "two"]))
        with monkeypatch.context() as patch:
            patch.setattr(ray_engine, "installed_version", lambda: "9.9")
            with pytest.raises(BrewlineError, match=r"has Brewline [\d.]+ instead of 9\.9"):
                list(run_units(engine, job, ["one", "two"]))
        with monkeypatch.context() as patch:
            patch.setattr(ray_engine, "_PATIENCE_S", 0.0)
            patch.setattr(ray_engine, "_LOOK_EVERY_S", 0.1)
            patch.setattr(engine, "_capacity", lambda resource: 0)
            patch.setattr(ray, "wait", lambda refs, **_: ([], refs))
            with pytest.raises(BrewlineError, match="no machine of the Ray cluster has had a CPU"):
                list(run_units(engine, job, ["one", "two"]))
        list(run_units(engine, job, ["one", "two"]))
    version = "ray._private.utils.compute_version_info"
    monkeypatch.setattr(version, lambda: ("2.59.0", "3.11.1"))
    with pytest.raises(BrewlineError, match=r"the same Ray and Python: .*Ray: 2\.59\.0"):
        RayCluster(cluster.address, workers=1).__enter__()
    assert not ray.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_whoever_is_ended_leaves_nothing_behind(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    # More than it will come to.
    units = [f"unit-{number}" for number in range(400)]
    # What is in the environment is not joined by surprise.
    elsewhere = {"HOME": str(home), "RAY_ADDRESS": "127.0.0.1:1"}
    driver = start_driver(str(tmp_path / "out"), "local", *units, **elsewhere)
    assert driver.stdout and driver.stderr
    assert driver.stdout.readline()
    processes, logs = _processes_and_logs(driver)
    assert any("raylet" in process.name() for process in processes)
    # Ctrl-C reaches the whole group.
    os.killpg(driver.pid, number) if number is signal.SIGINT else driver.send_signal(number)
    words = driver.communicate(timeout=60)[1]
    assert driver.returncode == (128 + number if number is signal.SIGTERM else -number), words
    assert not alive(processes, 20)
    assert not logs.exists()
    assert list(home.iterdir()) == []
    assert "SIGTERM" not in words and "raylet" not in words
    assert not all(Visits(tmp_path / "out").is_done(unit) for unit in units)


@pytest.mark.slow
def test_a_driver_that_was_killed_goes_on_where_it_was(cluster: Any, tmp_path: Path) -> None:
    job = Visits(tmp_path / "killed")
    units = [f"unit-{number}" for number in range(10)]
    driver = start_driver(str(job.folder), "local", *units)
    assert driver.stdout and driver.stderr
    for _ in range(3):
        assert driver.stdout.readline()
    processes, logs = _processes_and_logs(driver)
    driver.kill()
    driver.communicate()
    # Two agents of Ray's, which hold nothing, notice it after a minute.
    at_work = [process for process in processes if "Agent" not in " ".join(words_of(process))]
    assert len(at_work) > 5
    assert not alive(at_work, 30)
    shutil.rmtree(logs, ignore_errors=True)
    done = {unit for unit in units if job.is_done(unit)}
    assert 3 <= len(done) < len(units)
    times = {unit: (job.folder / "done" / unit).stat().st_mtime_ns for unit in done}
    with RayCluster(cluster.address, workers=1) as engine:
        assert {*run_units(engine, job, units)} == {*units} - done
    assert times == {unit: (job.folder / "done" / unit).stat().st_mtime_ns for unit in done}
    local = Visits(tmp_path / "processes")
    list(run_units(Processes(2), local, units))
    assert sha256_tree(job.folder / "done") == sha256_tree(local.folder / "done")


def _processes_and_logs(driver: "subprocess.Popen[str]") -> tuple[list[psutil.Process], Path]:
    """What a driver has started, and where Ray writes its logs."""
    processes = psutil.Process(driver.pid).children(recursive=True)
    found = re.search(
        r"/tmp/ray-\w+", " ".join(word for one in processes for word in words_of(one))
    )
    assert found
    return processes, Path(found[0])


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("ray://head:10001", r"ray_address \(ray://head:10001\) is that of a Ray client"),
        ("head", r"ray_address \(head\) is neither local nor auto"),
        ("127.0.0.1:1", r"no Ray cluster answers at runtime.ray_address \(127.0.0.1:1\)"),
    ],
)
def test_where_no_cluster_is_one_sentence_says_so(address: str, sentence: str) -> None:
    with pytest.raises(BrewlineError, match=sentence):
        RayCluster(address, workers=1).__enter__()


def test_what_the_environment_names_is_looked_at_for_auto_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(BrewlineError, match=r"RAY_ADDRESS \(ray://head:10001\) is that of a Ray"):
        RayCluster("auto", workers=1).__enter__()


def test_without_ray_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BrewlineError, match=r"needs Ray .*\[ray\]"):
        RayCluster("local", workers=1).__enter__()
