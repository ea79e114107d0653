"""Flows `promote` and `rollback`: which model of a corpus is the champion."""

from pathlib import Path

from prefect import flow, get_run_logger, pause_flow_run
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput

from brewline.config import choose, load_params
from brewline.registry.policy import POLICY_FILE, load_policy
from brewline.tracking import promotion
from brewline.tracking.promotion import Promotion
from flows.artifacts import key_of


class Approval(RunInput):
    """What a person is asked before a champion moves."""

    approve: bool = False
    comment: str = ""


@flow(name="promote")
def promote(corpus: str, approval: bool = False, approval_within_h: float = 24.0) -> bool:
    """Makes the challenger of a corpus its champion, if the policy allows it.

    Args:
        corpus: One that a table measures on (`mini-lncoco`).
        approval: Ask a person too, once the policy has said yes: the run pauses with a form.
        approval_within_h: Without an answer in so many hours, it is no.

    Returns:
        Whether the challenger is the champion now.
    """
    params = load_params()
    choose("corpus", corpus, params.measured_corpora)
    policy = load_policy(POLICY_FILE)
    veto = None
    if approval:
        proposal = promotion.propose(params, corpus, policy)
        if proposal.decision.promote:
            veto = _ask(_summary(proposal), approval_within_h)
    result = promotion.promote(params, corpus, policy, veto=veto)
    _show(corpus, result)
    return result.decision.promote


@flow(name="rollback")
def rollback(corpus: str) -> str | None:
    """Makes the champion before the present one the champion again.

    Args:
        corpus: One that a table measures on (`mini-lncoco`).

    Returns:
        The version that is the champion now.
    """
    params = load_params()
    choose("corpus", corpus, params.measured_corpora)
    result = promotion.rollback(params, corpus)
    _show(corpus, result)
    return result.champion


def _ask(summary: str, within_h: float) -> str | None:
    """Asks a person; returns None for yes, else why not."""
    try:
        answer = pause_flow_run(
            wait_for_input=Approval.with_initial_data(description=summary),
            timeout=round(within_h * 3600),
            poll_interval=2,
        )
    except FlowPauseTimeout:
        return f"Nobody approved within {within_h:g} hours."
    if answer.approve:
        get_run_logger().info("approved: %s", answer.comment or "no comment")
        return None
    return f"A person said no: {answer.comment or 'no comment'}"


def _summary(result: Promotion) -> str:
    """What a promotion or rollback does, or would do, in Markdown."""
    before = f"version {result.champion_before}" if result.champion_before else "none"
    lines = [
        f"**{result.name}**: challenger version {result.challenger}, champion before: {before}",
        *(f"- {reason}" for reason in result.decision.reasons),
        *(f"- note: {note}" for note in result.notes),
    ]
    return "\n".join(lines)


def _show(corpus: str, result: Promotion) -> None:
    now = f"version {result.champion}" if result.champion else "none"
    text = f"{_summary(result)}\n\nChampion now: {now}."
    get_run_logger().info("%s", text)
    create_markdown_artifact(
        f"{text}\n\nPolicy: `{Path(POLICY_FILE)}`",
        key=f"promotion-{key_of(corpus)}",
        description=f"Champion of {corpus}",
    )
