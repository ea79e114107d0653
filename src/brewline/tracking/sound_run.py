"""The runs of models of sounds, completed with what a table says of them."""

from pathlib import Path

from brewline.config import Params
from brewline.core.files import read_json
from brewline.evaluation.sound_table import sound_report_folder
from brewline.models.names import model_folder, model_names
from brewline.tracking.facts import metric_in_mlflow
from brewline.tracking.recording import record


def record_sound_table(params: Params, name: str, project: Path = Path()) -> dict[Path, str | None]:
    """Records every model of the rows of a table of sounds, with its metrics; see `record`.

    Returns:
        The run's id by the model's folder; None where the store did not take it.
    """
    models = read_json(project / sound_report_folder(name) / "models.json")
    found = {}
    for experiment in params.sound_tables[name].rows.values():
        for model in model_names(params, experiment):
            folder = model_folder(experiment, model, project)
            numbers = models[f"{experiment}/{model}"]
            measured = {metric_in_mlflow(metric): value for metric, value in numbers.items()}
            found[folder] = record(folder, params, measured=measured)
    return found
