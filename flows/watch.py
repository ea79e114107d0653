"""Flow `watch`: runs the pipeline when the files of a corpus have changed where they lie.

Only files on this machine can be watched; others are fetched once and known by their hash.
"""

from pathlib import Path

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from brewline.config import Params, load_params
from brewline.core.files import read_json, total_size, write_json
from brewline.core.locks import PIPELINE_LOCK, is_held
from flows.dead_runs import alive
from flows.pipeline import pipeline

_SEEN = Path("work/watch.json")


@flow(name="watch")
def watch() -> list[str]:
    """Compares size and time of every local source file with those of the last look.

    The first look only remembers. A corpus whose files changed is downloaded again, checked
    against its hashes, and whatever depends on it is made anew.

    Returns:
        The corpora that had changed.
    """
    logger = get_run_logger()
    if is_held(PIPELINE_LOCK):
        logger.info("a run is at work: the files are looked at when it has ended")
        return []
    now = local_files(load_params())
    before = read_json(_SEEN) if _SEEN.exists() else now
    changed = [corpus for corpus in now if now[corpus] != before.get(corpus, now[corpus])]
    for corpus in changed:
        logger.info("%s has changed", corpus)
        with alive(Path.cwd(), str(flow_run.get_id())):
            pipeline(from_stage=f"download@{corpus}")
    if not changed:
        logger.info("nothing has changed in %d corpora", len(now))
    # Only now: a run that failed is tried again at the next look.
    write_json(_SEEN, now)
    return changed


def local_files(params: Params) -> dict[str, dict[str, list[int]]]:
    """[size, time of the last change in ns] of every local source, by corpus and name.

    A source that is a folder counts with all its files.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for corpus in params.corpora:
        files = params.sources[corpus].files
        paths = {name: Path(file.url.removeprefix("file://")) for name, file in files.items()}
        found[corpus] = {name: _facts(path) for name, path in paths.items() if path.exists()}
    return found


def _facts(path: Path) -> list[int]:
    inside = [path, *path.rglob("*")] if path.is_dir() else [path]
    return [total_size(path), max(each.stat().st_mtime_ns for each in inside)]
