"""Stage `score_sounds`: what the rows of a table of sounds are worth, from their vectors alone.

Writes `metrics/sounds/<table>.json` and `reports/sounds/<table>/`, and completes the MLflow runs.
"""

from brewline.core.programs import exits_cleanly
from brewline.evaluation.sound_table import (
    SoundModelVectors,
    score_sound_table,
    write_sound_evaluation,
)
from brewline.evaluation.sound_vectors import load_sound_vectors
from brewline.models.names import embedded_models
from brewline.stages.arguments import named_argument
from brewline.tracking.recording import record_sound_table


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, name = named_argument(__doc__, "sound_tables")
    table = params.sound_tables[name]
    models = (
        SoundModelVectors(row, model, load_sound_vectors(path))
        for row, model, path in embedded_models(params, table.data, table.rows)
    )
    evaluation = score_sound_table(models, table, params.evaluate)
    write_sound_evaluation(evaluation, name)
    record_sound_table(params, name)


if __name__ == "__main__":
    main()
