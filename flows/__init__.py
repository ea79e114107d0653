"""The flows that people start from the Prefect UI; the only place that imports prefect.

Run them from the project's folder, as `python -m flows pipeline`.
"""

import logging

from brewline.core.errors import BrewlineError


class _OneSentence(logging.Filter):
    """Keeps Prefect from printing its own traceback under an error that explains itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], BrewlineError):
            record.exc_info = None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(_OneSentence())
