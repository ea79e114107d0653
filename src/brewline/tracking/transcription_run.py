"""The run of a transcription, completed from its files, or made from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewline.config import Params
from brewline.config.asr import AsrParams
from brewline.config.loading import parse
from brewline.core.files import read_json, sha256_file
from brewline.models.names import BACKBONES_FOLDER, NAMES_FILE
from brewline.tables.parquet import read_column
from brewline.tables.transcripts import FAILED
from brewline.tracking import runs
from brewline.tracking.dvc_lock import locked_stage
from brewline.tracking.facts import transcription_facts
from brewline.tracking.finished_run import complete_run
from brewline.tracking.store import harmless, open_store, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import Run


def record_transcription(
    params: Params,
    corpus: str,
    facts: Mapping[str, Any],
    project: Path = Path(),
    run_id_path: Path | None = None,
) -> str | None:
    """Finds or makes the run of a corpus' transcription, and ends it; see `complete_run`.

    Args:
        params: Name the experiment of MLflow.
        corpus: Its transcripts and its manifest are read.
        facts: From `transcription_facts`: what the transcripts were made with.
        project: The project's folder.
        run_id_path: Is read, where `live` wrote the run's id.

    Returns:
        The run's id; None where the store does not take it, which is said.
    """
    path, run_id = project / _transcripts(corpus), None
    durations_s = read_column(project / _manifest(corpus), "duration_s").to_numpy()
    total_s = float(durations_s.sum())
    done = runs.row_points(
        {
            "step": round(total_s),
            "asr/hours_done": total_s / 3600,
            "asr/num_failed": read_column(path, "status").to_pylist().count(FAILED),
        }
    )

    def missing_points(_: "Run", logged: set[tuple[str, int]]) -> list[runs.Point]:
        return [point for point in done if (point.metric, point.step) not in logged]

    with harmless(tracking_uri()):
        store, result = open_store(params.tracking), (runs.TRANSCRIPTS_TAG, sha256_file(path))
        run = complete_run(store, facts, result, missing_points, run_id_path)
        run_id = str(run.info.run_id)
    return run_id


def record_transcriptions(params: Params, project: Path = Path()) -> dict[str, str | None]:
    """Records the transcription of every corpus whose transcripts DVC knows.

    Returns:
        The run's id by what it is about; None where the store did not take it.
    """
    found = {}
    for corpus in params.corpora:
        facts = _locked_facts(params, corpus, project)
        if facts is not None:
            name = f"transcription of {corpus}"
            found[name] = record_transcription(params, corpus, facts, project)
    return found


def _locked_facts(params: Params, corpus: str, project: Path) -> dict[str, Any] | None:
    """What the transcripts here were made with, as `dvc.lock` has it; None: it does not know.

    Transcripts do not name their settings, and `params.yaml` may have others by now.
    """
    weights = (BACKBONES_FOLDER / NAMES_FILE).as_posix()
    paths = [_transcripts(corpus), _manifest(corpus), weights]
    stage = locked_stage(f"transcribe@{corpus}", paths, project)
    if stage is None:
        return None
    asr = parse(AsrParams, stage["params"]["params.yaml"]["asr"], "dvc.lock")
    whisper = str(read_json(project / weights)["whisper"]["sha256"])
    of_then = params.model_copy(update={"asr": asr})
    return transcription_facts(of_then, corpus, whisper, sha256_file(project / _manifest(corpus)))


def _transcripts(corpus: str) -> str:
    return f"data/transcripts/{corpus}.parquet"


def _manifest(corpus: str) -> str:
    return f"data/manifest/{corpus}.parquet"
