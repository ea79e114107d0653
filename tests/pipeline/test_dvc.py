"""What DVC holds to be stale, on the tiny project: exactly what can have changed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from tiny_project import copy_project, dvc


@pytest.fixture(scope="module")
def project(dvc_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished line under git and DVC; tests change its parameters for a moment."""
    return copy_project(dvc_project, tmp_path_factory.mktemp("dvc") / "project")


EXPENSIVE = ("transcribe", "shard", "train")


@contextmanager
def restored(*paths: Path) -> Iterator[None]:
    """Gives files their contents back."""
    before = {path: path.read_bytes() for path in paths}
    try:
        yield
    finally:
        for path, content in before.items():
            path.write_bytes(content)


def planned(folder: Path) -> set[str]:
    """The stages that `dvc repro` would run now."""
    # A dry run makes nothing, so what follows from a stale stage has to be asked for.
    printed = dvc(folder, "repro", "--dry", "--force-downstream")
    return {line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage")}


def would_run(folder: Path, **changes: object) -> set[str]:
    """The stages that `dvc repro` would run after a change of `section__key` parameters."""
    path = folder / "params.yaml"
    with restored(path):
        params = yaml.safe_load(path.read_text())
        for name, value in changes.items():
            section, key = name.split("__")
            assert key in params[section]
            params[section][key] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False))
        return planned(folder)


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
    limits = {"runtime__transcribe_batch_limit_s": 7.0, "runtime__validate_decode_limit_s": 7.0}
    assert would_run(project, runtime__checkpoint_every=7, **limits) == set()
    assert would_run(project, tracking__experiment="other") == set()


def test_how_many_recordings_may_fail_is_judged_again_and_nothing_else(project: Path) -> None:
    stale = would_run(project, runtime__max_transcription_failure_rate=0.5)
    assert stale == {f"assess@{c}" for c in ("mini-flickr8k", "mini-lncoco", "mini-ravdess")}


def test_a_comment_in_any_module_makes_no_expensive_stage_stale(project: Path) -> None:
    modules = list((project / "src").rglob("*.py"))
    with restored(*modules):
        for module in modules:
            module.write_text(module.read_text() + "# A remark.\n")
        stale = set(json.loads(dvc(project, "status", "--json")))
    assert not [name for name in stale if name.startswith(EXPENSIVE)]
    # The cheap ones depend on their code as before.
    assert {name.split("@")[0] for name in stale} == {
        *("weights", "download", "validate", "assess", "untrained", "evaluate"),
        *("report", "register"),
    }


@pytest.mark.parametrize("stage", EXPENSIVE)
def test_a_raised_version_makes_its_stage_stale_and_what_follows(project: Path, stage: str) -> None:
    path = project / "versions.yaml"
    with restored(path):
        versions = yaml.safe_load(path.read_text())
        versions[stage] += 1
        path.write_text(yaml.safe_dump(versions))
        direct = set(json.loads(dvc(project, "status", "--json")))
        found = planned(project)
    assert direct
    assert {name for name in direct if not name.startswith(stage)} == set()
    assert {"train_text@mini-lncoco-prompted", "evaluate@mini-lncoco", "report"} <= found
    assert not [name for name in found if name.startswith(("weights", "download", "validate"))]


def test_a_metric_is_found_by_dvc(project: Path) -> None:
    printed = dvc(project, "metrics", "show")
    assert "metrics/mini-lncoco.json" in printed
    assert "test/speech_to_image/recall_at_1" in printed


def test_the_graph_can_be_drawn(project: Path) -> None:
    assert "train_text_acoustic@mini-lncoco-full" in dvc(project, "dag")


def test_plots_are_defined(project: Path) -> None:
    dvc(project, "plots", "show", "--out", "plots")
    assert (project / "plots/index.html").exists()
