"""Stage `weights`: the frozen backbones, verified and named by hash, in `models/backbones/`."""

import argparse
from pathlib import Path

from brewline.config import Params, load_params
from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path
from brewline.core.programs import exits_cleanly
from brewline.models.backbones import load_clip, misfits
from brewline.models.hearing import unheard
from brewline.models.names import BACKBONES_FOLDER, CLIP_FOLDER
from brewline.models.weights import are_prepared, prepare_backbones


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    params = load_params()
    # A variant that changed is held against the CLIP that is there.
    if are_prepared(params.backbones, BACKBONES_FOLDER):
        _check(params, BACKBONES_FOLDER)
        return
    with atomic_path(BACKBONES_FOLDER) as partial:
        prepare_backbones(params.backbones, partial)
        _check(params, partial)


def _check(params: Params, folder: Path) -> None:
    """Refuses what these backbones cannot do, hours before training would find out."""
    used = {one.variant: params.variants[one.variant] for one in params.experiments.values()}
    problems = misfits(load_clip(folder / CLIP_FOLDER), used, params.shard)
    problems += unheard(used, params.shard, folder)
    if problems:
        raise BrewlineError("\n  ".join(["params.yaml is not valid:", *problems]), "settings")


if __name__ == "__main__":
    main()
