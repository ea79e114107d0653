"""The tracking store: where it is, how it is opened, and what its failures mean."""

import errno
import functools
import logging
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from brewline.config.runtime import TrackingParams
from brewline.core.errors import BrewlineError
from brewline.core.locks import locked
from brewline.tracking.moved_store import ARTIFACTS, mend_moved_store

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# MLflow's own defaults phone home, chat, and wait four minutes for a server that is down.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# The folders in which experiments have theirs: DVC's, and the flows'.
_EXPERIMENTS = ((".dvc", "tmp", "exps"), ("work", "workspaces"))
_NOISY_LOGGERS = ("mlflow", "alembic", "urllib3.connectionpool")
_OUTAGES = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")


@dataclass(frozen=True)
class Store:
    """An open tracking store and the experiment in it."""

    client: "MlflowClient"
    uri: str
    experiment_id: str


class RefusedError(Exception):
    """The store is there, but did not take what it was given."""


class StoreSettingsError(BrewlineError):
    """The store cannot be opened as it is: what names it, or what is in it, has to be mended."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "settings")


def tracking_uri(project: Path = Path()) -> str:
    """Returns `MLFLOW_TRACKING_URI`, else the SQLite file in the project's folder, absolute.

    An experiment's is that of the project around it: its own folder is removed one day.
    """
    configured = os.environ.get("MLFLOW_TRACKING_URI")
    lasting = project_around(project) or project.absolute()
    return configured or f"sqlite:///{lasting}/mlflow.db"


def project_around(folder: Path) -> Path | None:
    """The project that an experiment belongs to, or None where a folder is the project itself.

    An experiment is a run with overrides, or one of `dvc exp run --temp`, in a copy of the project.
    """
    for parent in folder.absolute().parents:
        for kind in _EXPERIMENTS:
            if parent.parts[-len(kind) :] == kind:
                return parent.parents[len(kind) - 1]
    return None


def public_uri(uri: str) -> str:
    """Returns the URI without user, password and query, fit to be written down."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", "")) if host else uri.split("?")[0]


def _database(uri: str) -> Path | None:
    """The file of a SQLite store, else None."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


def lock_file(uri: str) -> Path:
    database = _database(uri)
    # A server's runs are looked for and made by processes of this project: lock in its folder.
    return Path(f"{database}.lock") if database else Path("work/tracking.lock")


@contextmanager
def interpreted() -> Iterator[None]:
    """Turns every way in which a store fails into OSError (an outage) or RefusedError."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        if error.error_code in _OUTAGES:
            raise _os_error(error) from error
        raise RefusedError(_first_sentence(error)) from error
    except ImportError as error:
        raise RefusedError(
            f"its driver is not installed ({error}); for PostgreSQL: `uv pip install psycopg`, and "
            "postgresql+psycopg:// in the address; for S3: `uv pip install boto3`"
        ) from error
    # An address that means nothing is no outage, which would be waited for.
    except ArgumentError as error:
        raise RefusedError(_first_sentence(error)) from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise _os_error(error) from error


def _os_error(error: Exception) -> OSError:
    """What failed of a store; a full disk is no outage, and is told as what it is."""
    if "database or disk is full" in str(error):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return OSError(str(error))


def _first_sentence(error: Exception) -> str:
    """The first line of what a library says, and the next one where the first only leads to it."""
    first, *rest = str(error).splitlines() or [type(error).__name__]
    return f"{first} {rest[0]}" if rest and first.rstrip().endswith(":") else first


@functools.cache
def say_once(uri: str) -> None:
    """Says that the store cannot be reached, once in a process."""
    sys.stderr.write(
        f"brewline: MLflow at {public_uri(uri)} cannot be reached; the work goes on, and "
        "`brewline record` brings its runs in later.\n"
    )


@contextmanager
def harmless(uri: str) -> Iterator[None]:
    """Lets no failure of the store cost the work that is tracked; the block ends where it failed.

    Every error counts: clients of stores raise errors of their own kinds.

    Raises:
        BrewlineError: the project itself lacks something; not an error of the store.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, BrewlineError) and not isinstance(error, StoreSettingsError):
            raise
        say_failure(uri, error)


def say_failure(uri: str, error: Exception) -> None:
    """Says in one sentence, once, what failed of a store, and what becomes of it."""
    try:
        with interpreted():
            raise error
    except StoreSettingsError:
        _write_once(f"brewline: {error}; `brewline record` brings the runs in later.\n")
    except Exception as told:  # noqa: BLE001
        if _is_outage(told):
            say_once(uri)
            return
        why = " ".join(str(told).split()) or type(told).__name__
        _write_once(
            f"brewline: MLflow at {public_uri(uri)} did not take everything ({why}); the work "
            "goes on, and `brewline record` tries again.\n"
        )


def _is_outage(error: Exception) -> bool:
    # A number is the file system's, a response that of a server that is there.
    is_connection = isinstance(error, ConnectionError | TimeoutError)
    answered = getattr(error, "response", None) is not None
    return isinstance(error, OSError) and not answered and (is_connection or error.errno is None)


@functools.cache
def _write_once(text: str) -> None:
    sys.stderr.write(text)


def open_store(tracking: TrackingParams, project: Path = Path()) -> Store:
    """Opens the tracking store; makes its schema and the experiment where they are new.

    A SQLite store whose folder was moved or copied finds its artifacts beside it again.

    Args:
        tracking: Names the experiment.
        project: The folder of the SQLite file, where no server is configured.

    Raises:
        OSError: the store cannot be reached.
        StoreSettingsError: it is there, but its schema is old or the experiment was deleted.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    uri = tracking_uri(project)
    database = _database(uri)
    try:
        # Four processes that open a new database at once race in its migrations, and three die.
        with locked(lock_file(uri)), interpreted():
            if database:
                sqlite3.connect(database).close()
                mend_moved_store(database)
            client = MlflowClient(tracking_uri=uri)
            return Store(client, uri, _experiment(client, tracking.experiment, database))
    except RefusedError as error:
        raise StoreSettingsError(f"MLflow at {public_uri(uri)} refuses: {error}") from None


def _experiment(client: "MlflowClient", name: str, database: Path | None) -> str:
    """Finds or makes the experiment; returns its id."""
    found = client.get_experiment_by_name(name)
    if found is None:
        # Without a server MLflow would put artifacts under whatever folder it was started in.
        folder = database.absolute().parent / ARTIFACTS / name if database else None
        return str(client.create_experiment(name, folder.as_uri() if folder else None))
    if found.lifecycle_stage != "active":
        raise StoreSettingsError(
            f"the MLflow experiment {name!r} was deleted; restore it, or name another one in "
            "tracking.experiment of params.yaml"
        )
    return str(found.experiment_id)
