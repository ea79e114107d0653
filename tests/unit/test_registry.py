"""The registry: versions by digest, aliases by policy, and what people do by hand respected."""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import report_world
import search_world

from brewline.config import Params, load_params
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json, sha256_tree, write_json
from brewline.evaluation.query_ranks import QueryRanks
from brewline.registry.policy import Evidence, Policy, load_policy
from brewline.tables.manifest import MANIFEST
from brewline.tables.parquet import read_table, write_table
from brewline.tracking.model_files import SERVED_PACKAGES
from brewline.tracking.promotion import Answer, Promotion, conclude, propose, rollback
from brewline.tracking.registration import register_corpus
from brewline.tracking.runs import PIPELINE_VARIABLE
from brewline.tracking.store import open_store, project_around, say_once
from brewline.tracking.version_evidence import keep_evidence
from brewline.tracking.version_history import add_to_history, read_history
from flows.workspace import workspace_of

CORPUS, NAME = search_world.CORPUS, f"brewline-{search_world.CORPUS}"
FULL, PROMPTED, ZERO_SHOT = search_world.FULL, search_world.PROMPTED, search_world.ZERO_SHOT
METRIC = "dev/mean_recall_at_1"
POLICY = Policy(
    metric=METRIC,
    confidence=0.9,
    margin=0.01,
    must_not_drop={},
    max_wer=0.5,
    max_quarantine_rate=0.2,
    max_latency_ms=None,
)


def found_of(value: float) -> QueryRanks:
    """How queries were answered by a model that finds so many of the few pictures, both ways."""
    return report_world.made_ranks(round(value * search_world.NUM_IMAGES), search_world.NUM_IMAGES)


def set_dev(**values: float) -> None:
    """Changes what the models of the project's rows reached on dev: sixths, of six pictures."""
    folder = Path(f"reports/evaluation/{CORPUS}")
    models, ranks = (read_json(folder / f"{name}.json") for name in ("models", "dev_ranks"))
    for row, value in values.items():
        name = f"{ZERO_SHOT}/frozen" if row == "zero_shot" else f"{CORPUS}-{row}/seed-0"
        models[name] = {**models[name], METRIC: value}
        ranks[name] = asdict(found_of(value))
    write_json(folder / "models.json", models)
    write_json(folder / "dev_ranks.json", ranks)


def train_again(row: str) -> None:
    """Makes another model of a row: it does the same, and has another digest."""
    history = Path(f"models/{CORPUS}-{row}/seed-0/history.jsonl")
    history.write_text(history.read_text() + "\n")


def in_project(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from brewline.media import corpus_media

    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv(PIPELINE_VARIABLE, "flow-1")
    # Examples show pictures of the test split by their number alone.
    stored = corpus_media.stored_media
    monkeypatch.setattr(
        corpus_media,
        "stored_media",
        lambda raw: (
            lambda corpus, path: (
                stored(raw)(corpus, path)
                if path.startswith("audio")
                else report_world.fake_media(corpus, path)
            )
        ),
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two versions: 1 is `prompted`, 2 is `full` and the challenger."""
    root = tmp_path_factory.mktemp("template")
    params = search_world.make_world(root, small=True)
    shutil.copytree(report_world.PROJECT / "mlflow", root / "mlflow")
    shutil.copy(report_world.PROJECT / "requirements.lock", root)
    (root / "mlflow.db").write_bytes(report_world.migrated_store())
    with pytest.MonkeyPatch.context() as patch:
        in_project(root, patch)
        for best, full in ((PROMPTED, 1 / 6), (FULL, 1)):
            set_dev(zero_shot=0, prompted=1 / 2, full=full)
            registered = register_corpus(params, CORPUS)
            assert registered is not None and registered.model == f"{best}/seed-0"
    return root


@pytest.fixture
def params(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The parameters of a copy of that project, which is the working directory."""
    root = tmp_path / "project"
    shutil.copytree(template, root)
    in_project(root, monkeypatch)
    # MLflow remembers where a model's files lie by its id, which all copies share.
    from mlflow.tracking._tracking_service import utils  # noqa: TID251

    utils._artifact_repos_cache.clear()
    return load_params()


def with_table(params: Params, **changes: Any) -> Params:
    """Parameters whose only table is another."""
    table = params.tables[CORPUS].model_copy(update=changes)
    return params.model_copy(update={"tables": {CORPUS: table}})


def client() -> Any:
    return open_store(load_params().tracking).client


def version(number: str) -> Any:
    return client().get_model_version(NAME, number)


def aliases() -> dict[str, str]:
    return {k: str(v) for k, v in client().get_registered_model(NAME).aliases.items()}


def tag(number: str, **values: str) -> None:
    for key, value in values.items():
        client().set_model_version_tag(NAME, number, key, value)


def measured(number: str, value: float) -> None:
    """Changes what a version is said to have reached on dev."""
    known = version(number)
    values = json.loads(known.tags["measured"])
    evidence = Evidence(
        number,
        known.tags["dev_manifest_digest"],
        values["dev"] | {METRIC: value},
        found_of(value),
        values["chosen_among"],
        values["quarantine_rate"],
    )
    keep_evidence(open_store(load_params().tracking), known, evidence)


def promote(params: Params, corpus: str, policy: Policy, number: str | None = None) -> Promotion:
    """Promotes as the flow does where nobody is asked."""
    return conclude(params, propose(params, corpus, policy, version=number), policy)


def history(number: str) -> list[tuple[str, str]]:
    """What was decided about a version, and by whom."""
    decisions = read_history(version(number).tags)
    return [(entry["what"], entry["by"]) for _, entry in decisions]


def test_a_version_holds_what_serving_takes(params: Params) -> None:
    assert aliases() == {"challenger": "2"}
    found = version("2")
    folder = Path(f"models/{FULL}/seed-0")
    assert found.tags["model_digest"] == sha256_tree(folder)
    assert (found.tags["experiment"], found.tags["seed"]) == (FULL, "seed-0")
    assert len(found.tags["dev_manifest_digest"]) == 64
    assert client().get_run(found.run_id).data.tags["model_digest"] == found.tags["model_digest"]
    root = Path(client().get_model_version_download_uri(NAME, "2").removeprefix("file://"))
    bundle = root / "artifacts/bundle"
    assert sha256_tree(bundle / "model") == found.tags["model_digest"]
    assert (bundle / "backbones/whisper.pt").exists()
    assert (root / "code/brewline/registry/serving.py").exists()
    assert not list((root / "code").rglob("__pycache__"))
    requirements = (root / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in requirements)
    assert {line.split("==")[0] for line in requirements} == set(SERVED_PACKAGES)
    card = (root / "model_card.md").read_text()
    parts = ["**Generated.** A program made mini-lncoco", f"{FULL}/seed-0", "Apache-2.0", "(0."]
    parts += ["mini-whisper", "| metric | this model | its row | zero-shot |"]
    parts += ["| variant | full: transcripts and voice, 4 prompts |"]
    parts += [f"*its row* (full of table {CORPUS})"]
    parts += [f"| SHA-256 of the index of the {kind} | `" for kind in ("shards", "states")]
    parts += [
        "| recipe.learning_rate | 0.008 |",
        "| recipe.steps | 40 |",
        "| variant.alpha | 0.1 |",
    ]
    parts += ["| variant.alpha | 0.1 |", "| variant.acoustic.layers | 1 |"]
    for part in [*parts, found.tags["model_digest"], found.tags["dev_manifest_digest"]]:
        assert part in card, part
    assert "  \n" not in card and "None" not in card


def test_registering_again_changes_nothing(params: Params) -> None:
    experiment = open_store(params.tracking).experiment_id
    before = aliases()
    again = register_corpus(params, CORPUS)
    assert again is not None
    assert (again.version, again.notes, aliases()) == ("2", [], before)
    assert len(client().search_model_versions(f"name = '{NAME}'")) == 2
    assert len(client().search_logged_models([experiment])) == 2


def test_a_newer_version_that_is_worse_on_dev_is_no_challenger(params: Params) -> None:
    train_again("full")
    set_dev(full=5 / 6)
    registered = register_corpus(params, CORPUS)
    assert registered is not None and registered.version == "3"
    assert aliases() == {"challenger": "2"}
    assert registered.lines[1:] == [
        f"version 2 ({FULL}) is the best on dev that may be challenger: {METRIC} is 1.0000, of "
        "version 3 0.8333."
    ]
    # A model that is better than all of them takes its place.
    measured("2", 1 / 2)
    measured("3", 1 / 2)
    train_again("full")
    registered = register_corpus(params, CORPUS)
    assert registered is not None and registered.version == "4" and not registered.notes
    assert aliases() == {"challenger": "4"}


def test_the_challenger_is_the_best_of_those_that_nobody_turned_down(params: Params) -> None:
    for number, key in (("2", "rolled_back_at"), ("2", "refused_at")):
        tag(number, **{key: "2026-11-27"})
        register_corpus(params, CORPUS)
        assert aliases() == {"challenger": "1"}
        client().delete_model_version_tag(NAME, number, key)
        register_corpus(params, CORPUS)
        assert aliases() == {"challenger": "2"}
    # What was measured on other dev data cannot be compared.
    tag("2", dev_manifest_digest="0" * 64)
    set_dev(full=0)
    register_corpus(params, CORPUS)
    assert aliases() == {"challenger": "1"}
    for number in ("1", "2"):
        tag(number, refused_at="2026-11-27")
    registered = register_corpus(params, CORPUS)
    assert registered is not None and "No version may be challenger" in registered.notes[0]
    assert aliases() == {"challenger": "1"}


@pytest.mark.parametrize("place", ["work/workspaces/0123456789ab", ".dvc/tmp/exps/standalone/tmp1"])
def test_an_experiment_registers_nothing_unless_it_is_asked_to(
    params: Params,
    place: str,
    template: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Runs with overrides work in a workspace, `dvc exp run --temp` in a folder of DVC's."""
    from brewline import cli

    project = Path.cwd()
    shutil.copytree(template, project / place, ignore=shutil.ignore_patterns("ml*.db", "mlart*"))
    monkeypatch.chdir(project / place)
    train_again("full")
    registered = register_corpus(params, CORPUS)
    assert registered is not None and registered.version is None and registered.is_complete
    assert registered.lines == [
        f"{NAME}, {FULL}/seed-0: not registered, as an experiment; tracking.register_experiments "
        "in params.yaml asks for it"
    ]
    # Its runs are in the project's store; the store of a folder that goes would go with it.
    assert all(registered.runs.values()) and not Path("mlflow.db").exists()
    write_json(Path("reports/registration.json"), {})
    assert cli.main(["record"]) == 0
    assert "not registered, as an experiment" in capsys.readouterr().out
    assert len(client().search_model_versions(f"name = '{NAME}'")) == 2
    tracking = params.tracking.model_copy(update={"register_experiments": True})
    asked = params.model_copy(update={"tracking": tracking})
    set_dev(full=5 / 6)
    registered = register_corpus(asked, CORPUS)
    assert registered is not None and registered.version == "3"
    assert aliases() == {"challenger": "2"}
    # On dev data of its own it would be alone, and the best.
    train_again("full")
    set_dev(full=1)
    path = Path(f"data/manifest/{CORPUS}.parquet")
    write_table(path, MANIFEST, [row | {"speaker_id": "another"} for row in read_table(path)])
    registered = register_corpus(asked, CORPUS)
    assert registered is not None and registered.version == "4"
    assert aliases() == {"challenger": "2"}


def test_the_same_project_elsewhere_is_no_experiment(tmp_path: Path) -> None:
    inside = tmp_path / "work/workspaces/0123456789ab"
    assert project_around(inside) == project_around(inside / "models") == tmp_path
    assert project_around(tmp_path / ".dvc/tmp/exps/standalone/tmp1") == tmp_path
    assert project_around(workspace_of(report_world.PROJECT, {})) == report_world.PROJECT
    for folder in ("workspaces/a", "exps/a", "work/workspaces", "work/a/workspaces/b"):
        assert project_around(tmp_path / folder) is None


def test_a_corpus_without_a_model_that_hears_registers_nothing(params: Params) -> None:
    assert register_corpus(with_table(params, rows={"zero-shot": ZERO_SHOT}), CORPUS) is None


def test_a_challenger_set_by_hand_stays_until_another_model_comes(params: Params) -> None:
    client().set_registered_model_alias(NAME, "challenger", "1")
    again = register_corpus(params, CORPUS)
    assert again is not None and aliases() == {"challenger": "1"}
    assert "Somebody made version 1 the challenger by hand" in again.notes[0]
    promotion = promote(params, CORPUS, POLICY)
    assert promotion.champion == "1"
    assert "Somebody made version 1 the challenger by hand" in promotion.notes[0]
    # Version 2 is better than it was known to be, but it is no other version.
    assert "promotion_reasons" in version("1").tags
    train_again("full")
    measured("2", 5 / 6)
    register_corpus(params, CORPUS)
    assert aliases() == {"challenger": "3", "champion": "1"}


def test_the_first_champion_beats_the_baseline(params: Params) -> None:
    promotion = promote(params, CORPUS, POLICY)
    assert promotion.decision.promote, promotion
    assert (promotion.champion_before, promotion.champion) == (None, "2")
    assert "zero-shot has 0.0000: a difference of +1.0000" in promotion.decision.reasons[0]
    # Each version was the best of two.
    assert "the best on dev of up to 4 models" in promotion.decision.reasons[-1]
    assert aliases() == {"challenger": "2", "champion": "2"}
    tags = version("2").tags
    assert tags["promotion"] == "promoted"
    assert tags["promotion_reasons"] == "\n".join(promotion.decision.reasons)
    assert json.loads(tags["promotion_policy"])["margin"] == 0.01
    assert tags["promoted_at"]
    run = client().get_run(version("2").run_id).data.tags
    assert run["promotion_reasons"] == tags["promotion_reasons"]
    again = promote(params, CORPUS, POLICY)
    assert again.decision.reasons == ["Version 2 is the champion already."]
    assert not again.decision.promote


def test_a_proposal_writes_nothing(params: Params) -> None:
    before = version("2").tags, aliases()
    proposal = propose(params, CORPUS, POLICY)
    assert proposal.decision.promote
    assert (version("2").tags, aliases()) == before


YES, NO = Answer(True, "Ada", "fine"), Answer(False, "Bob", "too slow")


def test_who_approved_is_kept(params: Params) -> None:
    proposal = propose(params, CORPUS, POLICY)
    done = conclude(params, proposal, POLICY, YES)
    assert done.is_champion and aliases()["champion"] == "2"
    assert done.decision.reasons == ["Ada approved: fine.", *proposal.decision.reasons]
    assert version("2").tags["promotion_decided_by"] == "Ada"
    assert history("2") == [("promoted", "Ada")]
    assert "**promoted** by Ada\n    - Ada approved: fine." in version("2").description


def test_what_a_person_refused_is_not_put_forward_again(params: Params) -> None:
    proposal = propose(params, CORPUS, POLICY)
    refused = conclude(params, proposal, POLICY, NO)
    assert not refused.is_champion
    assert refused.decision.reasons == ["Bob said no: too slow.", *proposal.decision.reasons]
    assert version("2").tags["promotion"] == "refused"
    assert aliases() == {"challenger": "1"}
    named = propose(params, CORPUS, POLICY, version="2")
    assert "Version 2 was refused by a person on" in named.decision.reasons[0]
    client().delete_model_version_tag(NAME, "2", "refused_at")
    assert promote(params, CORPUS, POLICY, "2").is_champion
    assert history("2") == [("refused", "Bob"), ("promoted", "")]


def test_no_answer_in_time_is_no_but_nobodys_refusal(params: Params) -> None:
    silent = Answer(False, "", "no answer came within 24 hours")
    done = conclude(params, propose(params, CORPUS, POLICY), POLICY, silent)
    assert done.decision.reasons[0] == "Nobody approved: no answer came within 24 hours."
    assert version("2").tags["promotion"] == "rejected"
    assert aliases() == {"challenger": "2"}
    assert promote(params, CORPUS, POLICY).is_champion


@pytest.mark.parametrize("answer", [None, YES])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda: client().set_registered_model_alias(NAME, "challenger", "1"),
            "The challenger was version 2 when this was shown, and is version 1 now",
        ),
        (
            lambda: client().set_registered_model_alias(NAME, "champion", "1"),
            "The champion was none when this was shown, and is version 1 now",
        ),
        (lambda: client().delete_model_version(NAME, "2"), "Version 2 was deleted since"),
        (lambda: tag("2", rolled_back_at="today"), "Version 2 was rolled back on today"),
        (lambda: tag("2", refused_at="today"), "Version 2 was refused by a person on today"),
    ],
)
def test_what_is_promoted_is_what_was_shown_or_nothing(
    params: Params, change: Callable[[], None], sentence: str, answer: Answer | None
) -> None:
    proposal = propose(params, CORPUS, POLICY)
    assert proposal.decision.promote
    change()
    before = aliases()
    done = conclude(params, proposal, POLICY, answer)
    assert not done.is_champion and not done.decision.promote
    assert done.decision.reasons[0].startswith(sentence)
    assert done.decision.reasons[0].endswith("; nothing was promoted.")
    assert aliases() == before and done.champion == before.get("champion")


def test_a_version_is_promoted_by_its_number(params: Params) -> None:
    named = propose(params, CORPUS, POLICY, version="1")
    assert named.decision.promote and named.named
    assert "the best on dev of up to 2 models" in named.decision.reasons[-1]
    # Whoever becomes challenger meanwhile was not what was asked about.
    client().delete_registered_model_alias(NAME, "challenger")
    done = conclude(params, named, POLICY, YES)
    assert done.is_champion and aliases() == {"champion": "1"}
    with pytest.raises(BrewlineError, match=f"{NAME} has no version 7; it has 1, 2"):
        propose(params, CORPUS, POLICY, version="7")


def test_each_decision_is_added_to_the_history(two_champions: Params) -> None:
    rollback(two_champions, CORPUS, POLICY)
    client().delete_model_version_tag(NAME, "2", "rolled_back_at")
    promote(two_champions, CORPUS, POLICY, "2")
    assert [what for what, _ in history("2")] == ["promoted", "rolled back", "promoted"]
    assert [what for what, _ in history("1")] == ["promoted", "champion again"]
    shown = version("2").description
    assert shown.startswith(f"**{FULL}/seed-0**, the best on dev of 2 of its pipeline run.")
    assert [shown.count(f"**{what}**") for what in ("promoted", "rolled back")] == [2, 1]
    # PostgreSQL holds MLflow to 5000 characters; what the page has no room for is in the tags.
    store = open_store(two_champions.tracking)
    for _ in range(20):
        add_to_history(store, NAME, "2", "rejected", ["A long reason. " * 40, "Another."], "Ada")
    assert len(history("2")) == 23
    shown = version("2").description
    assert 4000 < len(shown) <= 5000 and shown.startswith(f"**{FULL}/seed-0**")


def test_the_baseline_keeps_a_worse_challenger_out(params: Params) -> None:
    set_dev(zero_shot=5 / 6)
    promotion = promote(params, CORPUS, POLICY)
    assert not promotion.decision.promote
    assert "zero-shot has 0.8333: a difference of +0.1667" in promotion.decision.reasons[0]
    assert aliases() == {"challenger": "2"}
    assert version("2").tags["promotion"] == "rejected"
    assert history("2") == [("rejected", "")]


def test_without_a_baseline_there_is_no_first_champion(params: Params) -> None:
    without = with_table(params, baseline=None)
    message = f"no table on {CORPUS} names a baseline, which a first champion has to beat; set one"
    with pytest.raises(BrewlineError, match=message) as caught:
        propose(without, CORPUS, POLICY)
    assert caught.value.kind == "settings"
    assert aliases() == {"challenger": "2"}
    # Between two versions nobody asks for it.
    promote(params, CORPUS, POLICY)
    client().set_registered_model_alias(NAME, "challenger", "1")
    assert not promote(without, CORPUS, POLICY).decision.promote


def test_the_champion_stays_where_the_difference_may_be_chance(params: Params) -> None:
    assert promote(params, CORPUS, POLICY, "1").champion == "1"
    measured("1", 5 / 6)
    promotion = promote(params, CORPUS, POLICY)
    assert not promotion.decision.promote
    assert f"version 1 ({PROMPTED}) has 0.8333" in promotion.decision.reasons[0]
    assert "(90 % interval +0.0000 to +0.5000 over 6 pictures)" in promotion.decision.reasons[0]
    assert aliases() == {"challenger": "2", "champion": "1"}
    measured("1", 1 / 2)
    assert promote(params, CORPUS, POLICY).champion == "2"
    assert version("2").tags["previous_champion"] == "1"


def test_an_old_version_without_ranks_is_measured_again(two_champions: Params) -> None:
    """Older versions kept how many queries they answered, and not which."""
    client().set_registered_model_alias(NAME, "champion", "1")
    for key in ("dev_ranks", "measured"):
        old = json.loads(version("1").tags["measured"])
        client().delete_model_version_tag(NAME, "1", key)
        tag("1", measured=json.dumps({"dev": old["dev"], "quarantine_rate": 0.1}))
        proposal = propose(two_champions, CORPUS, POLICY)
        assert f"version 1 ({PROMPTED}) has" in proposal.decision.reasons[0]
        assert "interval" in proposal.decision.reasons[0]
        # What the random model really reaches, and how.
        assert json.loads(version("1").tags["measured"])["dev"][METRIC] != 0.5
        assert "dev_ranks" in version("1").tags


@pytest.fixture
def two_champions(params: Params) -> Params:
    """Version 1 was champion before version 2."""
    for number in ("1", "2"):
        promote(params, CORPUS, POLICY, number)
    assert aliases() == {"challenger": "2", "champion": "2"}
    return params


def test_rollback(two_champions: Params) -> None:
    back = rollback(two_champions, CORPUS, POLICY)
    assert (back.champion_before, back.champion, back.notes) == ("2", "1", [])
    # The best of those that are left.
    assert aliases() == {"challenger": "1", "champion": "1"}
    assert version("2").tags["promotion"] == "rolled back"
    # It is not promoted again by the next flow.
    assert promote(two_champions, CORPUS, POLICY).decision.reasons == [
        "Version 1 is the champion already."
    ]
    promotion = promote(two_champions, CORPUS, POLICY, "2")
    assert not promotion.decision.promote
    assert "Version 2 was rolled back on" in promotion.decision.reasons[0]
    client().delete_model_version_tag(NAME, "2", "rolled_back_at")
    assert promote(two_champions, CORPUS, POLICY, "2").champion == "2"
    rollback(two_champions, CORPUS, POLICY)
    with pytest.raises(BrewlineError, match=r"version 1 of .* had no champion before it"):
        rollback(two_champions, CORPUS, POLICY)


def test_a_rollback_leaves_a_challenger_that_somebody_chose(two_champions: Params) -> None:
    client().delete_registered_model_alias(NAME, "challenger")
    assert rollback(two_champions, CORPUS, POLICY).challenger is None
    assert aliases() == {"champion": "1"}


def test_rollback_to_a_deleted_version_is_named(two_champions: Params) -> None:
    client().delete_model_version(NAME, "1")
    with pytest.raises(BrewlineError, match=r"version 1 of .* before version 2, was deleted"):
        rollback(two_champions, CORPUS, POLICY)
    assert aliases()["champion"] == "2"


def test_a_champion_set_by_hand_is_respected_and_reported_once(two_champions: Params) -> None:
    client().set_registered_model_alias(NAME, "champion", "1")
    measured("2", 1 / 3)
    # Asking what would happen reports it, and leaves it to be reported by what then happens.
    proposal = propose(two_champions, CORPUS, POLICY)
    promotion = conclude(two_champions, proposal, POLICY)
    assert promotion == proposal
    assert promotion.notes == [
        "Somebody made version 1 the champion by hand, where Brewline had chosen version 2; "
        "that is respected."
    ]
    assert f"version 1 ({PROMPTED})" in promotion.decision.reasons[0]
    assert aliases()["champion"] == "1"
    assert version("1").tags["promotion"] == "by hand"
    assert promote(two_champions, CORPUS, POLICY).notes == []
    # The one before it is the one that promotion had chosen.
    assert rollback(two_champions, CORPUS, POLICY).champion == "2"


def test_a_rollback_says_what_somebody_did_by_hand(two_champions: Params) -> None:
    client().set_registered_model_alias(NAME, "champion", "1")
    back = rollback(two_champions, CORPUS, POLICY)
    assert (back.champion_before, back.champion) == ("1", "2")
    assert "Somebody made version 1 the champion by hand" in back.notes[0]


def test_a_champion_taken_away_by_hand_leaves_the_baseline(two_champions: Params) -> None:
    client().delete_registered_model_alias(NAME, "champion")
    with pytest.raises(BrewlineError, match="no champion to roll back from"):
        rollback(two_champions, CORPUS, POLICY)
    set_dev(zero_shot=1)
    promotion = promote(two_champions, CORPUS, POLICY)
    assert not promotion.decision.promote
    assert "zero-shot has 1.0000" in promotion.decision.reasons[0]
    assert "champion" not in aliases()


def test_a_version_measured_on_another_dev_manifest_is_measured_again(
    two_champions: Params,
) -> None:
    client().set_registered_model_alias(NAME, "champion", "1")
    old = version("2").tags["dev_manifest_digest"]
    path = Path(f"data/manifest/{CORPUS}.parquet")
    rows = [row | {"speaker_id": "another"} for row in read_table(path)]
    write_table(path, MANIFEST, rows)
    promote(two_champions, CORPUS, POLICY)
    for number in ("1", "2"):
        tags = version(number).tags
        assert tags["dev_manifest_digest"] != old
        # What these random models really reach, and not what the made-up evaluation says.
        dev = json.loads(tags["measured"])["dev"]
        assert dev["dev/speech_to_image/num_queries"] == 2 * search_world.NUM_IMAGES
        assert dev[METRIC] not in (1 / 2, 1)
        # The transcripts of the shards: every third word of a caption is an odd one.
        assert dev["dev/asr/wer"] == pytest.approx(1 / 3, abs=0.1)


def test_other_ears_hear_dev_again(two_champions: Params) -> None:
    """A version whose Whisper is not the project's hears the recordings with its own."""
    path = Path("models/backbones/backbones.json")
    names = read_json(path)
    names["whisper"]["sha256"] = "f" * 64
    write_json(path, names)
    tag("2", dev_manifest_digest="0" * 64)
    client().set_registered_model_alias(NAME, "champion", "1")
    promote(two_champions, CORPUS, POLICY)
    dev = json.loads(version("2").tags["measured"])["dev"]
    # A random Whisper understands nothing, whatever the transcripts of the project say.
    assert dev["dev/asr/wer"] > 0.5


def test_the_time_of_an_answer_is_limited(params: Params) -> None:
    slow = POLICY.model_copy(update={"max_latency_ms": 1e-3})
    decision = promote(params, CORPUS, slow).decision
    assert "The time of an answer in ms is" in decision.reasons[0]
    shipped = load_policy().model_copy(
        update={"max_latency_ms": 60_000.0, "max_quarantine_rate": 0.2}
    )
    assert promote(params, CORPUS, shipped).decision.promote


def test_a_large_model_gets_its_backbones_on_promotion(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brewline.registry import serving

    monkeypatch.setattr(serving, "_MAX_BUNDLED_MB", 0)
    train_again("full")
    registered = register_corpus(params, CORPUS)
    assert registered is not None and registered.version == "3"
    uri = client().get_model_version_download_uri(NAME, "3").removeprefix("file://")
    bundle = Path(uri) / "artifacts/bundle"
    assert not (bundle / "backbones").exists()
    assert promote(params, CORPUS, POLICY, "3").champion == "3"
    assert len(serving.load_bundle(bundle).answer([{"text": "a thing"}], 1)) == 1


def test_without_a_server(
    params: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    say_once.cache_clear()
    registered = register_corpus(params, CORPUS)
    assert registered is not None and registered.version is None
    assert registered.lines == [f"{NAME}, {FULL}/seed-0: not registered"]
    assert capsys.readouterr().err.count("\n") == 1
    calls: list[Callable[[], Any]] = [
        lambda: propose(params, CORPUS, POLICY),
        lambda: rollback(params, CORPUS, POLICY),
    ]
    for call in calls:
        with pytest.raises(BrewlineError, match="cannot be reached") as caught:
            call()
        assert caught.value.kind == "network"


def test_what_is_missing_is_named(params: Params) -> None:
    client().delete_registered_model_alias(NAME, "challenger")
    with pytest.raises(BrewlineError, match=f"{NAME} has no challenger"):
        promote(params, CORPUS, POLICY)
    with pytest.raises(BrewlineError, match=r"no model brewline-mini-flickr8k; run `dvc repro reg"):
        rollback(params, "mini-flickr8k", POLICY)


def test_record_brings_what_the_stage_could_not(
    params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    from brewline import cli

    assert cli.main(["record"]) == 0
    assert NAME not in capsys.readouterr().out
    write_json(Path("reports/registration.json"), {})
    assert cli.main(["record"]) == 0
    assert f"{NAME}, {FULL}/seed-0: version 2" in capsys.readouterr().out


def elsewhere(template: Path, home: Path) -> dict[str, str]:
    """The environment of somebody who has nothing but the packages and the store."""
    ours = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "BREWLINE_BACKBONES")}
    store = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{template}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return ours | store | {"HOME": str(home)}


_LOAD = """
import sys
sys.path = [path for path in sys.path if path != sys.argv[1]]
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[2])
import brewline
print(brewline.__file__)
print(model.predict(model.input_example)[0]["ids"])
print(model.predict(pandas.DataFrame([{"text": "a thing"}]), params={"top_k": 2})[0]["ids"])
"""


def test_it_loads_without_home_and_repository(template: Path, tmp_path: Path) -> None:
    arguments = [str(report_world.PROJECT / "src"), f"models:/{NAME}@challenger"]
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, *arguments],
        cwd=tmp_path,
        env=elsewhere(template, tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    code, of_recording, of_text = done.stdout.splitlines()
    assert code.startswith(str(template / "mlartifacts"))
    assert len(json.loads(of_recording.replace("'", '"'))) == 5
    assert len(json.loads(of_text.replace("'", '"'))) == 2
    assert "type hints" not in done.stderr


def ask(port: int, body: Any) -> tuple[int, Any]:
    """The status and the body of an answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    url, headers = f"http://127.0.0.1:{port}/invocations", {"content-type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.slow
def test_mlflow_serves_it(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_project(template, monkeypatch)
    client().set_registered_model_alias(NAME, "champion", "2")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["models", "serve", "-m", f"models:/{NAME}@champion", "--env-manager", "local"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [Path(sys.executable).parent / "mlflow", *command, "-h", "127.0.0.1", "-p", str(port)],
            cwd=tmp_path,
            env=elsewhere(template, tmp_path)
            | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
        recording = base64.b64encode(report_world.tone(3)).decode()
        picture = base64.b64encode(report_world.drawing(2)).decode()
        status, body = ask(port, {"inputs": [{"audio": recording}], "params": {"top_k": 3}})
        assert (status, len(body["predictions"][0]["ids"])) == (200, 3)
        assert "transcript" in body["predictions"][0]
        records = [{"text": "a thing"}, {"image": picture, "text": None}]
        status, body = ask(port, {"dataframe_records": records, "params": {"top_k": 0}})
        assert (status, [len(one["embedding"]) for one in body["predictions"]]) == (200, [32, 32])
        # Under `inputs`, too, null is nothing.
        assert ask(port, {"inputs": [{"text": "a thing", "audio": None}]})[0] == 200
        for record, sentence in (
            ({"audio": "/etc/passwd"}, "Record 0: audio must be the bytes of a file in base64"),
            ({"audio": picture}, "Record 0: the recording is refused (`not_audio`)"),
            ({"audio": recording, "image": picture}, "Record 0: give exactly one of audio, image"),
            ({"path": "/etc/passwd"}, "Send 1 to 32 records in one request, each with audio"),
        ):
            status, body = ask(port, {"inputs": [record]})
            assert (status, body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
            assert body["message"].startswith(sentence)
            assert body["message"].count(". ") == 0 and body["message"].endswith(".")
        for broken in (b"{", {"inputs": [{"text": "a"}], "params": {"top_k": "many"}}, {"a": 1}):
            assert ask(port, broken)[0] == 400
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(10)
        client().delete_registered_model_alias(NAME, "champion")


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Waits until a server answers."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(url):
            return
        time.sleep(0.2)
    raise AssertionError(log.read_text())
