"""Stage `weights`: the frozen backbones, verified and named by hash, in `models/backbones/`."""

import argparse
from pathlib import Path

from brewline.config import load_params
from brewline.core.files import atomic_path
from brewline.core.programs import exits_cleanly
from brewline.models.weights import prepare_backbones


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with atomic_path(Path("models/backbones")) as partial:
        prepare_backbones(load_params().backbones, partial)


if __name__ == "__main__":
    main()
