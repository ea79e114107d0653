"""Stage `score_sounds`: what the rows of a table of sounds are worth, from their vectors alone.

Writes `metrics/sounds/<table>.json` and `reports/sounds/<table>/`, and completes the MLflow runs.
"""

from collections.abc import Iterator
from pathlib import Path

from brewline.config import Params
from brewline.core.programs import exits_cleanly
from brewline.evaluation.sound_table import (
    SoundModelVectors,
    score_sound_table,
    write_sound_evaluation,
)
from brewline.evaluation.sound_vectors import load_sound_vectors
from brewline.models.names import model_names
from brewline.stages.arguments import named_argument
from brewline.tracking.sound_run import record_sound_table


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, name = named_argument(__doc__, "sound_tables")
    table = params.sound_tables[name]
    evaluation = score_sound_table(_vectors(params, name), table, params.evaluate)
    write_sound_evaluation(evaluation, name)
    record_sound_table(params, name)


def _vectors(params: Params, table: str) -> Iterator[SoundModelVectors]:
    data = params.sound_tables[table].data
    for row, experiment in params.sound_tables[table].rows.items():
        for name in model_names(params, experiment):
            path = Path("data/embeddings") / data / experiment / f"{name}.safetensors"
            yield SoundModelVectors(row, f"{experiment}/{name}", load_sound_vectors(path))


if __name__ == "__main__":
    main()
