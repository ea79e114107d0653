"""Promotion and rollback: which version of a registered model is the champion.

`propose` says what would be decided; `conclude` does exactly that, or nothing, once a person has
answered where one is asked.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from brewline.config import Params
from brewline.core.errors import BrewlineError
from brewline.registry.candidates import baseline_evidence
from brewline.registry.policy import Decision, Policy, decide
from brewline.tracking.challengers import (
    REFUSED_TAG,
    ROLLED_BACK_TAG,
    num_compared,
    replace_challenger,
    versions_of,
)
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
from brewline.tracking.version_history import add_to_history, now

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel


@dataclass(frozen=True)
class Promotion:
    """What a promotion or a rollback did: versions of `name`, None where there was or is none.

    `challenger` is the version that it is about; `named` says that a person named it, whichever the
    challenger is.
    """

    name: str
    challenger: str | None
    champion_before: str | None
    champion: str | None
    decision: Decision
    notes: list[str] = field(default_factory=list)
    named: bool = False

    @property
    def is_champion(self) -> bool:
        """Whether the version that it is about is the champion now."""
        return self.champion is not None and self.champion == self.challenger


@dataclass(frozen=True)
class Answer:
    """What a person said to a proposal; `by` is empty where nobody answered in time."""

    approved: bool
    by: str
    comment: str = ""

    @property
    def sentence(self) -> str:
        """The answer as a reason."""
        who = self.by or "Nobody"
        said = "approved" if self.approved or not self.by else "said no"
        return f"{who} {said}: {self.comment.rstrip('.') or 'no comment'}."


def propose(
    params: Params,
    corpus: str,
    policy: Policy,
    project: Path = Path(),
    version: str | None = None,
) -> Promotion:
    """Says whether the challenger of a corpus, or a version, may become its champion.

    Both are compared on the project's present dev split; one that was measured on another is
    measured again first. With no champion, the version has to beat the baseline of its table.
    Nothing is moved, and no decision written.

    Args:
        params: The tables, and how evaluation is done.
        corpus: What the tables measure on.
        policy: See `brewline.registry.policy`.
        project: The project's folder; dev is read from it.
        version: The version; by default the challenger.

    Raises:
        BrewlineError: there is no challenger or no such version, a file is missing, or the store
            cannot be reached (kind `network`).
    """
    with open_registry(params) as store:
        return _judge(store, params, corpus, policy, project, version)


def conclude(
    params: Params,
    proposal: Promotion,
    policy: Policy,
    answer: Answer | None = None,
    project: Path = Path(),
) -> Promotion:
    """Does what a proposal says, or nothing where the registry is no longer as it was.

    Decision and reasons are written to the version and to its run. A version that a person refused
    is not put forward again, until its tag `refused_at` is removed.

    Args:
        params: Name the store's experiment.
        proposal: Of `propose`.
        policy: What it was decided by.
        answer: What a person said to the policy's yes; None where nobody was asked.
        project: The project's folder; large backbones are read from it.

    Raises:
        BrewlineError: a file is missing, or the store cannot be reached (kind `network`).
    """
    decision = proposal.decision
    if answer:
        decision = Decision(
            decision.promote and answer.approved, [answer.sentence, *decision.reasons]
        )
    decided = replace(proposal, decision=decision)
    with open_registry(params) as store:
        moved = _what_moved(store, proposal) if decision.promote else None
        if moved:
            champion = aliases_of(get_registered_model(store, proposal.name)).get(CHAMPION)
            nothing = Decision(False, [f"{moved}; nothing was promoted."])
            return replace(proposal, decision=nothing, champion=champion)
        return _carry_out(store, decided, policy, project, answer)


def _what_moved(store: Store, proposal: Promotion) -> str | None:
    """What is no longer as a proposal showed it, as a sentence without its end; or None."""
    model = get_registered_model(store, proposal.name)
    number = proposal.challenger
    version = next((v for v in versions_of(store, model.name) if str(v.version) == number), None)
    if version is None:
        return f"Version {number} was deleted since it was shown"
    if blocked := _blocked(version):
        return blocked.rstrip(".")
    aliases = aliases_of(model)
    shown = {CHAMPION: proposal.champion_before}
    if not proposal.named:
        shown[CHALLENGER] = number
    for alias, before in shown.items():
        if aliases.get(alias) != before:
            was, present = (
                f"version {one}" if one else "none" for one in (before, aliases.get(alias))
            )
            return f"The {alias} was {was} when this was shown, and is {present} now"
    return None


def _judge(
    store: Store,
    params: Params,
    corpus: str,
    policy: Policy,
    project: Path,
    number: str | None,
) -> Promotion:
    """The decision about a version, or the challenger, before anything is written or moved."""
    model = get_registered_model(store, registered_name(corpus))
    notes = champion_by_hand(model)
    champion = aliases_of(model).get(CHAMPION)
    if number is None:
        version, by_hand = _challenger(store, model)
        notes += by_hand
    else:
        version = _named_version(store, model.name, number)
    blocked = _blocked(version)
    if str(version.version) == champion:
        decision = Decision(False, [f"Version {champion} is the champion already."])
    elif blocked:
        decision = Decision(False, [blocked])
    else:
        ours = version_evidence(store, version, params, policy, project)
        if number is None and not by_hand:
            compared = num_compared(store, model.name, ours.dev_digest)
            ours = replace(ours, chosen_among=compared)
        theirs = (
            baseline_evidence(params, corpus, project)
            if champion is None
            else version_evidence(
                store, store.client.get_model_version(model.name, champion), params, None, project
            )
        )
        decision = decide(ours, theirs, policy, params.evaluate)
    named = number is not None
    return Promotion(model.name, str(version.version), champion, champion, decision, notes, named)


def _challenger(store: Store, model: "RegisteredModel") -> "tuple[ModelVersion, list[str]]":
    """The challenger, and what somebody did to it by hand.

    Raises:
        BrewlineError: there is none.
    """
    present, ours = aliases_of(model).get(CHALLENGER), model.tags.get(CHALLENGER)
    if present is None:
        raise BrewlineError(
            f"{model.name} has no challenger; set the alias, name a version, or register a better "
            "model"
        )
    by_hand = [] if present == ours else [moved_by_hand(CHALLENGER, present, ours)]
    return store.client.get_model_version(model.name, present), by_hand


def _named_version(store: Store, name: str, number: str) -> "ModelVersion":
    """A version by its number.

    Raises:
        BrewlineError: there is none, with the numbers that there are.
    """
    versions = {str(one.version): one for one in versions_of(store, name)}
    if number not in versions:
        known = ", ".join(sorted(versions, key=int)) or "none"
        raise BrewlineError(f"{name} has no version {number}; it has {known}", "settings")
    return versions[number]


def _blocked(version: "ModelVersion") -> str | None:
    """Why a version is out of the question, whatever it reached; None where it is not."""
    for tag, what in ((ROLLED_BACK_TAG, "rolled back"), (REFUSED_TAG, "refused by a person")):
        if tag in version.tags:
            return (
                f"Version {version.version} was {what} on {version.tags[tag]}; remove its tag "
                f"{tag} to try it again."
            )
    return None


def _carry_out(
    store: Store, decided: Promotion, policy: Policy, project: Path, answer: Answer | None
) -> Promotion:
    """Writes a decision down, and moves the champion where it says so."""
    model = get_registered_model(store, decided.name)
    adopt_champion(store, model)
    assert decided.challenger is not None
    if decided.is_champion:
        return decided
    version = store.client.get_model_version(decided.name, decided.challenger)
    if decided.decision.promote:
        # First what may fail: a promotion that is written down has happened.
        _ensure_backbones(store, version, project)
        _move_champion(store, decided.name, decided.challenger, decided.champion_before)
        _write_decision(store, version, "promoted", decided.decision, policy, answer)
        return replace(decided, champion=decided.challenger)
    if answer is None or not answer.by:
        _write_decision(store, version, "rejected", decided.decision, policy, answer)
        return decided
    store.client.set_model_version_tag(decided.name, decided.challenger, REFUSED_TAG, now())
    _write_decision(store, version, "refused", decided.decision, policy, answer)
    replace_challenger(store, model, version, policy.metric)
    return decided


def rollback(params: Params, corpus: str, policy: Policy) -> Promotion:
    """Makes the champion before the present one the champion again.

    The version that goes is neither put forward nor promoted again, until its tag
    `rolled_back_at` is removed.

    Args:
        params: Name the store's experiment.
        corpus: What the tables measure on.
        policy: Its metric says which version is the challenger now, if it was the one that goes.

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
        version = client.get_model_version(name, champion)
        before = version.tags.get("previous_champion")
        if not before:
            raise BrewlineError(f"version {champion} of {name} had no champion before it")
        if not any(str(v.version) == before for v in versions_of(store, name)):
            raise BrewlineError(
                f"version {before} of {name}, the champion before version {champion}, was deleted"
            )
        reasons = [f"Version {champion} was rolled back to version {before}."]
        for key, value in (
            (ROLLED_BACK_TAG, now()),
            ("promotion", "rolled back"),
            ("promotion_reasons", "\n".join(reasons)),
        ):
            client.set_model_version_tag(name, champion, key, value)
        client.set_registered_model_alias(name, CHAMPION, before)
        client.set_registered_model_tag(name, CHAMPION, before)
        add_to_history(store, name, champion, "rolled back", reasons)
        add_to_history(store, name, before, "champion again", reasons)
        challenger = replace_challenger(store, model, version, policy.metric)
        return Promotion(name, challenger, champion, before, Decision(True, reasons), notes)


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
    store: Store,
    version: "ModelVersion",
    what: str,
    decision: Decision,
    policy: Policy,
    answer: Answer | None,
) -> None:
    """The last decision as tags of a version and its run, and each one in the version's history."""
    by = answer.by if answer else ""
    values = {
        "promotion": what,
        "promotion_reasons": "\n".join(decision.reasons),
        "promotion_policy": policy.model_dump_json(),
        "promotion_decided_at": now(),
        "promotion_decided_by": by or "the policy",
    }
    for key, value in values.items():
        store.client.set_model_version_tag(version.name, version.version, key, value)
        if version.run_id:
            store.client.set_tag(version.run_id, key, value)
    add_to_history(store, version.name, str(version.version), what, decision.reasons, by)


def _move_champion(store: Store, name: str, version: str, before: str | None) -> None:
    client = store.client
    client.set_model_version_tag(name, version, "promoted_at", now())
    client.set_model_version_tag(name, version, "previous_champion", before or "")
    client.set_registered_model_alias(name, CHAMPION, version)
    client.set_registered_model_tag(name, CHAMPION, version)
