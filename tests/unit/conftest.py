"""A made-up project with results and an empty store."""

import shutil
from pathlib import Path

import pytest
import report_world

from brewline.media import corpus_media
from brewline.tracking import runs, store
from brewline.tracking.pipeline_runs import NAME_VARIABLE


@pytest.fixture(scope="session")
def project_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    report_world.make_world(root)
    (root / "mlflow.db").write_bytes(report_world.migrated_store())
    shutil.copy(report_world.PROJECT / "params.yaml", root)
    return root


@pytest.fixture
def project(project_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which we are, during the pipeline run `flow-1`."""
    root = tmp_path / "project"
    shutil.copytree(project_template, root)
    monkeypatch.chdir(root)
    for name in ("MLFLOW_TRACKING_URI", NAME_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(runs.PIPELINE_VARIABLE, "flow-1")
    monkeypatch.setattr(corpus_media, "stored_media", lambda raw: report_world.fake_media)
    store.say_once.cache_clear()
    store._write_once.cache_clear()
    return root
