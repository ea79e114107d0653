"""Which stages a run looks at: those that were asked for, and what these start from."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prefect.logging import disable_run_logger  # noqa: TID251 - what flows log to

from brewline.core.errors import BrewlineError
from flows.graph import Stage, plan, with_descendants
from flows.pipeline import Outcome, _Run
from flows.stage import StageFailedError, Work
from flows.workspace import link_external, narrow_to


def stage(
    name: str, corpus: str, experiment: str | None, *upstream: str, rows: tuple[str, ...] = ()
) -> Stage:
    kind, _, subject = name.partition("@")
    return Stage(name, kind, subject, corpus, experiment, frozenset(rows), frozenset(upstream))


GRAPH = [
    stage("shard@a", "a", None),
    stage("shard@b", "b", None),
    stage("train@b-full", "b", "b-full", "shard@b"),
    stage("train@b-e2e", "b", "b-e2e", "shard@b"),
    stage("train@a-full", "a", "a-full", "shard@a"),
    stage("train@a-of-b", "a", "a-of-b", "train@b-full", "shard@a"),
    stage("embed@a-of-b", "a", "a-of-b", "train@a-of-b"),
    stage("embed@a-full", "a", "a-full", "train@a-full"),
    # Two tables of one corpus: both depend on the folder of all its vectors.
    stage("score@a", "a", None, "embed@a-of-b", "embed@a-full", rows=("a-of-b",)),
    stage("score@a-again", "a", None, "embed@a-of-b", "embed@a-full", rows=("a-full",)),
]


def chosen(corpora: list[str], experiments: list[str]) -> list[str]:
    return [one.name for one in plan(GRAPH, corpora, experiments).stages]


def test_what_a_chosen_experiment_starts_from_is_chosen_too() -> None:
    assert chosen(["a"], []) == [
        "shard@a",
        "shard@b",
        "train@b-full",
        "train@a-full",
        "train@a-of-b",
        "embed@a-of-b",
        "embed@a-full",
        "score@a",
        "score@a-again",
    ]
    assert "train@b-full" in chosen([], ["a-of-b"])
    assert "train@b-e2e" not in chosen([], ["a-of-b"])


def test_an_experiment_that_starts_anew_brings_no_other() -> None:
    assert chosen([], ["a-full"]) == [
        "shard@a",
        "shard@b",
        "train@a-full",
        "embed@a-full",
        "score@a",
        "score@a-again",
    ]


def test_descendants_are_all_that_depends_on_a_stage() -> None:
    assert with_descendants(GRAPH, {"train@b-full"}) == {
        "train@b-full",
        "train@a-of-b",
        "embed@a-of-b",
        "score@a",
        "score@a-again",
    }


def asked(corpora: list[str], experiments: list[str]) -> set[str]:
    return {*plan(GRAPH, corpora, experiments).asked}


def test_a_table_is_asked_for_with_any_experiment_that_it_shows() -> None:
    assert "score@a" in asked([], ["a-of-b"])
    assert "score@a-again" not in asked([], ["a-of-b"])
    assert "score@a" not in asked([], ["a-full"])
    assert {"score@a", "train@a-full"} <= asked(["a"], [])


def test_who_chooses_nothing_asks_for_everything() -> None:
    assert asked([], []) == {one.name for one in GRAPH}


def finished(*outcomes: Outcome, experiments: tuple[str, ...] = ()) -> _Run:
    """A run that is over."""
    with disable_run_logger():
        run = _Run(Work(Path(), Path(), 1, 1, "key"), GRAPH, plan(GRAPH, [], experiments))
    run.outcomes.extend(outcomes)
    return run


def walk(
    monkeypatch: pytest.MonkeyPatch,
    graph: list[Stage],
    run_stage: Callable[[str], str],
    found: dict[str, list[str]],
    parallel: int = 1,
) -> _Run:
    """Brings a graph up to date in which `found` are the stale stages, with why."""
    monkeypatch.setattr("flows.pipeline.changes", lambda *_, **__: found)
    with ThreadPoolExecutor(8) as threads, disable_run_logger():

        def submit(name: str, work: Work, force: bool) -> "Future[str]":
            return threads.submit(run_stage, name)

        monkeypatch.setattr("flows.pipeline.run_stage", SimpleNamespace(submit=submit))
        run = _Run(Work(Path(), Path(), 1, parallel, "key"), graph, plan(graph, [], []))
        run.bring_up_to_date()
    return run


def test_a_run_looks_outside_before_it_asks_what_is_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look = Stage("look@a", "look", "a", "a", None, frozenset(), frozenset(), looks=True)
    graph = [look, stage("download@a", "a", None, "look@a"), stage("shard@a", "a", None)]
    asked_for: list[str] = []
    found: dict[str, list[str]] = {}

    def runs(name: str) -> str:
        asked_for.append(name)
        found.update({"download@a": ["found.json: modified"]} if name == "look@a" else {})
        return "ran"

    run = walk(monkeypatch, graph, runs, found)
    assert asked_for == ["look@a", "download@a"]
    assert [one.state for one in run.outcomes] == ["ran", "ran", "up to date"]


@pytest.mark.parametrize("parallel", [1, 2, 3])
def test_stages_run_side_by_side_and_each_after_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, parallel: int
) -> None:
    begun: list[str] = []
    ended: list[str] = []
    most = 0

    def runs(name: str) -> str:
        nonlocal most
        begun.append(name)
        most = max(most, len(begun) - len(ended))
        (one,) = (stage for stage in GRAPH if stage.name == name)
        assert one.upstream <= {*ended}
        time.sleep(0.05)
        ended.append(name)
        return "ran"

    run = walk(monkeypatch, GRAPH, runs, {one.name: ["new"] for one in GRAPH}, parallel)
    # Three are ready at a time here, and the first two from the beginning.
    assert most == parallel
    assert sorted(begun) == sorted(one.name for one in GRAPH)
    # Told in the order of the graph, whichever ended first.
    assert [one.stage for one in run.outcomes] == [one.name for one in GRAPH]


def test_what_does_not_need_a_failed_stage_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def runs(name: str) -> str:
        if name == "train@b-full":
            raise StageFailedError(name, "crash", "it fell over")
        return "ran"

    run = walk(monkeypatch, GRAPH, runs, {one.name: ["new"] for one in GRAPH}, parallel=2)
    assert {one.stage: one.state for one in run.outcomes} == {
        "shard@a": "ran",
        "shard@b": "ran",
        "train@b-full": "failed",
        "train@b-e2e": "ran",
        "train@a-full": "ran",
        "train@a-of-b": "left out",
        "embed@a-of-b": "left out",
        "embed@a-full": "ran",
        "score@a": "left out",
        "score@a-again": "left out",
    }
    with pytest.raises(StageFailedError, match="it fell over"):
        run.check_delivered()


LEFT_OUT = Outcome("score@a", "left out", "embed@a-other is stale and not chosen")


def test_what_was_asked_for_and_is_not_done_is_an_error() -> None:
    run = finished(LEFT_OUT, experiments=("a-of-b",))
    with pytest.raises(BrewlineError, match=r"^score@a could not be done: embed@a-other is stale"):
        run.check_delivered()
    # Nobody who chose another experiment waits for this table.
    finished(LEFT_OUT, experiments=("a-full",)).check_delivered()


def test_each_failure_is_told() -> None:
    run = finished(LEFT_OUT)
    run._failures.append(StageFailedError("shard@a", "disk", "it is full"))
    with pytest.raises(StageFailedError, match=r"^shard@a failed \(disk\): it is full$"):
        run.check_delivered()
    run._failures.append(StageFailedError("shard@b", "data", "it is bad"))
    with pytest.raises(BrewlineError, match=r"^2 stages failed:\n  shard@a .*\n  shard@b "):
        run.check_delivered()


def test_vectors_of_others_are_found_in_a_workspace(tmp_path: Path) -> None:
    """By their relative paths, unless the clone has them; absolute ones are left alone."""
    project, folder = tmp_path / "project", tmp_path / "project/work/workspaces/0123"
    files = {"peers/u.parquet": "new", "i.parquet": "new", "kept.parquet": "of the tree"}
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    folder.mkdir(parents=True)
    (folder / "kept.parquet").write_text("of the commit")
    # Of a run before, from where the project lay then.
    (folder / "i.parquet").symlink_to(tmp_path / "gone.parquet")
    elsewhere = str(tmp_path / "elsewhere.parquet")
    external = {
        "peer": {"utterances": "peers/u.parquet", "images": "i.parquet"},
        "other": {"utterances": "kept.parquet", "images": elsewhere},
        "missing": {"utterances": "no.parquet", "images": f"{tmp_path}/../no.parquet"},
    }
    for _ in range(2):
        link_external(project, folder, {"external": external})
    assert (folder / "peers/u.parquet").read_text() == "new"
    assert (folder / "i.parquet").read_text() == "new"
    assert (folder / "kept.parquet").read_text() == "of the commit"
    assert {path.name for path in folder.iterdir()} == {"peers", "i.parquet", "kept.parquet"}
    external["peer"]["images"] = "../i.parquet"
    with pytest.raises(BrewlineError, match=r"external.peer.images: a run with overrides .* `..`"):
        link_external(project, folder, {"external": external})


def test_a_workspace_measures_the_rows_that_are_up_to_date(tmp_path: Path) -> None:
    tables = {
        "a": {
            "data": "a",
            "rows": {"zero": "a-zero", "text": "a-text", "full": "a-full", "theirs": "peer"},
            "baseline": "text",
            "compare": [["full", "zero"], ["full", "text"]],
        },
        "b": {"data": "b", "rows": {"full": "b-full", "theirs": "peer"}, "baseline": None},
    }
    path = tmp_path / "params.yaml"
    names = ["a-zero", "a-text", "a-full", "b-full"]
    probes = {"p": {"rows": {"full": "a-full", "text": "a-text"}}, "q": {"rows": {"x": "b-full"}}}
    sounds = {"s": {"rows": {"near": "a-full", "far": "b-full"}}, "t": {"rows": {"x": "b-full"}}}
    values = {"tables": tables, "sound_tables": sounds, "probes": probes, "other": 1}
    path.write_text(yaml.safe_dump({**values, "experiments": dict.fromkeys(names, 1)}))
    narrow_to(tmp_path, {"a-zero", "a-full"})
    found = yaml.safe_load(path.read_text())
    assert found == {
        "tables": {
            "a": {
                "data": "a",
                "rows": {"zero": "a-zero", "full": "a-full", "theirs": "peer"},
                "baseline": None,
                "compare": [["full", "zero"]],
            }
        },
        "sound_tables": {"s": {"rows": {"near": "a-full"}, "baseline": None, "compare": []}},
        "probes": {"p": {"rows": {"full": "a-full"}}},
        "experiments": {"a-zero": 1, "a-full": 1},
        "other": 1,
    }
