"""Errors that are the user's to mend, and how a program ends on one."""

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NoReturn

from brewline.core.system import end_with_parent

FailureKind = Literal["network", "busy", "time", "data", "memory", "settings", "crash"]

FAILURE_FILE = Path("work/failure.json")


class BrewlineError(Exception):
    """Something outside the code is wrong; the message is one sentence that says what to do.

    Args:
        message: Names the bad value and, where there are any, the choices.
        kind: Decides whether another try can help (DVC's exit code never says).
    """

    def __init__(self, message: str, kind: FailureKind = "data") -> None:
        super().__init__(message)
        self.kind: FailureKind = kind


def _record_failure(kind: FailureKind, message: str) -> None:
    FAILURE_FILE.parent.mkdir(parents=True, exist_ok=True)
    FAILURE_FILE.write_text(
        json.dumps(
            {"stage": os.environ.get("DVC_STAGE"), "kind": kind, "message": message}, indent=2
        )
        + "\n"
    )


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
        except MemoryError:
            _fail("memory", "out of memory; make the batch size of this stage smaller")
        except KeyboardInterrupt:
            print("interrupted; run it again to continue", file=sys.stderr)  # noqa: T201
            raise SystemExit(130) from None
        except Exception as error:
            _record_failure("crash", f"{type(error).__name__}: {error}")
            raise

    return wrapper
