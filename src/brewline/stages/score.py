"""Stage `score`: what the rows of a table are worth on dev and test, from their vectors alone.

Writes `metrics/<table>.json` and `reports/evaluation/<table>/`, and completes the MLflow runs.
"""

from pathlib import Path

from brewline.core.programs import exits_cleanly
from brewline.evaluation.outputs import write_evaluation
from brewline.evaluation.query_facts import read_query_facts
from brewline.evaluation.score import ModelVectors, score_table
from brewline.evaluation.texts import read_texts, read_word_errors
from brewline.evaluation.vectors import load_vectors
from brewline.models.names import embedded_models
from brewline.stages.arguments import named_argument
from brewline.tracking.recording import record_table


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, name = named_argument(__doc__, "tables")
    table = params.tables[name]
    texts, errors = read_texts(table.data), read_word_errors(table.data)
    facts = read_query_facts(table.data)
    contenders = params.contenders(name)
    models = (
        ModelVectors(row, model, load_vectors(path))
        for row, model, path in embedded_models(params, table.data, table.rows)
    )
    evaluation = score_table(models, texts, facts, errors, table, contenders, params.evaluate)
    write_evaluation(evaluation, Path(f"metrics/{name}.json"), Path("reports/evaluation") / name)
    record_table(params, name)


if __name__ == "__main__":
    main()
