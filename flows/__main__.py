"""Starts a flow from the command line: `python -m flows pipeline`.

Where no Prefect server is configured (`PREFECT_API_URL`) or runs already, one is started for the
time of the run; nothing is left running. If nothing is stale, no server is needed.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brewline.config import load_params
from brewline.core.errors import BrewlineError
from flows import graph, server
from flows.repository import let_dvc_run_without_git

# The exit code of a promotion that was refused, which is no error.
REFUSED = 3


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m flows", description=__doc__)
    commands = parser.add_subparsers(dest="flow", required=True)
    run = commands.add_parser("pipeline", help="bring everything up to date")
    run.add_argument("--corpora", nargs="+", default=[], metavar="CORPUS")
    run.add_argument("--experiments", nargs="+", default=[], metavar="EXPERIMENT")
    run.add_argument("--overrides", type=_overrides, default={}, metavar="JSON")
    run.add_argument("--force", action="store_true")
    run.add_argument("--from-stage", default="", metavar="STAGE")
    move = commands.add_parser(
        "promote",
        help="make the challenger the champion, if it may be",
        description="Makes the challenger of a corpus, or another version, its champion, if the "
        "policy in mlflow/promotion.yaml allows it.",
        epilog=f"Exit code: 0 where the version is the champion now, {REFUSED} where the policy or "
        "a person says no, 1 after an error.",
    )
    move.add_argument("corpus")
    move.add_argument("--version", type=int, metavar="N", help="this one (default: the challenger)")
    move = commands.add_parser("rollback", help="make the champion before it the champion again")
    move.add_argument("corpus")
    arguments = vars(parser.parse_args())
    try:
        if start(arguments.pop("flow"), arguments) is False:
            sys.exit(REFUSED)
    except BrewlineError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted; run it again to continue", file=sys.stderr)
        sys.exit(130)


def _overrides(text: str) -> dict[str, Any]:
    """Values by their dotted names, as JSON."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise argparse.ArgumentTypeError(
            f'{text!r} names no values; write {{"variants.full.alpha": 0.2}}'
        )
    return values


def start(name: str, arguments: dict[str, Any]) -> Any:
    """Runs a flow of ours in this process.

    Returns:
        What the flow returns; None where there was nothing to run.

    Raises:
        BrewlineError: the settings are wrong, or no server comes up.
    """
    project = Path.cwd()
    let_dvc_run_without_git(project)
    # Ours first: DVC knows a misspelt key only as one that is missing.
    load_params()
    if name == "pipeline" and not any(arguments.values()) and not graph.changes(project):
        print("everything is up to date: nothing to run")
        return None
    known = server.known_api_url(project)
    if known:
        return _run(name, arguments, project, known)
    with server.prefect_server(project) as started:
        return _run(name, arguments, project, started.url)


def _run(name: str, arguments: dict[str, Any], project: Path, api_url: str) -> Any:
    # Prefect reads its settings once, when it is imported.
    os.environ.update(server.environment(project, api_url))
    import httpx
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.pipeline import pipeline
    from flows.promote import promote, rollback

    flows: dict[str, Callable[..., Any]] = {
        "pipeline": pipeline,
        "promote": promote,
        "rollback": rollback,
    }
    try:
        with temporary_settings({PREFECT_API_URL: api_url}):
            return flows[name](**arguments)
    except httpx.TransportError as error:
        raise BrewlineError(
            f"the Prefect server at {api_url} went away ({type(error).__name__}); what was "
            "finished is kept: run this again to continue",
            "network",
        ) from None
    finally:
        # The server may be stopped right after this, and the last lines are still on their way.
        for handler in logging.getLogger("prefect.flow_runs").handlers:
            handler.flush()


if __name__ == "__main__":
    main()
