"""What one sees first in MLflow: the link to the runs, the columns that it shows, links to one."""

import json
from pathlib import Path

from brewline.config import Params
from brewline.core.files import sha256_file, sha256_tree
from brewline.evaluation.scores import SELECTION_METRIC
from brewline.tracking.pipeline_runs import best_metric
from brewline.tracking.runs import DIGEST_TAG, TRANSCRIPTS_TAG
from brewline.tracking.store import Store, harmless, open_store, public_uri

_KEY = "brewline"
# MLflow's "share" button keeps a view under a tag of the experiment, and links to it by its key.
_TAG = f"mlflow.sharedViewState.{_KEY}"


def runs_link(params: Params, address: str) -> str:
    """The address of the runs in MLflow's pages, with the columns that matter chosen.

    Args:
        params: The experiment, and the tables that have a column each.
        address: Of the server.

    Returns:
        A link; that of the server alone where it cannot be asked for the experiment.
    """
    link = public_uri(address)
    with harmless(address):
        store = open_store(params.tracking)
        where = f"#/experiments/{store.experiment_id}/runs?workflowType=machine_learning"
        _keep_view(store, params)
        link = f"{link.rstrip('/')}/{where}&viewStateShareKey={_KEY}"
    return link


def result_links(
    params: Params, address: str, folder: Path, stage: tuple[str, str], flow_run: str
) -> dict[str, str]:
    """Links to the runs of a stage's results, by the runs' names.

    They are those of what lies there now, and, where nothing was finished, those that the flow run
    wrote.

    Args:
        params: The experiment of MLflow.
        address: Of the server.
        folder: The tree or workspace that the stage worked in.
        stage: `train` and an experiment, or `transcribe` and a corpus; others have no run.
        flow_run: Prefect's id of the flow run.

    Returns:
        Nothing where the server cannot be asked.
    """
    kind, subject = stage
    found: dict[str, str] = {}
    if kind == "train":
        about, tag = f"tags.experiment = '{subject}'", DIGEST_TAG
        models = (folder / "models" / subject).glob("*/")
        digests = {sha256_tree(model) for model in models}
    elif kind == "transcribe":
        about, tag = f"tags.kind = 'transcription' and tags.corpus = '{subject}'", TRANSCRIPTS_TAG
        tables = (folder / "data/transcripts").glob(f"{subject}.parquet")
        digests = {sha256_file(table) for table in tables}
    else:
        return found
    with harmless(address):
        store = open_store(params.tracking)
        runs = store.client.search_runs([store.experiment_id], about)
        ours = [run for run in runs if run.data.tags.get(tag) in digests] or [
            run for run in runs if run.data.tags.get("prefect_flow_run_id") == flow_run
        ]
        where = f"{public_uri(address).rstrip('/')}/#/experiments/{store.experiment_id}/runs"
        found = {str(run.info.run_name): f"{where}/{run.info.run_id}" for run in ours}
    return found


def _keep_view(store: Store, params: Params) -> None:
    text = json.dumps(_view(params), sort_keys=True)
    if store.client.get_experiment(store.experiment_id).tags.get(_TAG) != text:
        store.client.set_experiment_tag(store.experiment_id, _TAG, text)


def _view(params: Params) -> dict[str, object]:
    """The state of MLflow's table of runs: the newest first, its models below a pipeline run."""
    # The widths, in pixels, are those of their headings.
    wide = {
        f"metrics.`{name}`": 26 + 11 * len(name) // 2
        for name in (*(best_metric(table) for table in params.tables), SELECTION_METRIC)
    }
    narrow = {"attributes.`Version`": 80, "tags.`overrides`": 200}
    fixed = {"attributes.`Run Name`": 265, "runDateAndNestInfo": 126, "duration": 68}
    return {
        "selectedColumns": [*wide, *narrow],
        "columnOrder": [*fixed, *wide, *narrow],
        "columnWidths": fixed | wide | narrow,
        "runsHiddenMode": "FIRST_20_RUNS",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
    }
