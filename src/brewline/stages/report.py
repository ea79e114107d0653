"""Stage `report`: the tables, and one page that shows everything, in `reports/`."""

import argparse
from pathlib import Path

from brewline.config import load_params
from brewline.core.programs import exits_cleanly
from brewline.report.page import project_inputs, write_report


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    write_report(load_params(), project_inputs(), Path("reports"))


if __name__ == "__main__":
    main()
