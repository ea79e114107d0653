"""What DVC holds to be stale, on the tiny project: exactly what can have changed."""

from pathlib import Path

import pytest
import yaml
from tiny_project import copy_project, dvc


@pytest.fixture(scope="module")
def project(dvc_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished line under git and DVC; tests change its parameters for a moment."""
    return copy_project(dvc_project, tmp_path_factory.mktemp("dvc") / "project")


def would_run(folder: Path, **changes: object) -> set[str]:
    """The stages that `dvc repro` would run after a change of `section__key` parameters."""
    path = folder / "params.yaml"
    before = path.read_text()
    params = yaml.safe_load(before)
    for name, value in changes.items():
        section, key = name.split("__")
        assert key in params[section]
        params[section][key] = value
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    try:
        # A dry run makes nothing, so what follows from a stale stage has to be asked for.
        printed = dvc(folder, "repro", "--dry", "--force-downstream")
    finally:
        path.write_text(before)
    return {line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage")}


def test_nothing_is_stale_after_a_run(project: Path) -> None:
    assert "up to date" in dvc(project, "repro")


def test_alpha_makes_only_the_models_with_both_channels_stale(project: Path) -> None:
    assert would_run(project, train__alpha=0.2) == {
        "train_text_acoustic@mini-flickr8k-full",
        "train_text_acoustic@mini-lncoco-full",
        "evaluate@mini-flickr8k",
        "evaluate@mini-lncoco",
        "register",
        "report",
    }


def test_the_acoustic_branch_leaves_text_models_alone(project: Path) -> None:
    stale = would_run(project, acoustic__dropout=0.2)
    assert "train_acoustic@mini-lncoco-e2e" in stale
    assert "train_text@mini-lncoco-prompted" not in stale
    assert not any(name.startswith(("transcribe", "shard")) for name in stale)


def test_how_the_machine_is_used_makes_nothing_stale(project: Path) -> None:
    assert would_run(project, runtime__checkpoint_every=7, tracking__experiment="other") == set()


def test_a_metric_is_found_by_dvc(project: Path) -> None:
    printed = dvc(project, "metrics", "show")
    assert "metrics/mini-lncoco.json" in printed
    assert "test/speech_to_image/recall_at_1" in printed


def test_the_graph_can_be_drawn(project: Path) -> None:
    assert "train_text_acoustic@mini-lncoco-full" in dvc(project, "dag")


def test_plots_are_defined(project: Path) -> None:
    dvc(project, "plots", "show", "--out", "plots")
    assert (project / "plots/index.html").exists()
