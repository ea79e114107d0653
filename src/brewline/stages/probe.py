"""Stage `probe`: which emotions a linear classifier hears in the vectors of a corpus.

Writes `metrics/probe/<probe>.json` and `reports/emotion/<probe>/`, and a run in MLflow.
"""

from pathlib import Path

from brewline.core.programs import exits_cleanly
from brewline.evaluation.bootstrap import Bootstrap
from brewline.probing.inputs import read_inputs, read_tuned
from brewline.probing.outputs import write_probe
from brewline.probing.probe import run_probe
from brewline.probing.ravdess import gender_of
from brewline.stages.arguments import named_argument
from brewline.tracking.probe_run import record_probe


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, name = named_argument(__doc__, "probes")
    probe, evaluate = params.probes[name], params.evaluate
    recordings, features = read_inputs(params, name)
    if recordings.num_left_out:
        print(f"{name}: {recordings.num_left_out:,} recordings have an emotion and no vectors")
    bootstrap = Bootstrap(evaluate.bootstrap_samples, evaluate.bootstrap_seed, evaluate.confidence)
    # Its speakers are numbered so that it shows; of others nobody says.
    is_ravdess = params.sources[probe.data].reader == "ravdess"
    genders, tuned = gender_of if is_ravdess else None, read_tuned(params, name)
    results = run_probe(recordings, features, probe, bootstrap, genders, tuned)
    write_probe(results, Path(f"metrics/probe/{name}.json"), Path("reports/emotion") / name)
    record_probe(params, name, probe)
    print(f"{name}: {len(features)} features of {len(recordings.utterance_ids):,} recordings")


if __name__ == "__main__":
    main()
