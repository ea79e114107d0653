"""Makes the references of the golden tests, for the versions that `versions.yaml` says.

    python tests/golden/make_references.py transcribe

Without a name, of all expensive stages. A reference whose version was not raised is left as it is:
outputs that changed need a new number.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "pipeline"), str(TESTS.parent / "src")]
# As in dvc.yaml.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def main() -> None:
    """Makes the references that are missing or of another version."""
    from golden_worlds import STAGES
    from references import renew

    from brewline.config import load_versions

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"of {', '.join(STAGES)}")
    names = parser.parse_args().stages or list(STAGES)
    if unknown := [name for name in names if name not in STAGES]:
        parser.error(f"unknown stage {unknown[0]!r}; known: {', '.join(STAGES)}")
    versions = load_versions(TESTS.parent / "versions.yaml").model_dump()
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found = STAGES[name](Path(folder))
        try:
            print(renew(name, versions[name], found))
        except AssertionError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
