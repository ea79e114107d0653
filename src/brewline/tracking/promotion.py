"""Promotion and rollback: which version of a registered model is the champion."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from brewline.config import Params
from brewline.core.errors import BrewlineError
from brewline.registry.candidates import baseline_evidence
from brewline.registry.policy import Decision, Policy, decide
from brewline.tracking.model_files import BUNDLE, LOGGED_MODEL_TAG, downloaded_bundle
from brewline.tracking.registered_models import (
    CHALLENGER,
    CHAMPION,
    adopt_champion,
    aliases_of,
    champion_by_hand,
    get_registered_model,
    moved_by_hand,
    open_registry,
    registered_name,
)
from brewline.tracking.store import Store
from brewline.tracking.version_evidence import call_version, version_evidence

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Promotion:
    """What a promotion or a rollback did: versions of `name`, None where there was or is none."""

    name: str
    challenger: str | None
    champion_before: str | None
    champion: str | None
    decision: Decision
    notes: list[str] = field(default_factory=list)


def propose(params: Params, corpus: str, policy: Policy, project: Path = Path()) -> Promotion:
    """Says what `promote` would decide now; moves nothing and writes no decision.

    Raises:
        BrewlineError: as `promote` does.
    """
    with open_registry(params) as store:
        return _judge(store, params, corpus, policy, project)


def promote(
    params: Params,
    corpus: str,
    policy: Policy,
    project: Path = Path(),
    veto: str | None = None,
) -> Promotion:
    """Makes the challenger of a corpus its champion, if the policy allows it.

    Both are compared on the project's present dev split; one that was measured on another is
    measured again first. Decision and reasons are written to the challenger's version and to its
    run. With no champion, the challenger has to beat the baseline of its table.

    Args:
        params: The tables, and how evaluation is done.
        corpus: What the tables measure on.
        policy: See `brewline.registry.policy`.
        project: The project's folder; dev is read from it.
        veto: A person's reason against it, a sentence, which outweighs the policy.

    Raises:
        BrewlineError: there is no challenger, a file is missing, or the store cannot be reached
            (kind `network`).
    """
    with open_registry(params) as store:
        result = _judge(store, params, corpus, policy, project)
        adopt_champion(store, get_registered_model(store, result.name))
        if veto is not None:
            reasons = [veto, *result.decision.reasons]
            result = replace(result, decision=Decision(False, reasons))
        assert result.challenger is not None
        if result.challenger == result.champion_before:
            return result
        version = store.client.get_model_version(result.name, result.challenger)
        _write_decision(store, version, result.decision, policy)
        if not result.decision.promote:
            return result
        _ensure_backbones(store, version, project)
        _move_champion(store, result.name, result.challenger, result.champion_before)
        return replace(result, champion=result.challenger)


def _judge(store: Store, params: Params, corpus: str, policy: Policy, project: Path) -> Promotion:
    """The decision about the present challenger, before anything is written or moved."""
    name = registered_name(corpus)
    model = get_registered_model(store, name)
    notes = champion_by_hand(model)
    aliases = aliases_of(model)
    champion, challenger = aliases.get(CHAMPION), aliases.get(CHALLENGER)
    registered = model.tags.get(CHALLENGER)
    if challenger != registered:
        notes.append(moved_by_hand(CHALLENGER, challenger, registered))
    if challenger is None:
        raise BrewlineError(f"{name} has no challenger; set the alias, or register another model")
    version = store.client.get_model_version(name, challenger)
    if challenger == champion:
        decision = Decision(False, [f"Version {champion} is the champion already."])
    elif "rolled_back_at" in version.tags:
        decision = Decision(
            False,
            [
                f"Version {challenger} was rolled back on {version.tags['rolled_back_at']}; remove "
                "its tag rolled_back_at to try it again."
            ],
        )
    else:
        ours = version_evidence(store, version, params, policy, project)
        theirs = (
            baseline_evidence(params, corpus, project)
            if champion is None
            else version_evidence(
                store, store.client.get_model_version(name, champion), params, None, project
            )
        )
        decision = decide(ours, theirs, policy)
    return Promotion(name, challenger, champion, champion, decision, notes)


def rollback(params: Params, corpus: str) -> Promotion:
    """Makes the champion before the present one the champion again.

    The version that goes is not promoted again, until its tag `rolled_back_at` is removed.

    Raises:
        BrewlineError: there is no champion, or none before it; or the store cannot be reached
            (kind `network`).
    """
    with open_registry(params) as store:
        client, name = store.client, registered_name(corpus)
        model = get_registered_model(store, name)
        notes = champion_by_hand(model)
        adopt_champion(store, model)
        champion = aliases_of(model).get(CHAMPION)
        if champion is None:
            raise BrewlineError(f"{name} has no champion to roll back from")
        before = client.get_model_version(name, champion).tags.get("previous_champion")
        if not before:
            raise BrewlineError(f"version {champion} of {name} had no champion before it")
        if not any(str(v.version) == before for v in _versions(store, name)):
            raise BrewlineError(
                f"version {before} of {name}, the champion before version {champion}, was deleted"
            )
        reasons = [f"Version {champion} was rolled back to version {before}."]
        for key, value in (
            ("rolled_back_at", _now()),
            ("promotion", "rolled back"),
            ("promotion_reasons", "\n".join(reasons)),
        ):
            client.set_model_version_tag(name, champion, key, value)
        client.set_registered_model_alias(name, CHAMPION, before)
        client.set_registered_model_tag(name, CHAMPION, before)
        challenger = aliases_of(model).get(CHALLENGER)
        return Promotion(name, challenger, champion, before, Decision(True, reasons), notes)


def _versions(store: Store, name: str) -> "Sequence[ModelVersion]":
    return list(store.client.search_model_versions(f"name = '{name}'"))


def _ensure_backbones(store: Store, version: "ModelVersion", project: Path) -> None:
    """Adds the frozen backbones to a version that was registered without them."""
    from brewline.models.names import BACKBONES_FOLDER
    from brewline.registry.serving import BACKBONES, add_backbones

    with downloaded_bundle(store, version) as bundle:
        if (bundle / BACKBONES).is_dir():
            return
        if LOGGED_MODEL_TAG not in version.tags:
            raise BrewlineError(
                f"{call_version(version)} was not made by Brewline; it lacks backbones"
            )
        add_backbones(bundle, project / BACKBONES_FOLDER)
        store.client.log_model_artifacts(
            version.tags[LOGGED_MODEL_TAG], str(bundle / BACKBONES), f"{BUNDLE}/{BACKBONES}"
        )


def _write_decision(
    store: Store, version: "ModelVersion", decision: Decision, policy: Policy
) -> None:
    values = {
        "promotion": "promoted" if decision.promote else "rejected",
        "promotion_reasons": "\n".join(decision.reasons),
        "promotion_policy": policy.model_dump_json(),
        "promotion_decided_at": _now(),
    }
    for key, value in values.items():
        store.client.set_model_version_tag(version.name, version.version, key, value)
        if version.run_id:
            store.client.set_tag(version.run_id, key, value)


def _move_champion(store: Store, name: str, version: str, before: str | None) -> None:
    client = store.client
    client.set_model_version_tag(name, version, "promoted_at", _now())
    client.set_model_version_tag(name, version, "previous_champion", before or "")
    client.set_registered_model_alias(name, CHAMPION, version)
    client.set_registered_model_tag(name, CHAMPION, version)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
