"""Which stages a run looks at: those that were asked for, and what these start from."""

from flows.graph import Stage, plan, with_descendants


def stage(name: str, corpus: str, experiment: str | None, *upstream: str) -> Stage:
    kind, _, subject = name.partition("@")
    return Stage(name, kind, subject, corpus, experiment, frozenset(upstream))


GRAPH = [
    stage("shard@a", "a", None),
    stage("shard@b", "b", None),
    stage("train@b-full", "b", "b-full", "shard@b"),
    stage("train@b-e2e", "b", "b-e2e", "shard@b"),
    stage("train@a-full", "a", "a-full", "shard@a"),
    stage("train@a-of-b", "a", "a-of-b", "train@b-full", "shard@a"),
    stage("embed@a-of-b", "a", "a-of-b", "train@a-of-b"),
    stage("score@a", "a", None, "embed@a-of-b"),
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
        "score@a",
    ]
    assert "train@b-full" in chosen([], ["a-of-b"])
    assert "train@b-e2e" not in chosen([], ["a-of-b"])


def test_an_experiment_that_starts_anew_brings_no_other() -> None:
    assert chosen([], ["a-full"]) == ["shard@a", "shard@b", "train@a-full", "score@a"]


def test_descendants_are_all_that_depends_on_a_stage() -> None:
    assert with_descendants(GRAPH, {"train@b-full"}) == {
        "train@b-full",
        "train@a-of-b",
        "embed@a-of-b",
        "score@a",
    }


def asked(corpora: list[str], experiments: list[str]) -> set[str]:
    return {*plan(GRAPH, corpora, experiments).asked}


def test_a_table_is_asked_for_with_any_experiment_that_it_shows() -> None:
    assert "score@a" in asked([], ["a-of-b"])
    assert "score@a" not in asked([], ["a-full"])
    assert {"score@a", "train@a-full"} <= asked(["a"], [])


def test_who_chooses_nothing_asks_for_everything() -> None:
    assert asked([], []) == {one.name for one in GRAPH}
