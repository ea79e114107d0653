"""Stage `weights`: the frozen backbones, verified and named by hash, in `models/backbones/`."""

import argparse
from pathlib import Path

from brewline.config import load_params
from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path
from brewline.core.programs import exits_cleanly
from brewline.models.backbones import load_clip, misfits
from brewline.models.names import CLIP_FOLDER
from brewline.models.weights import prepare_backbones


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    params = load_params()
    with atomic_path(Path("models/backbones")) as partial:
        prepare_backbones(params.backbones, partial)
        # Hours before training would find out.
        clip = load_clip(partial / CLIP_FOLDER)
        problems = misfits(clip, params.variants, params.acoustic, params.shard)
        if problems:
            raise BrewlineError("\n  ".join(["params.yaml is not valid:", *problems]), "settings")


if __name__ == "__main__":
    main()
