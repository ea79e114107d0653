"""The MLflow server goes away while a model trains, and nothing that was measured is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml
from driving import wait_for
from tiny_project import Line, inside

from brewline.config import load_params
from brewline.tracking.recording import record
from flows.server import free_port, mlflow_server

pytestmark = pytest.mark.slow


def test_no_metric_is_lost_when_the_server_goes_away(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = line.copy(tmp_path / "project")
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["recipes"]["mini"] |= {"seeds": [0], "steps": 300, "evaluate_every": 50}
    (project / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    port = free_port()
    model = project / "models/mini-flickr8k-full/seed-0"
    with inside(project):
        with mlflow_server(project, port) as server:
            server.wait_until_ready()
            command = [sys.executable, "-m", "brewline.stages.train", "mini-flickr8k-full"]
            training = subprocess.Popen(
                command,
                env=os.environ | {"MLFLOW_TRACKING_URI": server.url},
                stderr=subprocess.PIPE,
            )
            wait_for(lambda: list(project.glob("work/train/*/seed-0-*/checkpoint.pt")))
        _, stderr = training.communicate(timeout=120)
        assert training.returncode == 0, stderr
        assert stderr.decode().count("cannot be reached") == 1
        with mlflow_server(project, port) as server:
            server.wait_until_ready()
            monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
            run_id = record(model, load_params())
            rows = [json.loads(row) for row in (model / "history.jsonl").read_text().splitlines()]
            expected = {row["step"]: row["loss"] for row in rows if "loss" in row}
            history = requests.get(
                f"{server.url}/api/2.0/mlflow/metrics/get-history",
                params={"run_id": run_id, "metric_key": "training/loss", "max_results": "5000"},
                timeout=30,
            ).json()["metrics"]
    assert len(expected) == 300
    assert {int(point["step"]): point["value"] for point in history} == pytest.approx(expected)
