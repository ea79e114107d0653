"""The run of a whole pipeline, under which its models stand: its name, overrides and numbers."""

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from brewline.config import Params
from brewline.core.files import read_json
from brewline.core.locks import locked
from brewline.evaluation.outputs import ASR_KEY
from brewline.evaluation.scores import SELECTION_METRIC
from brewline.tracking.facts import HEADLINE, MORE
from brewline.tracking.overrides import overrides, overrides_text, present_params
from brewline.tracking.runs import (
    NOTE,
    Point,
    find_run,
    log_points,
    pipeline_key,
    settle_parent,
    source_tags,
)
from brewline.tracking.store import Store, lock_file

if TYPE_CHECKING:
    from mlflow.entities import Run

# What the flow calls its run: the same in both UIs.
NAME_VARIABLE = "BREWLINE_PIPELINE_NAME"
_SWEEP = "sweep-"
_NAME_LENGTH = 200
_WER = "dev/asr/wer"


def best_metric(table: str) -> str:
    """What a pipeline run calls the mean recall at 1 on dev of a table's best row.

    It is short, to be read in a column.
    """
    return f"dev/{table}"


def find_or_make_parent(store: Store) -> str | None:
    """The run of the pipeline run that this process belongs to; None where there is none."""
    key = pipeline_key()
    if key is None:
        return None
    # Two stages of one pipeline start at the same moment, and one of them makes the parent.
    with locked(lock_file(store.uri)):
        parent = find_run(store, f"tags.kind = 'pipeline' and tags.pipeline_run = '{key}'")
        if parent is None:
            return _make(store, key)
        if key.startswith(_SWEEP):
            _join_sweep(store, parent)
    return str(parent.info.run_id)


def _make(store: Store, key: str) -> str:
    from mlflow.entities import Param

    changed, given = overrides(), _lists()
    report = Path("reports/index.html").absolute()
    tags = {
        **source_tags(),
        "kind": "pipeline",
        "pipeline_run": key,
        NOTE: f"Report: `{report}`. The models of this run stand below it.",
    }
    name = _sweep_name(changed) if key.startswith(_SWEEP) else _name(changed)
    made = store.client.create_run(store.experiment_id, tags=tags, run_name=name)
    # Of a sweep every run has others, and a parameter has one value.
    own = {} if key.startswith(_SWEEP) else changed
    params = given | {f"override.{name}": value for name, value in own.items()}
    store.client.log_batch(made.info.run_id, params=[Param(*pair) for pair in params.items()])
    return str(made.info.run_id)


def _lists() -> dict[str, str]:
    """The corpora and experiments of the parameters here."""
    with contextlib.suppress(OSError, yaml.YAMLError, TypeError):
        values = present_params()
        return {
            name: ", ".join(values[name]) for name in ("corpora", "experiments") if values.get(name)
        }
    return {}


def _name(changed: Mapping[str, str]) -> str:
    return _cut(os.environ.get(NAME_VARIABLE) or overrides_text(changed) or "everything")


def _sweep_name(names: Iterable[str]) -> str:
    return _cut(f"sweep of {', '.join(sorted(names))}")


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"


def _join_sweep(store: Store, parent: "Run") -> None:
    """Adds the overrides of this run of a sweep to those that its parent names."""
    ours = overrides_text(changed := overrides())
    known = [text for text in parent.data.tags.get("overrides", "").split("; ") if text]
    if not ours or ours in known:
        return
    names = {part.partition("=")[0] for text in known for part in text.split(", ") if "=" in part}
    text = "; ".join([*known, ours])
    store.client.set_tag(parent.info.run_id, "overrides", text)
    store.client.update_run(parent.info.run_id, name=_sweep_name(names | changed.keys()))


def log_headline(store: Store, params: Params, table: str, metrics_dir: Path) -> None:
    """Writes what a table says of dev to the pipeline run that this process belongs to.

    That is the best row that hears speech, the word error rate, and the metrics by which people
    choose of every row. Of a sweep, the best of all its runs.
    """
    path, parent_id = metrics_dir / f"{table}.json", find_or_make_parent(store)
    if parent_id is None or not path.exists():
        return
    with locked(lock_file(store.uri)):
        run = store.client.get_run(parent_id)
        is_sweep = run.data.tags["pipeline_run"].startswith(_SWEEP)
        now_ms = int(time.time() * 1000)
        wanted = _headline(params, table, read_json(path), is_sweep)
        points = [
            Point(name, value, 0, now_ms)
            for name, value in wanted.items()
            if run.data.metrics.get(name) != value
            and not (is_sweep and run.data.metrics.get(name, value) > value)
        ]
        log_points(store, parent_id, points)
    # It may be new, where all its models were there already.
    settle_parent(store, parent_id)


def _headline(
    params: Params, table: str, metrics: Mapping[str, Mapping[str, float]], is_sweep: bool
) -> dict[str, float]:
    rows = params.tables[table].rows
    ours = [
        metrics[row][SELECTION_METRIC]
        for row, experiment in rows.items()
        if params.hears(experiment) and SELECTION_METRIC in metrics.get(row, {})
    ]
    found = {best_metric(table): max(ours)} if ours else {}
    if is_sweep:
        return found
    if (wer := metrics.get(ASR_KEY, {}).get(_WER)) is not None:
        found[f"dev/{table} word error rate"] = wer
    return found | {
        f"{MORE}/{table}/{row}/{name}": metrics[row][name]
        for row in rows
        for name in HEADLINE
        if metrics.get(row, {}).get(name) is not None
    }


def log_report(store: Store, report: Path, parent_id: str) -> None:
    """Keeps the report with the pipeline run, and links to it in the run's description."""
    if not report.exists():
        return
    store.client.log_artifact(parent_id, str(report), "report")
    page = f"#/experiments/{store.experiment_id}/runs/{parent_id}/artifacts/report/{report.name}"
    text = f"[Report]({page}) of this run (`{report.absolute()}`). Its models stand below it."
    store.client.set_tag(parent_id, NOTE, text)
