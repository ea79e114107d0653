"""What DVC holds to be stale, on the tiny project: exactly what can have changed."""

import json
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_project import PROJECT, TRACKED, changed_params, copy_project, dvc, git

from brewline.config import parse_params
from flows.graph import read_graph
from flows.workspace import override


@pytest.fixture(scope="module")
def project(dvc_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished line under git and DVC; tests change its parameters for a moment."""
    return copy_project(dvc_project, tmp_path_factory.mktemp("dvc") / "project")


EXPENSIVE = ("inspect", "transcribe", "shard", "layers", "augment", "encode", "train", "embed")
# Looks whether the variants fit the backbones, in seconds; what it makes stays as it is.
CHECKS = {"weights"}


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
    """The stages that `dvc repro` would run now, if whatever runs makes something new."""
    stale = set(json.loads(dvc(folder, "status", "--json"))) - CHECKS
    for stage in read_graph(folder):
        if stage.upstream & stale:
            stale.add(stage.name)
    return stale


def would_run(folder: Path, changes: Mapping[str, Any]) -> set[str]:
    """The stages that `dvc repro` would run after a change of parameters, by their dotted names."""
    with restored(folder / "params.yaml"):
        with changed_params(folder) as values:
            for key, value in changes.items():
                override(values, key, value)
        return planned(folder)


def models_of(*experiments: str) -> set[str]:
    """The stages that make and embed the models of experiments."""
    return {f"{stage}@{name}" for stage in ("train", "embed") for name in experiments}


def upstream(folder: Path) -> dict[str, frozenset[str]]:
    """What each stage depends on."""
    return {stage.name: stage.upstream for stage in read_graph(folder)}


def test_nothing_is_stale_after_a_run(project: Path) -> None:
    assert "up to date" in dvc(project, "repro")


FULL = ("mini-flickr8k-full", "mini-lncoco-full", "mini-flickr8k-full-of-lncoco")
EMOTIONAL = ("mini-ravdess-full",)
PAGES = {"register", "report"}
AFTER_ALL = {
    f"{stage}@{table}"
    for stage in ("score", "analyse")
    for table in ("mini-flickr8k", "mini-lncoco")
} | {"probe@mini-ravdess", *PAGES}


def test_alpha_makes_only_the_models_with_both_channels_stale(project: Path) -> None:
    assert (
        would_run(project, {"variants.full.alpha": 0.2}) == models_of(*FULL, *EMOTIONAL) | AFTER_ALL
    )


def test_a_recipe_makes_its_models_stale_and_those_that_start_from_them(project: Path) -> None:
    found = would_run(project, {"recipes.mini.steps": 7})
    assert found == models_of(*FULL, *EMOTIONAL, "mini-lncoco-prompted") | AFTER_ALL


def test_the_acoustic_branch_leaves_text_models_alone(project: Path) -> None:
    assert would_run(project, {"variants.e2e.acoustic.dropout": 0.2}) == {
        *models_of("mini-flickr8k-e2e", "mini-ravdess-e2e"),
        *("score@mini-flickr8k", "analyse@mini-flickr8k", "probe@mini-ravdess", *PAGES),
    }


def test_an_experiment_and_its_row_make_nothing_else_stale(project: Path) -> None:
    new = {
        **{"task": "retrieval", "data": "mini-lncoco", "states": "mini-lncoco"},
        **{"variant": "full", "recipe": "mini-e2e", "init": "mini-lncoco-full"},
    }
    assert would_run(
        project, {"experiments.longer": new, "tables.mini-lncoco.rows.longer": "longer"}
    ) == {*models_of("longer"), "score@mini-lncoco", "analyse@mini-lncoco", *PAGES}


def test_what_is_analysed_makes_nothing_else_stale(project: Path) -> None:
    found = would_run(project, {"analyse.hit_at": 3})
    assert found == {"analyse@mini-flickr8k", "analyse@mini-lncoco", "report"}


def test_vectors_of_others_make_their_table_stale_and_nothing_else(project: Path) -> None:
    vectors = [project / name for name in ("theirs.parquet", "their-images.parquet")]
    for path in vectors:
        path.write_bytes(b"some")
    peer = {"data": "mini-lncoco", "utterances": vectors[0].name, "images": vectors[1].name}
    changes = {"external.peer": peer, "tables.mini-lncoco.rows.peer": "peer"}
    of_table = {f"{kind}@mini-lncoco" for kind in ("score", "analyse")}
    stale = {"external@peer", *of_table, "register", "report"}
    assert would_run(project, changes) == stale
    with restored(project / "params.yaml"):
        with changed_params(project) as values:
            values["external"]["peer"] = peer
        found = {one.name: one for one in read_graph(project)}
        assert found["external@peer"].corpus == "mini-lncoco"
        assert "external@peer" in found["score@mini-lncoco"].upstream
        assert "external@peer" not in found["score@mini-flickr8k"].upstream
    for path in vectors:
        path.unlink()


def test_a_probe_runs_again_alone(project: Path) -> None:
    found = would_run(project, {"probes.mini-ravdess.seeds": [3]})
    assert found == {"probe@mini-ravdess", *PAGES}
    # What is not shown of a table is no affair of a probe's.
    assert "probe@mini-ravdess" not in would_run(project, {"evaluate.num_examples": 3})


def test_the_layers_of_whisper_depend_on_how_it_encodes_alone(project: Path) -> None:
    reads = upstream(project)["layers@mini-ravdess"]
    assert reads == {"weights", "download@mini-ravdess", "validate@mini-ravdess"}
    found = would_run(project, {"asr.audio_context": "full"})
    assert "layers@mini-ravdess" in found
    assert "layers@mini-ravdess" not in would_run(project, {"asr.beam_size": 2})


def test_a_text_model_depends_on_no_states(project: Path) -> None:
    found = upstream(project)
    for stage in ("train", "embed"):
        assert "transcribe@mini-lncoco" not in found[f"{stage}@mini-lncoco-prompted"]
        assert "transcribe@mini-lncoco" in found[f"{stage}@mini-lncoco-full"]
        # Those of its own corpus, though its models are of another.
        reads = found[f"{stage}@mini-flickr8k-full-of-lncoco"]
        assert "transcribe@mini-flickr8k" in reads
        assert "transcribe@mini-lncoco" not in reads
    assert "train@mini-lncoco-full" in found["train@mini-flickr8k-full-of-lncoco"]


def test_the_graph_says_what_each_stage_works_for(project: Path) -> None:
    stages = {stage.name: stage for stage in read_graph(project)}
    found = {
        name: (stages[name].kind, stages[name].corpus, stages[name].experiment)
        for name in ("shard@mini-lncoco", "embed@mini-lncoco-full", "score@mini-lncoco", "report")
    }
    assert found == {
        "shard@mini-lncoco": ("shard", "mini-lncoco", None),
        "embed@mini-lncoco-full": ("embed", "mini-lncoco", "mini-lncoco-full"),
        "score@mini-lncoco": ("score", "mini-lncoco", None),
        "report": ("report", None, None),
    }


def test_how_the_machine_is_used_makes_nothing_stale(project: Path) -> None:
    limits = {"runtime.transcribe_batch_limit_s": 7.0, "runtime.inspect_decode_limit_s": 7.0}
    sizes = {
        "runtime.checkpoint_every_s": 7.0,
        "runtime.train_part_size": 7,
        "runtime.embed_batch_size": 7,
    }
    assert would_run(project, {**sizes, **limits, "tracking.experiment": "other"}) == set()


def test_how_many_recordings_may_fail_is_judged_again_and_nothing_else(project: Path) -> None:
    with restored(project / "params.yaml"):
        with changed_params(project) as values:
            override(values, "runtime.max_transcription_failure_rate", 0.5)
        # What follows runs only where the word errors are others, and they are not.
        stale = set(json.loads(dvc(project, "status", "--json"))) - CHECKS
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
        *("weights", "places", "download", "validate", "assess", "score", "analyse", "probe"),
        *PAGES,
    }


# The shipped parameters name nothing for the others.
BY_DEFAULT = [one for one in EXPENSIVE if one not in ("layers", "augment", "encode")]


@pytest.mark.parametrize("stage", BY_DEFAULT)
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
    assert {"embed@mini-lncoco-prompted", "score@mini-lncoco", "report"} <= found
    assert ("train@mini-lncoco-prompted" in found) == (stage != "embed")
    before = (
        "weights",
        "places",
        "download",
        *(() if stage == "inspect" else ("inspect", "validate")),
    )
    assert not [name for name in found if name.startswith(before)]


def test_a_raised_version_of_the_layers_makes_the_probe_stale(project: Path) -> None:
    path = project / "versions.yaml"
    with restored(path):
        versions = yaml.safe_load(path.read_text())
        versions["layers"] += 1
        path.write_text(yaml.safe_dump(versions))
        assert planned(project) == {"layers@mini-ravdess", "probe@mini-ravdess", *PAGES}


def test_a_metric_is_found_by_dvc(project: Path) -> None:
    printed = dvc(project, "metrics", "show")
    assert "metrics/mini-lncoco.json" in printed
    assert "test/speech_to_image/recall_at_1" in printed


def test_the_graph_can_be_drawn(project: Path) -> None:
    assert "train@mini-lncoco-full" in dvc(project, "dag")


def test_plots_are_defined(project: Path) -> None:
    dvc(project, "plots", "show", "--out", "plots")
    assert (project / "plots/index.html").exists()


def overrides_of_make_tables() -> list[str]:
    """What `make tables` gives DVC for another value of a parameter."""
    command = ["make", "--dry-run", "--silent", "tables"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if "exp run" in line)
    words = shlex.split(line)
    return [words[place + 1] for place, word in enumerate(words) if word == "--set-param"]


def queued_params(folder: Path, *overrides: str) -> Any:
    """What `params.yaml` would hold in an experiment of DVC; nothing is run."""
    words = [word for one in overrides for word in ("--set-param", one)]
    dvc(folder, "exp", "run", "--queue", "--name", "queued", *words)
    found = yaml.safe_load(git(folder, "show", "refs/exps/celery/stash:params.yaml"))
    dvc(folder, "exp", "remove", "--queue")
    return found


def test_dvc_takes_overrides_of_what_stands_deep(project: Path) -> None:
    found = queued_params(project, "recipes.mini.steps=7", "variants.full.acoustic.dropout=0.2")
    params = parse_params(found, "params.yaml")
    assert params.recipes["mini"].steps == 7
    assert params.variants["full"].acoustic.dropout == 0.2
    assert params.recipes["none"] is None


def test_make_tables_compares_every_variant_on_every_corpus_with_pictures(project: Path) -> None:
    params = parse_params(queued_params(project, *overrides_of_make_tables()), "params.yaml")
    # HuBERT's weights are no part of the miniature world, and sounds have tables of their own.
    expected = [
        name
        for name, variant in params.variants.items()
        if variant.sound is None and not (variant.acoustic and variant.acoustic.hears_layers)
    ]
    for corpus, table in params.tables.items():
        shown = [params.experiments[experiment] for experiment in table.rows.values()]
        here = [one for one in shown if one.init == "none"]
        assert sorted(one.variant for one in here) == sorted(expected), corpus
        assert {len(params.seeds_of_recipe(one.recipe)) for one in here} == {0, 3}


@pytest.mark.slow
def test_a_corpus_without_pictures_has_a_report_in_a_fresh_clone(
    dvc_project: Path, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(dvc_project), str(clone))
    with changed_params(clone) as values:
        values |= {"corpora": ["mini-ravdess"], "experiments": {}, "tables": {}}
        values |= {"probed_corpora": [], "probes": {}}
    dvc(clone, "repro", "report")
    assert "mini-ravdess" in (clone / "reports/index.html").read_text()
    assert {name.split("@")[0] for name in upstream(clone)}.isdisjoint(
        {"train", "embed", "score", "analyse", "layers", "probe"}
    )
    dvc(clone, "repro")
    assert "up to date" in dvc(clone, "repro")


def test_git_keeps_the_folders_that_stand_for_nothing(project: Path) -> None:
    assert set(TRACKED) <= set(git(project, "ls-files").splitlines())
