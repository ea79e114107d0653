"""What a run leaves to look at in the Prefect UI: tables, links and a picture."""

import base64
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.runtime import flow_run

from brewline.config import Params
from brewline.evaluation.outputs import Metrics
from brewline.quality.verdicts import count_reasons
from brewline.report.changes import METRICS, changes_markdown, find_changes, metrics_here
from brewline.tables.parquet import read_table
from brewline.tracking.first_view import result_links, runs_link
from brewline.tracking.store import public_uri, tracking_uri

if TYPE_CHECKING:
    from flows.pipeline import Outcome


_log = logging.getLogger(__name__)


@contextmanager
def never_in_the_way() -> Iterator[None]:
    """Lets work go on where what it shows cannot be shown: the server may be away for a while."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever a server or its client does
        _log.warning("Prefect does not take an artifact (%s); the work goes on", error)


def key_of(name: str) -> str:
    """A name in the letters that Prefect allows in keys."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def stages_table(outcomes: "Sequence[Outcome]", folder: Path, params: Params) -> None:
    """What became of each stage and why, with links to the runs in MLflow of what was made.

    Args:
        outcomes: In the order of the table.
        folder: The tree or workspace of the run.
        params: Those of the run.
    """
    with never_in_the_way():
        rows = [
            {
                "stage": outcome.stage,
                "state": outcome.state,
                "seconds": "" if outcome.seconds is None else round(outcome.seconds, 1),
                "why": outcome.why,
                "in MLflow": _links(outcome, folder, params),
            }
            for outcome in outcomes
        ]
        create_table_artifact(rows, key="stages", description="The stages of this run, in order")


def _links(outcome: "Outcome", folder: Path, params: Params) -> str:
    """Links in Markdown to the runs of what a stage made in this flow run."""
    kind, _, subject = outcome.stage.partition("@")
    uri = tracking_uri()
    if outcome.seconds is None or not uri.startswith("http"):
        return ""
    found = result_links(params, uri, folder, (kind, subject), str(flow_run.get_id()))
    return ", ".join(f"[{name}]({link})" for name, link in sorted(found.items()))


def results(folder: Path, params: Params, before: Metrics) -> None:
    """The results, what was quarantined, where to read on, and the recall curves.

    Args:
        folder: The tree or workspace of the run.
        params: Those of the run.
        before: The metrics that lay there when it began.
    """
    with never_in_the_way():
        _results(folder, params, before)


def _results(folder: Path, params: Params, before: Metrics) -> None:
    table = folder / "reports/results.md"
    if table.exists():
        links = (
            f"Page with pictures and recordings: `{(folder / 'reports/index.html').absolute()}`  \n"
            f"MLflow: {_mlflow_link(params)}"
        )
        found = find_changes(before, metrics_here(folder / METRICS))
        # Of rows that nobody chose there are none in a workspace.
        changed = [one for one in found if one.after is not None]
        delta = f"## Changed by this run\n\n{changes_markdown(changed)}\n\n" if changed else ""
        text = f"{links}\n\n{delta}{table.read_text(encoding='utf-8')}"
        create_markdown_artifact(text, key="results", description="Results on test")
    rows = [
        {"corpus": corpus, "reason": reason, "recordings": count}
        for corpus in params.corpora
        if (path := folder / f"data/quarantine/{corpus}.parquet").exists()
        for reason, count in count_reasons(read_table(path)).items()
    ]
    create_table_artifact(rows, key="quarantine", description="Recordings left out, by reason")
    for name in params.tables:
        _recall_picture(folder / "reports/evaluation" / name / "recall.csv", name)


def _recall_picture(path: Path, table: str) -> None:
    if not path.exists():
        return
    from brewline.evaluation.outputs import read_recall
    from brewline.evaluation.recall_plot import recall_png

    png = base64.b64encode(recall_png(read_recall(path, "test"), table)).decode()
    create_image_artifact(
        image_url=f"data:image/png;base64,{png}",
        key=f"recall-{key_of(table)}",
        description=f"Recall at K of {table}, test",
    )


def _mlflow_link(params: Params) -> str:
    experiment, uri = params.tracking.experiment, tracking_uri()
    if uri.startswith("http"):
        return f"[the runs of experiment {experiment}]({runs_link(params, uri)})"
    return f"experiment `{experiment}` in `{public_uri(uri)}` (`make ui` shows it)"
