"""Packages that not every installation has: imported where they are needed, or named."""

import os
from typing import Any

from brewline.core.errors import BrewlineError


def hubert_class() -> Any:
    """Transformers' `HubertModel`, which says nothing on the terminal.

    Raises:
        BrewlineError: transformers is not installed.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        from transformers import HubertModel
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise BrewlineError(
            f"HuBERT needs {error.name}: `uv pip install '.[hubert]'`", "settings"
        ) from None
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return HubertModel
