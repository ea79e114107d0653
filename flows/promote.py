"""Flows `promote` and `rollback`: which version of a corpus' model is the champion."""

from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger, pause_flow_run
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput
from prefect.runtime import flow_run
from pydantic import Field

from brewline.config import choose, load_params
from brewline.registry.policy import POLICY_FILE, load_policy
from brewline.tracking import promotion
from brewline.tracking.promotion import Answer, Promotion
from flows import form
from flows.artifacts import key_of
from flows.dead_runs import alive

Corpus = Annotated[str, form.Choice(form.measured_corpora)]


class Approval(RunInput):
    """What a person is asked before a champion moves."""

    decided_by: Annotated[str, Field(pattern=r"\S", max_length=100, description="Your name")]
    approve: bool = False
    comment: Annotated[str, Field(max_length=1000)] = ""


@flow(name="promote")
def promote(
    corpus: Corpus,
    version: int | None = None,
    approval: bool = False,
    approval_within_h: float = 24.0,
) -> bool:
    """Makes the challenger of a corpus, or another version, its champion, if the policy allows it.

    Args:
        corpus: One that a table measures on (`mini-lncoco`).
        version: This version; without one, the challenger.
        approval: Ask a person too, once the policy has said yes: the run pauses with a form. What
            is promoted then is what the form showed, or nothing.
        approval_within_h: Without an answer in so many hours, it is no.

    Returns:
        Whether the version is the champion now.
    """
    params = load_params()
    choose("corpus", corpus, params.measured_corpora)
    policy = load_policy()
    number = None if version is None else str(version)
    with alive(Path.cwd(), str(flow_run.get_id())):
        proposal = promotion.propose(params, corpus, policy, version=number)
        answer = None
        if approval and proposal.decision.promote:
            answer = _ask(_summary(proposal), approval_within_h)
        result = promotion.conclude(params, proposal, policy, answer)
    _show(corpus, result)
    return result.is_champion


@flow(name="rollback")
def rollback(corpus: Corpus) -> str | None:
    """Makes the champion before the present one the champion again.

    Args:
        corpus: One that a table measures on (`mini-lncoco`).

    Returns:
        The version that is the champion now.
    """
    params = load_params()
    choose("corpus", corpus, params.measured_corpora)
    result = promotion.rollback(params, corpus, load_policy())
    _show(corpus, result)
    return result.champion


def _ask(summary: str, within_h: float) -> Answer:
    """Asks a person."""
    try:
        given = pause_flow_run(
            wait_for_input=Approval.with_initial_data(description=summary),
            timeout=round(within_h * 3600),
            poll_interval=2,
        )
    except FlowPauseTimeout:
        return Answer(False, "", f"no answer came within {within_h:g} hours")
    return Answer(given.approve, given.decided_by.strip(), given.comment.strip())


def _summary(result: Promotion) -> str:
    """What a promotion or rollback does, or would do, in Markdown."""
    before = f"version {result.champion_before}" if result.champion_before else "none"
    about = "version" if result.named else "challenger version"
    lines = [
        f"**{result.name}**: {about} {result.challenger}, champion before: {before}",
        *(f"- {reason}" for reason in result.decision.reasons),
        *(f"- note: {note}" for note in result.notes),
    ]
    return "\n".join(lines)


def _show(corpus: str, result: Promotion) -> None:
    now = f"version {result.champion}" if result.champion else "none"
    text = f"{_summary(result)}\n\nChampion now: {now}."
    get_run_logger().info("%s", text)
    create_markdown_artifact(
        f"{text}\n\nPolicy: `{POLICY_FILE}`",
        key=f"promotion-{key_of(corpus)}",
        description=f"Champion of {corpus}",
    )
