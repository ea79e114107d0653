"""What the folders and files under `models/` are called."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from brewline.config import Params

# What stage `weights` makes: see `brewline.models.weights`.
BACKBONES_FOLDER = Path("models/backbones")
NAMES_FILE = "backbones.json"
WHISPER_FILE = "whisper.pt"
CLIP_FOLDER = "clip"
HUBERT_FOLDER, AST_FOLDER, CLAP_FOLDER = "hubert", "ast", "clap"
# Of what stage `encode` hears with. By itself: a HuBERT that is added makes no transcript stale.
ENCODERS_FILE = "encoders.json"
# Of what hears sounds, for the same reason.
SOUNDS_FILE = "sounds.json"
# The names that open_clip gives the files of a `local-dir:`.
CLIP_CONFIG = "open_clip_config.json"
CLIP_WEIGHTS = "open_clip_model.safetensors"
# What was learned, in the folder of a model.
TENSORS_FILE = "model.safetensors"
# Samples that could not be read in training, and why; absent where there were none.
SKIPPED_FILE = "skipped_samples.json"


# What others computed is one model, whatever it is.
EXTERNAL = "external"


def model_names(params: Params, experiment: str) -> list[str]:
    """The folders of an experiment's models: one per seed, or `frozen` where nothing is trained.

    Of a set of vectors that others computed it is `external`, which names their file.
    """
    if experiment in params.external:
        return [EXTERNAL]
    seeds = params.seeds_of(experiment)
    return [model_name(None)] if seeds is None else [model_name(seed) for seed in seeds]


def embedded_models(
    params: Params, data: str, rows: Mapping[str, str]
) -> Iterator[tuple[str, str, Path]]:
    """Of each model of a table's rows: the row, `<experiment>/<name>`, and the file of its vectors.

    Args:
        params: The experiments.
        data: The corpus that they are measured on.
        rows: The experiments by the names of their rows.
    """
    for row, experiment in rows.items():
        for name in model_names(params, experiment):
            path = Path("data/embeddings") / data / experiment / f"{name}.safetensors"
            yield row, f"{experiment}/{name}", path


def model_name(seed: int | None) -> str:
    """The folder of the model of a seed, or of what was not trained."""
    return "frozen" if seed is None else f"seed-{seed}"


def model_folder(experiment: str, name: str, project: Path = Path()) -> Path:
    """Where a model lies: `models/<experiment>/<seed-n|frozen>`."""
    return project / "models" / experiment / name
