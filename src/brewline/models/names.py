"""What the folders and files under `models/` are called."""

from pathlib import Path

from brewline.config import Params

# What stage `weights` makes: see `brewline.models.weights`.
BACKBONES_FOLDER = Path("models/backbones")
NAMES_FILE = "backbones.json"
WHISPER_FILE = "whisper.pt"
CLIP_FOLDER = "clip"
# The names that open_clip gives the files of a `local-dir:`.
CLIP_CONFIG = "open_clip_config.json"
CLIP_WEIGHTS = "open_clip_model.safetensors"


def model_names(params: Params, variant: str) -> list[str]:
    """The folders of a variant's models: one per seed, or `frozen` where nothing is trained."""
    if not params.variants[variant].trained:
        return ["frozen"]
    return [f"seed-{seed}" for seed in params.train.seeds]
