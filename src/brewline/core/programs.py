"""How a stage runs: alone with what it writes, and ended by one sentence."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from brewline.core.errors import BrewlineError, FailureKind, explain
from brewline.core.files import remove, write_json
from brewline.core.locks import locked

FAILURES = Path("work/failures")
LOCKS = Path("work/locks")
# File systems take names of 255 bytes.
_LONGEST_NAME = 200


def failure_file(stage: str) -> Path:
    """Where a stage says how its last run failed; there is none if it did not.

    Args:
        stage: Its address in `dvc.yaml`: its module, and after an @ what it works for.
    """
    return FAILURES / f"{_file_name(stage)}.json"


def _file_name(stage: str) -> str:
    return quote(stage, safe="@ ")[:_LONGEST_NAME]


def _record_failure(stage: str, kind: FailureKind, message: str) -> None:
    # Where there is no room for it, the sentence on the terminal has to do.
    with suppress(OSError):
        write_json(failure_file(stage), {"stage": stage, "kind": kind, "message": message})


def _fail(stage: str, kind: FailureKind, message: str) -> NoReturn:
    _record_failure(stage, kind, message)
    print(f"error: {message}", file=sys.stderr)  # noqa: T201 - the one place that reports errors
    raise SystemExit(1)


@contextmanager
def _alone(arguments: list[str], stage: str) -> Iterator[None]:
    """Holds what a stage writes, however it ends.

    Two of them would remove each other's half of an output. An option (`--dry-run`, `--explain`,
    `--help`) asks for a look, which writes nothing and disturbs nobody.

    Raises:
        BrewlineError: another process holds it.
    """
    if any(argument.startswith("-") for argument in arguments):
        yield
        return

    def refuse(holder: str) -> None:
        raise BrewlineError(
            f"process {holder} is at work on the outputs of {stage} already; wait until it ends, "
            "or end it, then run this again: what it finished is kept",
            "busy",
        )

    with locked(LOCKS / f"{_file_name(stage)}.lock", refuse):
        remove(failure_file(stage))
        yield


def exits_cleanly(main: Callable[[], None]) -> Callable[[], None]:
    """Wraps a stage so that a user's mistake ends it with one sentence and exit code 1.

    Our own mistakes keep their traceback. Either way its file in `work/failures/` says which kind
    of failure it was, because DVC's exit code is 255 for all of them. Who writes what another
    process is writing is refused.
    """

    @functools.wraps(main)
    def wrapper() -> None:
        arguments = sys.argv[1:]
        stage = "@".join([Path(inspect.getfile(main)).stem, *arguments])
        try:
            with _alone(arguments, stage):
                main()
        except BrewlineError as error:
            _fail(stage, error.kind, str(error))
        except KeyboardInterrupt:
            print("interrupted; run it again to continue", file=sys.stderr)  # noqa: T201
            raise SystemExit(130) from None
        except Exception as error:
            told = explain(error)
            if told:
                _fail(stage, told.kind, str(told))
            _record_failure(stage, "crash", f"{type(error).__name__}: {error}")
            raise

    return wrapper
