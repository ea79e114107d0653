"""Stage `external`: vectors that others computed, checked, in the form in which `score` takes ours.

They lie in `data/embeddings/<corpus>/<name>/`, as those of an experiment do.
"""

from pathlib import Path

from brewline.core.programs import exits_cleanly
from brewline.evaluation.external import read_external
from brewline.evaluation.vectors import save_vectors
from brewline.models.names import EXTERNAL
from brewline.stages.arguments import named_argument


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, name = named_argument(__doc__, "external")
    one = params.external[name]
    manifest = Path("data/manifest") / f"{one.data}.parquet"
    splits = read_external(Path(one.utterances), Path(one.images), manifest)
    save_vectors(Path("data/embeddings") / one.data / name / f"{EXTERNAL}.safetensors", splits)
    print(f"{name}: {sum(len(split.utterance_ids) for split in splits.values()):,} recordings")


if __name__ == "__main__":
    main()
