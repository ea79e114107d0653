"""The project's own Prefect server: it comes back, schedules, and knows who lives."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from driving import wait_for

from brewline.core.errors import BrewlineError
from flows.dead_runs import alive
from flows.server import Service, answers, known_api_url, prefect_server

pytestmark = pytest.mark.slow


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has configured a server, and a proxy that is not there stands before the network."""
    for name in ("PREFECT_HOME", "PREFECT_API_URL", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


@pytest.fixture
def server(alone: None, tmp_path: Path) -> Iterator[Service]:
    with prefect_server(tmp_path) as running:
        yield running


def ask(server: Service, path: str, **body: Any) -> Any:
    for _ in range(60):
        answer = requests.post(f"{server.url}/{path}", json=body, timeout=30)
        # It says 503 while its database is busy.
        if answer.status_code != requests.codes.unavailable:
            break
        time.sleep(0.5)
    assert answer.ok, answer.text
    return answer.json()


def make_run(server: Service, name: str) -> str:
    """A flow run that Prefect believes to be running."""
    flow = ask(server, "flows/", name="nobody's")
    run = ask(server, "flow_runs/", flow_id=flow["id"], name=name, state={"type": "RUNNING"})
    return str(run["id"])


def state(server: Service, run: str) -> str:
    found = requests.get(f"{server.url}/flow_runs/{run}", timeout=30).json()
    return str(found["state"]["type"])


def test_a_killed_server_is_there_again_with_what_it_knew(
    server: Service, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(server, "before")
    assert server.child is not None
    first = server.child.pid
    os.killpg(first, signal.SIGKILL)
    wait_for(lambda: server.child and server.child.pid != first, 10)
    wait_for(lambda: answers(server.ready_url), 60)
    assert state(server, run) == "RUNNING"
    assert "the Prefect server ended" in capfd.readouterr().err


def test_the_next_server_ends_runs_whose_process_is_gone(alone: None, tmp_path: Path) -> None:
    with prefect_server(tmp_path) as server:
        dead, living = make_run(server, "dead"), make_run(server, "living")
    with alive(tmp_path, living), prefect_server(tmp_path) as server:
        assert state(server, dead) == "CRASHED"
        assert state(server, living) == "RUNNING"
        found = requests.get(f"{server.url}/flow_runs/{dead}", timeout=30).json()
        assert "its process is gone" in found["state"]["message"]


def test_a_schedule_makes_runs_and_the_server_complains_of_nothing(server: Service) -> None:
    """With another SQLAlchemy the scheduler failed each time, and only the server's log said so."""
    flow = ask(server, "flows/", name="scheduled")
    ask(
        server,
        "deployments/",
        name="often",
        flow_id=flow["id"],
        schedules=[{"schedule": {"interval": 60}, "active": True}],
    )
    wait_for(
        lambda: ask(server, "flow_runs/filter", flows={"id": {"any_": [flow["id"]]}}),
        90,
    )
    log = server.log.read_text()
    complaints = [line for line in log.splitlines() if "ERROR" in line or "Traceback" in line]
    assert not complaints


def test_a_configured_server_that_is_not_there_is_one_sentence(
    alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://user:secret@127.0.0.1:9/api")
    with pytest.raises(BrewlineError, match="no Prefect server answers at PREFECT_API_URL") as told:
        known_api_url(tmp_path)
    assert "secret" not in str(told.value)


def test_a_server_that_dies_again_and_again_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it is told, instead of being kept waiting for ever."""
    answer = "import http.server as h; h.HTTPServer(('127.0.0.1', {}), h.SimpleHTTPRequestHandler)"
    monkeypatch.setattr("flows.server._LOOK_EVERY_S", 0.05)
    from flows.server import free_port

    port = free_port()
    service = Service(
        "small server",
        f"http://127.0.0.1:{port}",
        f"http://127.0.0.1:{port}",
        tmp_path / "log",
        # Answers once and ends.
        [sys.executable, "-c", f"{answer.format(port)}.handle_request()"],
        os.environ,
    )
    with service.running():
        service.wait_until_ready()
        wait_for(lambda: _killed(service) or service.gave_up, 30)
        assert service.gave_up


def _killed(service: Service) -> bool:
    """Kills it once more; False, so that it is looked at again."""
    assert service.child is not None
    if service.child.poll() is None:
        subprocess.run(["kill", "-9", str(service.child.pid)], check=False)
    return False
