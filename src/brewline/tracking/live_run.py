"""The run of a model that is being trained, or of a corpus that is being transcribed."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewline.config.runtime import TrackingParams
from brewline.core.errors import BrewlineError
from brewline.core.files import sha256_tree
from brewline.tracking import runs
from brewline.tracking.store import (
    RefusedError,
    Store,
    interpreted,
    open_store,
    public_uri,
    say_once,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow.entities import Run

_FLUSH_AFTER_METRICS = 500
_FLUSH_AFTER_S = 10.0


@dataclass
class LiveRun:
    """A run that is being written while its work is done; made by `live`.

    Without a store, or once the store is out of reach, every method does nothing.
    """

    _uri: str
    _store: Store | None = None
    _run: "Run | None" = None
    _logged: set[tuple[str, int]] = field(default_factory=set)
    _waiting: list[tuple[str, float, int]] = field(default_factory=list)
    _last_flush_s: float = field(default_factory=time.monotonic)
    _monitor: Any = None

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, or None where there is no store."""
        return self._run.info.run_id if self._run else None

    def log_row(self, row: Mapping[str, Any]) -> None:
        """Logs a row of `history.jsonl`; a step that the run already has is skipped.

        Args:
            row: `step`, and metrics by name; None is left out.
        """
        if self._store is None:
            return
        for name, value, step in runs.row_points(row):
            if (name, step) not in self._logged:
                self._logged.add((name, step))
                self._waiting.append((name, value, step))
        waited_s = time.monotonic() - self._last_flush_s
        if len(self._waiting) >= _FLUSH_AFTER_METRICS or waited_s > _FLUSH_AFTER_S:
            self._do(self._flush)

    def model_made(self, model_dir: Path) -> None:
        """Marks the run with the digest of the model's folder, by which `record` finds it."""
        digest = sha256_tree(model_dir)

        def action(store: Store, run: "Run") -> None:
            store.client.set_tag(run.info.run_id, "model_digest", digest)

        self._do(action)

    def _do(self, action: Callable[[Store, "Run"], None]) -> None:
        if self._store is None or self._run is None:
            return
        try:
            with interpreted():
                action(self._store, self._run)
        except OSError:
            say_once(self._uri)
            self._store = None
        except RefusedError as error:
            sys.stderr.write(f"brewline: MLflow refuses what is logged: {error}\n")
            self._store = None

    def _flush(self, store: Store, run: "Run") -> None:
        points, self._waiting = self._waiting, []
        self._last_flush_s = time.monotonic()
        runs.log_points(store, run.info.run_id, points)

    def _begin(self, system_metrics: bool) -> None:
        def action(store: Store, run: "Run") -> None:
            store.client.update_run(run.info.run_id, status="RUNNING")
            runs.set_parent_status(store, run, child_starts=True)
            if system_metrics:
                from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

                self._monitor = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
                    run.info.run_id, resume_logging=True, tracking_uri=store.uri
                )
                self._monitor.start()

        self._do(action)

    def _end(self, status: str) -> None:
        if self._monitor:
            self._monitor.finish()
        self._do(self._flush)

        def action(store: Store, run: "Run") -> None:
            store.client.set_terminated(run.info.run_id, status)
            runs.set_parent_status(store, run, child_starts=False)

        self._do(action)


def _start(facts: Mapping[str, Any], tracking: TrackingParams, run_id_path: Path) -> LiveRun:
    uri = tracking_uri()
    try:
        store = open_store(tracking)
        with interpreted():
            run = runs.saved_run(store, run_id_path)
            logged = runs.logged_points(store, run) if run else set()
            run = run or runs.create_run(store, facts, {})
            runs.log_missing_facts(store, run, facts)
    except OSError:
        say_once(uri)
        if not run_id_path.exists():
            runs.save_run_id(run_id_path, None, uri)
        return LiveRun(uri)
    except RefusedError as error:
        raise BrewlineError(f"MLflow at {public_uri(uri)} refuses: {error}", "settings") from None
    runs.save_run_id(run_id_path, run.info.run_id, uri)
    return LiveRun(uri, store, run, logged)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Lets SIGTERM unwind the stack, unless somebody handles it already."""

    def handler(number: int, frame: object) -> None:
        # A second one (the kernel sends it when DVC dies too) must not cut off the unwinding.
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    try:
        ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if ours:
            signal.signal(signal.SIGTERM, handler)
    except ValueError:
        # Only the main thread may set handlers; in another one the signal is not ours to see.
        ours = False
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def live(
    facts: Mapping[str, Any], tracking: TrackingParams, run_id_path: Path
) -> Iterator[LiveRun]:
    """Keeps an MLflow run while a model trains, or a corpus is transcribed.

    The run ends FINISHED; FAILED after an exception; KILLED after Ctrl-C or SIGTERM. A store that
    is out of reach stops nothing.

    Args:
        facts: From `model_facts`, of a card as far as it is known before training, or from
            `transcription_facts`.
        tracking: The experiment, and whether the machine is watched too.
        run_id_path: Keeps the run's id (`{"run_id", "tracking_uri"}`, the id null without a
            store). A training that is started again with the same file goes on in the same run,
            so it belongs in the stage's work folder.

    Raises:
        BrewlineError: the store is there but refuses the run.
    """
    run = _start(facts, tracking, run_id_path)
    with _sigterm_raises():
        run._begin(tracking.system_metrics)
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
        finally:
            run._end(status)
