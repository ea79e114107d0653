"""Units done as the tasks of a Ray cluster, whose machines see one file system.

https://docs.ray.io/en/latest/ray-core/tasks.html. Tasks, not Ray Data or actors: a unit that is
lost with its machine is given to another one, and nothing but its few words travels back.
"""

import collections
import contextlib
import importlib.metadata
import logging
import os
import pickle
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

from brewline.core.engine import Job, Slot, UnitFailure
from brewline.core.errors import BrewlineError

U = TypeVar("U")
T = TypeVar("T")
R = TypeVar("R")
P = TypeVar("P")

# Units that each processor, or GPU, of the cluster has waiting, one in work included.
_AHEAD = 2
# How often a unit is given to another machine when its own is lost.
_RETRIES = 3
# How often machines that have joined meanwhile get their share.
_LOOK_EVERY_S = 10.0
# How long no machine may be there for our units; a cluster that grows on demand takes a while.
_PATIENCE_S = 900.0
# Seconds for a head to answer; Ray itself would ask for minutes.
_ANSWER_LIMIT_S = 10.0
# In bytes: what travels is small.
_OBJECT_STORE = 100 << 20
_AUTO_ADDRESS = "RAY_ADDRESS"


class RayCluster:
    """A cluster that runs already, or one of this machine alone that lasts for the `with` block."""

    def __init__(self, address: str, workers: int) -> None:
        """Args are as for `brewline.core.engines.open_engine`."""
        self._address = address
        self._workers = workers
        self._ray: Any = None
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        # Before it is imported. Nothing here phones home.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # `uv run` would have Ray send the whole project to each machine.
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        # Else it warns that a task without a GPU will see those of its machine some day.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise BrewlineError(
                f"runtime.engine: ray needs Ray ({error}): `uv pip install '.[ray]'`, or set it to "
                "processes",
                "settings",
            ) from None
        self._ray = ray
        with contextlib.ExitStack() as undo:
            start = self._start_here(undo) if self._address == "local" else self._join()
            undo.callback(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
            undo.callback(ray.shutdown)
            self._connect(start)
            # Ray's own handler aborts, and the processes of its agents stay behind for a minute.
            signal.signal(signal.SIGTERM, _end)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.close()

    def _start_here(self, undo: contextlib.ExitStack) -> dict[str, Any]:
        """What starts a cluster of this machine alone, which leaves nothing behind."""
        # Ray's processes would look for the cluster that it names.
        os.environ.pop(_AUTO_ADDRESS, None)
        # Whoever reaches its port could run code as this user, so Ray wants a token. Its own would
        # be written to the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # Ray never removes its logs. The path of a socket may have no more than 107 letters, so it
        # cannot be any folder.
        logs = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
        return {
            "address": "local",
            "num_cpus": self._workers,
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE,
            "_temp_dir": undo.enter_context(logs),
        }

    def _join(self) -> dict[str, Any]:
        """What connects with a cluster that runs.

        Raises:
            BrewlineError: nobody is at that address.
        """
        address, named_by = self._address, "runtime.ray_address"
        if address == "auto":
            address, named_by = os.environ.get(_AUTO_ADDRESS) or address, _AUTO_ADDRESS
        if "://" in address:
            raise BrewlineError(
                f"{named_by} ({address}) is that of a Ray client; run this on a machine of the "
                "cluster and write auto, or give the address of its head, as head:6379",
                "settings",
            )
        if address != "auto":
            host, _, port = address.rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), _ANSWER_LIMIT_S).close()
            except ValueError:
                raise BrewlineError(
                    f"{named_by} ({address}) is neither local nor auto nor like head:6379",
                    "settings",
                ) from None
            except OSError as error:
                raise BrewlineError(
                    f"no Ray cluster answers at {named_by} ({address}): {error}", "network"
                ) from None
        return {"address": address}

    def _connect(self, start: dict[str, Any]) -> None:
        try:
            self._ray.init(
                log_to_driver=False,
                logging_level=logging.ERROR,
                # Our code travels by name.
                runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(_own_paths())}},
                **start,
            )
        except ConnectionError:
            raise BrewlineError(
                "runtime.ray_address is auto, and no Ray runs on this machine: make it part of a "
                "cluster by `ray start` (docs/cluster.md), or write local to start one for the run",
                "settings",
            ) from None
        except self._ray.exceptions.AuthenticationError as error:
            raise BrewlineError(
                f"the Ray cluster does not know this machine's token ({_first_line(error)}); the "
                "same ~/.ray/auth_token has to lie on each machine",
                "settings",
            ) from None
        except RuntimeError as error:
            told = _explain(str(error))
            if told is None:
                raise
            raise told from None

    def num_gpus(self) -> int:
        """GPUs of all machines."""
        return self._capacity("GPU")

    def _capacity(self, resource: str) -> int:
        return int(self._ray.cluster_resources().get(resource, 0))

    def run(self, job: Job[U, T, R, P], units: Sequence[U]) -> Iterator[P | UnitFailure]:
        """See `Engine`. What a unit tells of its progress comes when it is done."""
        ray, resource = self._ray, "GPU" if job.on_gpu else "CPU"
        task = ray.remote(
            num_cpus=1,
            num_gpus=int(job.on_gpu),
            # Of tasks with a GPU each would have a process of its own, and load the model anew.
            max_calls=0,
            # By us: Ray would try a unit that takes too much memory for ever.
            max_retries=0,
            scheduling_strategy="SPREAD",
        )(_entrance())
        job_there = ray.put(pickle.dumps(job))
        place = str(Path.cwd()), installed_version()
        waiting = collections.deque((unit, 0) for unit in units)
        live: dict[Any, tuple[U, int]] = {}
        last_seen = time.monotonic()
        try:
            while waiting or live:
                capacity = self._capacity(resource)
                while waiting and len(live) < max(1, _AHEAD * capacity):
                    unit, losses = waiting.popleft()
                    live[task.remote(*place, job_there, pickle.dumps(unit))] = unit, losses
                # One at a time: each is told as soon as it is done.
                done, _ = ray.wait(list(live), num_returns=1, timeout=_LOOK_EVERY_S)
                for ref in done:
                    unit, losses = live.pop(ref)
                    try:
                        yield from _told(ray.get(ref))
                    except ray.exceptions.RayTaskError as error:
                        # Our code outside of the job; the text of it is the traceback there.
                        yield UnitFailure(str(error), None, ends_all=False)
                    except ray.exceptions.RayError as error:
                        if losses < _RETRIES:
                            waiting.append((unit, losses + 1))
                        else:
                            yield _lost(error)
                if done or capacity:
                    last_seen = time.monotonic()
                elif time.monotonic() - last_seen > _PATIENCE_S:
                    yield _nobody_left(resource)
                    return
        finally:
            for ref in live:
                ray.cancel(ref, force=True)


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _explain(words: str) -> BrewlineError | None:
    """What Ray means, where it refuses this machine."""
    if "Version mismatch" in words:
        found = " ".join(words.split()).removeprefix("Version mismatch: ")
        return BrewlineError(
            f"each machine of a Ray cluster needs the same Ray and Python: {found}", "settings"
        )
    if "No node info found" in words:
        return BrewlineError(
            "this machine is not part of the Ray cluster at runtime.ray_address: `ray start "
            "--address=...` here first (docs/cluster.md), or run this on one that is",
            "settings",
        )
    return None


def _told(answer: Any) -> list[Any]:
    """What a unit told; of a machine that could not begin with it, why."""
    if isinstance(answer, list):
        return answer
    error = BrewlineError(
        f"{answer}; each machine of the cluster needs the project in the same place, on a file "
        "system that they share, and the same environment (docs/cluster.md)",
        "settings",
    )
    return [UnitFailure(str(error), error, ends_all=True)]


def _lost(error: Exception) -> UnitFailure:
    told = BrewlineError(
        f"it took {_RETRIES + 1} processes of the cluster with it; the last one: "
        f"{_first_line(error)}",
        "crash",
    )
    return UnitFailure(str(told), told, ends_all=False)


def _nobody_left(resource: str) -> UnitFailure:
    told = BrewlineError(
        f"no machine of the Ray cluster has had a {resource} for {_PATIENCE_S / 60:.0f} minutes; "
        "start some and run it again: what is finished is kept",
        "busy",
    )
    return UnitFailure(str(told), told, ends_all=True)


def _own_paths() -> list[str]:
    """Where this process finds code that is not installed: the project's, on the shared disk."""
    installed = (sys.prefix, sys.base_prefix)
    return [path for path in map(os.path.abspath, sys.path) if not path.startswith(installed)]


def installed_version() -> str | None:
    """Which Brewline is installed, where it is; its code may be the project's own besides."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("brewline")
    return None


def _entrance() -> Callable[..., Any]:
    """What travels to a machine as it is, as nobody knows yet whether Brewline can be found there.

    Functions inside of functions do; all others go by their name.
    """

    def enter(folder: str, version: str | None, job: bytes, unit: bytes) -> Any:
        import importlib
        import os

        here = os.uname().nodename
        try:
            os.chdir(folder)
            ours = importlib.import_module("brewline.core.ray_engine")
        except OSError as error:
            return f"{here} does not see {folder} ({error.strerror})"
        except ImportError as error:
            return f"{here} cannot run Brewline ({error})"
        theirs = ours.installed_version()
        if version and theirs and version != theirs:
            return f"{here} has Brewline {theirs} instead of {version}"
        return ours.do_unit(job, unit)

    return enter


# Of the process that Ray runs tasks in: loading a model takes longer than many a unit.
_slot: tuple[tuple[bytes, str | None], Slot[Any, Any, Any, Any]] | None = None


def do_unit(job: bytes, unit: bytes) -> list[Any]:
    """A task of Ray's, in the project's folder: does a unit, and hands back what it told.

    Args:
        job: What is done, pickled.
        unit: The unit, pickled.
    """
    global _slot
    # Ray shows each task the GPU that it may use.
    key = job, os.environ.get("CUDA_VISIBLE_DEVICES")
    if _slot is None or _slot[0] != key:
        if _slot is not None:
            _slot[1].close()
        _slot = key, Slot(pickle.loads(job))
    told = list(_slot[1].do(pickle.loads(unit)))
    if any(isinstance(message, UnitFailure) and message.ends_all for message in told):
        # Who comes again has mended it, and starts with a process that is whole.
        _slot[1].close()
        _slot = None
    return told
