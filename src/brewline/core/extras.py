"""Packages that not every installation has: imported where they are needed, or named."""

import os
from typing import Any

from brewline.core.errors import BrewlineError


def transformers_class(name: str, model: str, extra: str) -> Any:
    """A class of transformers, which says nothing on the terminal.

    Args:
        name: Of the class.
        model: What people call what needs it.
        extra: Of our package, which installs transformers.

    Raises:
        BrewlineError: transformers is not installed.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        import transformers
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise BrewlineError(
            f"{model} needs {error.name}: `uv pip install '.[{extra}]'`", "settings"
        ) from None
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return getattr(transformers, name)
