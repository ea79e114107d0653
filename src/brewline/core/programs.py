"""How a program of ours runs: alone with what it writes, and ended by one sentence."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from brewline.core.errors import BrewlineError, FailureKind, explain
from brewline.core.files import write_json
from brewline.core.locks import locked

FAILURE_FILE = Path("work/failure.json")
LOCKS = Path("work/locks")
# File systems take names of 255 bytes.
_LONGEST_NAME = 200


def _record_failure(kind: FailureKind, message: str) -> None:
    facts = {"stage": os.environ.get("DVC_STAGE"), "kind": kind, "message": message}
    # Where there is no room for it, the sentence on the terminal has to do.
    with suppress(OSError):
        write_json(FAILURE_FILE, facts)


def _fail(kind: FailureKind, message: str) -> NoReturn:
    _record_failure(kind, message)
    print(f"error: {message}", file=sys.stderr)  # noqa: T201 - the one place that reports errors
    raise SystemExit(1)


@contextmanager
def _alone(program: str, arguments: list[str]) -> Iterator[None]:
    """Holds what a program with these arguments writes, however it ends.

    Two of them would remove each other's half of an output. An option (`--dry-run`, `--explain`,
    `--help`) asks for a look, which writes nothing and disturbs nobody.

    Raises:
        BrewlineError: another process holds it.
    """
    if any(argument.startswith("-") for argument in arguments):
        yield
        return
    what = " ".join([program, *arguments])

    def refuse(holder: str) -> None:
        raise BrewlineError(
            f"process {holder} is at work on the outputs of `{what}` already; wait until it ends, "
            "or end it, then run this again: what it finished is kept",
            "busy",
        )

    name = quote(what, safe=" ").replace(" ", "@")[:_LONGEST_NAME]
    with locked(LOCKS / f"{name}.lock", refuse):
        yield


def exits_cleanly(main: Callable[[], None]) -> Callable[[], None]:
    """Wraps a program so that a user's mistake ends it with one sentence and exit code 1.

    Our own mistakes keep their traceback. Either way `work/failure.json` says which kind of
    failure it was, because DVC's exit code is 255 for all of them. Who writes what another process
    is writing is refused.
    """

    @functools.wraps(main)
    def wrapper() -> None:
        try:
            with _alone(Path(inspect.getfile(main)).stem, sys.argv[1:]):
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
