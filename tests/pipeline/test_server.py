"""The project's own Prefect server, and who holds its compute slot."""

import os
import signal
from pathlib import Path

import pytest
import requests

from flows.server import COMPUTE_SLOT, Service, prefect_server

pytestmark = pytest.mark.slow


def limits(server: Service) -> str:
    return f"{server.url}/v2/concurrency_limits"


def taken_slots(server: Service) -> int:
    return int(requests.get(f"{limits(server)}/{COMPUTE_SLOT}", timeout=30).json()["active_slots"])


def test_the_slot_of_who_was_killed_is_free_and_of_who_lives_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_HOME", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    with prefect_server(tmp_path) as server:
        requests.post(
            f"{limits(server)}/", json={"name": COMPUTE_SLOT, "limit": 1}, timeout=30
        ).raise_for_status()
        requests.post(
            f"{limits(server)}/increment-with-lease",
            json={"names": [COMPUTE_SLOT], "slots": 1, "lease_duration": 3600},
            timeout=30,
        ).raise_for_status()
        assert taken_slots(server) == 1
        with prefect_server(tmp_path) as another:
            assert taken_slots(another) == 1
        assert server.child is not None
        os.killpg(server.child.pid, signal.SIGKILL)
    with prefect_server(tmp_path) as server:
        assert taken_slots(server) == 0
