"""Which model is put forward, and what it has to beat: from the files of a made-up project."""

import shutil
from pathlib import Path

import pytest
import report_world

from brewline.config import Params
from brewline.config.experiments import ExperimentParams, TableParams
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json, sha256_tree, write_json
from brewline.registry.candidates import baseline_evidence, find_challenger, read_evidence
from brewline.registry.policy import WER, load_policy

METRIC, ON_TEST = "dev/mean_recall_at_1", "test/mean_recall_at_1"
POLICY = load_policy(report_world.PROJECT / "mlflow/promotion.yaml")
FLICKR, LNCOCO = "mini-flickr8k", "mini-lncoco"


@pytest.fixture(scope="module")
def params() -> Params:
    """Those of the repository, and on Flickr8k a model that was trained to read captions."""
    shipped = report_world.params()
    reads = ExperimentParams(
        task="retrieval",
        data=FLICKR,
        states="none",
        variant="prompted-captions",
        recipe="mini",
        init="none",
    )
    table = shipped.tables[FLICKR]
    rows = table.rows | {"prompted-captions": "reads"}
    return shipped.model_copy(
        update={
            "experiments": shipped.experiments | {"reads": reads},
            "tables": shipped.tables | {FLICKR: table.model_copy(update={"rows": rows})},
        }
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Path:
    root = tmp_path_factory.mktemp("template")
    report_world.make_world(root, params)
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "project")


def set_dev(project: Path, table: str, values: dict[str, float]) -> None:
    """Lets all models of a table reach little on dev and much on test, but for `values`."""
    path = project / f"reports/evaluation/{table}/models.json"
    write_json(
        path, {name: {METRIC: values.get(name, 0.1), ON_TEST: 0.9} for name in read_json(path)}
    )


def best(params: Params, corpus: str, project: Path) -> str | None:
    found = find_challenger(params, corpus, POLICY, project)
    return found.name if found else None


def with_table(params: Params, name: str, rows: dict[str, str], data: str = LNCOCO) -> Params:
    """Parameters with one table, without a baseline."""
    table = TableParams(data=data, rows=rows)
    return params.model_copy(update={"tables": {name: table}})


def test_the_best_on_dev_hears_speech_and_was_trained(project: Path, params: Params) -> None:
    ceiling, baseline = (f"{LNCOCO}-{name}/frozen" for name in ("zero-shot-captions", "zero-shot"))
    better = {ceiling: 0.9, baseline: 0.9, f"{LNCOCO}-full/seed-1": 0.2}
    set_dev(project, LNCOCO, better)
    found = find_challenger(params, LNCOCO, POLICY, project)
    assert found is not None
    assert (found.corpus, found.name) == (LNCOCO, f"{LNCOCO}-full/seed-1")
    assert found.folder == project / f"models/{LNCOCO}-full/seed-1"
    assert found.digest == sha256_tree(found.folder)
    assert found.evidence.metrics == {METRIC: 0.2, WER: 0.117}
    # Both seeds of both rows that were trained and hear speech.
    assert found.evidence.chosen_among == found.facts["chosen_among"] == 4
    assert found.evidence.ranks == report_world.made_ranks(7, 12)
    # Of equals, the first that params.yaml names.
    set_dev(project, LNCOCO, {ceiling: 0.9, baseline: 0.9})
    assert best(params, LNCOCO, project) == f"{LNCOCO}-prompted/seed-0"


def test_without_a_row_that_was_trained_there_is_no_challenger(
    project: Path, params: Params
) -> None:
    assert best(with_table(params, LNCOCO, {"a": f"{LNCOCO}-zero-shot"}), LNCOCO, project) is None
    assert best(params, "mini-ravdess", project) is None


def test_models_that_were_taken_over_or_read_captions_are_not_put_forward(
    project: Path, params: Params
) -> None:
    values = {f"{FLICKR}-full/seed-1": 0.2}
    for seed in (0, 1):
        values |= {f"{FLICKR}-full-of-lncoco/seed-{seed}": 0.9, f"reads/seed-{seed}": 0.9}
    set_dev(project, FLICKR, values)
    assert best(params, FLICKR, project) == f"{FLICKR}-full/seed-1"
    rows = {"reads": "reads", "full-of-lncoco": f"{FLICKR}-full-of-lncoco"}
    assert best(with_table(params, FLICKR, rows, FLICKR), FLICKR, project) is None


def test_all_tables_on_a_corpus_are_asked(project: Path, params: Params) -> None:
    few = TableParams(data=LNCOCO, rows={"plain": f"{LNCOCO}-zero-shot"})
    both = params.model_copy(update={"tables": {"few": few, LNCOCO: params.tables[LNCOCO]}})
    report_world.make_world(project, both)
    set_dev(project, LNCOCO, {f"{LNCOCO}-full/seed-1": 0.3})
    assert best(both, LNCOCO, project) == f"{LNCOCO}-full/seed-1"
    # The first that names a baseline.
    assert baseline_evidence(both, LNCOCO, project).name == "zero-shot"


def test_the_baseline_stands_in_for_a_champion_by_its_row(project: Path, params: Params) -> None:
    set_dev(project, LNCOCO, {f"{LNCOCO}-zero-shot/frozen": 0.25})
    found = baseline_evidence(params, LNCOCO, project)
    assert (found.name, found.metrics[METRIC]) == ("zero-shot", 0.25)
    assert ON_TEST not in found.metrics
    without = with_table(params, LNCOCO, params.tables[LNCOCO].rows)
    with pytest.raises(BrewlineError, match=f"no table on {LNCOCO} names a baseline") as caught:
        baseline_evidence(without, LNCOCO, project)
    assert caught.value.kind == "settings"


def test_what_is_missing_is_named(project: Path, params: Params) -> None:
    with pytest.raises(BrewlineError, match=f"nobody/seed-0 was not measured on {LNCOCO}; name it"):
        read_evidence(params, LNCOCO, "nobody/seed-0", project)
    path = project / f"reports/evaluation/{LNCOCO}/models.json"
    models = read_json(path)
    name = f"{LNCOCO}-full/seed-1"
    write_json(path, {one: values for one, values in models.items() if one != name})
    with pytest.raises(BrewlineError, match=f"{name} has no {METRIC}; run `dvc repro score`"):
        find_challenger(params, LNCOCO, POLICY, project)
    write_json(path, models)
    ranks = path.with_name("dev_ranks.json")
    write_json(ranks, {one: values for one, values in read_json(ranks).items() if one != name})
    with pytest.raises(BrewlineError, match=f"the ranks of {name} on dev of {LNCOCO} are missing"):
        read_evidence(params, LNCOCO, name, project)
    shutil.rmtree(project / "models" / f"{LNCOCO}-full")
    with pytest.raises(BrewlineError, match=f"{LNCOCO}-full/seed-0 is missing; run `dvc repro`"):
        find_challenger(params, LNCOCO, POLICY, project)
    path.unlink()
    with pytest.raises(BrewlineError, match=r"models\.json is missing; run `dvc repro score`"):
        find_challenger(params, LNCOCO, POLICY, project)
