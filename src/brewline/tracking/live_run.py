"""The run of a model that is being trained, or of a corpus that is being transcribed."""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewline.config.runtime import TrackingParams
from brewline.core.files import sha256_tree
from brewline.tracking import runs
from brewline.tracking.pipeline_runs import find_or_make_parent
from brewline.tracking.store import (
    RefusedError,
    Store,
    StoreSettingsError,
    harmless,
    interpreted,
    open_store,
    public_uri,
    say_failure,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow.entities import Run

_FLUSH_AFTER_METRICS = 500
_FLUSH_AFTER_S = 10.0
# A store that failed is asked again after this, and after ten times what the failure took.
_RETRY_AFTER_S = 20.0


@dataclass
class LiveRun:
    """A run that is being written while its work is done; made by `live`.

    While the store is out of reach what is logged is kept, and written once it is back. Whatever
    the store does, no method raises.
    """

    _facts: Mapping[str, Any]
    _tracking: TrackingParams
    _run_id_path: Path
    _uri: str = field(default_factory=tracking_uri)
    _store: Store | None = None
    _run: "Run | None" = None
    _logged: set[tuple[str, int]] = field(default_factory=set)
    _waiting: list[runs.Point] = field(default_factory=list)
    _digest: str | None = None
    _last_flush_s: float = field(default_factory=time.monotonic)
    _next_try_s: float = 0.0
    _monitor: Any = None

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, or None as long as there was no store."""
        return self._run.info.run_id if self._run else None

    def log_row(self, row: Mapping[str, Any]) -> None:
        """Logs a row of `history.jsonl`; a step that the run already has is skipped.

        Args:
            row: `step`, and metrics by name; None is left out.
        """
        self._waiting += runs.row_points(row)
        waited_s = time.monotonic() - self._last_flush_s
        if len(self._waiting) >= _FLUSH_AFTER_METRICS or waited_s > _FLUSH_AFTER_S:
            self._write()

    def model_made(self, model_dir: Path) -> None:
        """Marks the run with the digest of the model's folder, by which `record` finds it."""
        self._digest = sha256_tree(model_dir)
        self._write()

    def begin(self) -> None:
        """Opens the run.

        Raises:
            StoreSettingsError: the store is there but refuses the run; nothing was done yet.
        """
        try:
            with interpreted():
                self._connect()
        except RefusedError as error:
            raise StoreSettingsError(
                f"MLflow at {public_uri(self._uri)} refuses: {error}"
            ) from None
        except StoreSettingsError:
            raise
        except Exception as error:  # noqa: BLE001
            say_failure(self._uri, error)
            self._next_try_s = time.monotonic() + _RETRY_AFTER_S
            if not self._run_id_path.exists():
                runs.save_run_id(self._run_id_path, None, self._uri)

    def end(self, status: str) -> None:
        """Writes what waits, and ends the run with one of MLflow's statuses."""
        if self._monitor:
            with harmless(self._uri):
                self._monitor.finish()
        self._next_try_s = 0.0
        self._write()
        with harmless(self._uri):
            store, run = self._connect()
            store.client.set_terminated(run.info.run_id, status)
            runs.set_parent_status(store, run, child_starts=False)

    def _write(self) -> None:
        """Sends what waits, if it is time to ask the store."""
        self._last_flush_s = started_s = time.monotonic()
        if started_s < self._next_try_s:
            return
        self._next_try_s = started_s + _RETRY_AFTER_S
        with harmless(self._uri):
            self._send(*self._connect())
            self._next_try_s = 0.0
        if self._next_try_s:
            now_s = time.monotonic()
            self._next_try_s = now_s + max(_RETRY_AFTER_S, 10 * (now_s - started_s))

    def _send(self, store: Store, run: "Run") -> None:
        new: dict[tuple[str, int], runs.Point] = {}
        for point in self._waiting:
            if (point.metric, point.step) not in self._logged:
                new.setdefault((point.metric, point.step), point)
        runs.log_points(store, run.info.run_id, list(new.values()))
        self._logged.update(new)
        self._waiting.clear()
        if self._digest is not None:
            store.client.set_tag(run.info.run_id, runs.DIGEST_TAG, self._digest)

    def _connect(self) -> tuple[Store, "Run"]:
        """The open run: at first found or made, and marked as RUNNING by this process."""
        if self._store is not None and self._run is not None:
            return self._store, self._run
        store = open_store(self._tracking)
        run = runs.saved_run(store, self._run_id_path)
        if run is not None:
            self._logged = runs.logged_points(store, run)
        else:
            parent_id = find_or_make_parent(store)
            run = runs.create_run(store, self._facts, parent_id, runs.process_tag())
        # At once: an attempt that fails at what follows must not make a second run.
        runs.save_run_id(self._run_id_path, run.info.run_id, self._uri)
        runs.log_missing_facts(store, run, self._facts)
        for name, value in runs.process_tag().items():
            store.client.set_tag(run.info.run_id, name, value)
        store.client.update_run(run.info.run_id, status="RUNNING")
        runs.set_parent_status(store, run, child_starts=True)
        self._store, self._run = store, run
        self._watch(store, run)
        return store, run

    def _watch(self, store: Store, run: "Run") -> None:
        if not self._tracking.system_metrics:
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
            run.info.run_id, resume_logging=True, tracking_uri=store.uri
        )
        self._monitor.start()


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
    goes away stops nothing, and is written to again once it is back.

    Args:
        facts: From `model_facts`, of a card as far as it is known before training, or from
            `transcription_facts`.
        tracking: The experiment, and whether the machine is watched too.
        run_id_path: Keeps the run's id (`{"run_id", "tracking_uri"}`, the id null without a
            store). A training that is started again with the same file goes on in the same run,
            so it belongs in the stage's work folder.

    Raises:
        StoreSettingsError: the store is there but refuses the run, before anything was done.
    """
    run = LiveRun(facts, tracking, run_id_path)
    with _sigterm_raises():
        run.begin()
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
        finally:
            run.end(status)
