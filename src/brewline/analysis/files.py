"""The files of stage `analyse` that are read again; reading them needs no torch."""

from pathlib import Path
from typing import Any

from brewline.core.files import read_stage_output

WORD_ERRORS_FILE = "word_errors.json"
CHANNELS_FILE = "channels.json"
CROPS_FILE = "crops.json"
EXAMPLES_FILE = "examples.json"
ATTENTION_FILE = "attention.json"
KEYWORDS_FILE = "keywords.json"


def read_analysis(folder: Path, name: str) -> Any:
    """Reads one of the files.

    Args:
        folder: `reports/analysis/<table>`.
        name: Of the file.

    Raises:
        BrewlineError: it is missing or damaged.
    """
    return read_stage_output(folder / name, "analyse")
