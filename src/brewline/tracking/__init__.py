"""What was measured and which model is in use, in MLflow.

There is one run per trained model, and one per corpus that is being transcribed, under one parent
per pipeline run; `registry` says what becomes of the best model.

The files of a model are the source of truth; a run is a copy of them that people can compare and
search. `live` writes it while a model trains, `record` completes or makes it from the files, as
often as one likes. A tracking server that cannot be reached never stops the work: one sentence
says so, and the next `record` brings everything in.

A run holds parameters under their names in `params.yaml` (`train.steps`), the curves of
`history.jsonl` under their own names, and the evaluation of the finished model, logged one step
after the last of the curves: MLflow lists and filters by the latest value, and that must be the
chosen checkpoint's. MLflow refuses `@` in names, so recall is `recall_at_1`.

A parent run ends when its children do: it is RUNNING while a child trains, and each child that
ends sets it to FINISHED, or to the worst status among its children.
"""

from brewline.tracking.live_run import LiveRun, live
from brewline.tracking.recording import Evaluation, record, record_corpus
from brewline.tracking.registry import (
    Promotion,
    Registration,
    promote,
    propose,
    register_corpus,
    registered_name,
    rollback,
)
from brewline.tracking.runs import PIPELINE_VARIABLE, pipeline_key, transcription_facts
from brewline.tracking.store import open_store, public_uri, tracking_uri

__all__ = [
    "PIPELINE_VARIABLE",
    "Evaluation",
    "LiveRun",
    "Promotion",
    "Registration",
    "live",
    "open_store",
    "pipeline_key",
    "promote",
    "propose",
    "public_uri",
    "record",
    "record_corpus",
    "register_corpus",
    "registered_name",
    "rollback",
    "tracking_uri",
    "transcription_facts",
]
