"""How a program of ours ends: on one sentence where the user can mend it, and never without DVC."""

import functools
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from brewline.core.errors import BrewlineError, FailureKind, explain
from brewline.core.files import write_json
from brewline.core.system import end_with_parent

FAILURE_FILE = Path("work/failure.json")


def _record_failure(kind: FailureKind, message: str) -> None:
    facts = {"stage": os.environ.get("DVC_STAGE"), "kind": kind, "message": message}
    # Where there is no room for it, the sentence on the terminal has to do.
    with suppress(OSError):
        write_json(FAILURE_FILE, facts)


def _fail(kind: FailureKind, message: str) -> NoReturn:
    _record_failure(kind, message)
    print(f"error: {message}", file=sys.stderr)  # noqa: T201 - the one place that reports errors
    raise SystemExit(1)


def exits_cleanly(main: Callable[[], None]) -> Callable[[], None]:
    """Wraps a program so that a user's mistake ends it with one sentence and exit code 1.

    Our own mistakes keep their traceback. Either way `work/failure.json` says which kind of
    failure it was, because DVC's exit code is 255 for all of them. A stage that DVC started ends
    with DVC.
    """

    @functools.wraps(main)
    def wrapper() -> None:
        if "DVC_STAGE" in os.environ:
            end_with_parent()
        try:
            main()
        except BrewlineError as error:
            _fail(error.kind, str(error))
        except KeyboardInterrupt:
            print("interrupted; run it again to continue", file=sys.stderr)  # noqa: T201
            raise SystemExit(130) from None
        except Exception as error:
            told = explain(error)
            if told:
                _fail(told.kind, str(told))
            _record_failure("crash", f"{type(error).__name__}: {error}")
            raise

    return wrapper
