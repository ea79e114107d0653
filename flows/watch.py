"""Flow `watch`: runs the pipeline when the files of a corpus have changed where they lie.

Only files on this machine can be watched; others are fetched once and known by their hash.
"""

from pathlib import Path

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from brewline.config import Params, load_params
from brewline.core.files import read_json, write_json
from brewline.core.locks import PIPELINE_LOCK, is_held
from brewline.core.survey import files_at, survey
from brewline.download.local import local_path
from flows.dead_runs import alive
from flows.pipeline import pipeline

_SEEN = Path("work/watch.json")


@flow(name="watch")
def watch() -> list[str]:
    """Compares names, sizes and times of all local source files with those of the last look.

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


def local_files(params: Params) -> dict[str, dict[str, dict[str, int | str]]]:
    """What lies at every local source, by corpus and name; see `survey`."""
    found: dict[str, dict[str, dict[str, int | str]]] = {}
    for corpus in params.corpora:
        files = params.sources[corpus].files
        paths = {name: local_path(file.url) for name, file in files.items()}
        found[corpus] = {
            name: survey(files_at(path)) for name, path in paths.items() if path and path.exists()
        }
    return found
