"""Stage `download`: the files of a corpus, verified, in `data/raw/<corpus>/`."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from brewline.config import choose, load_params
from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.core.programs import exits_cleanly


@exits_cleanly
def main() -> None:
    """Runs the stage, or says what it would do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", help="one of `sources` in params.yaml")
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be fetched, and fetch nothing"
    )
    arguments = parser.parse_args()
    params = load_params()
    corpus = choose("corpus", arguments.corpus, list(params.sources))
    source, workers = params.sources[corpus], params.runtime.download_workers
    print(f"{corpus}: {len(source.files)} files, licence {source.licence}")
    if arguments.dry_run:
        _show_plan(corpus, source, workers)
        return

    from brewline.download.corpus import download_corpus

    with _ends_at_once():
        for line in download_corpus(corpus, source, workers):
            print(f"  {line}")


@contextmanager
def _ends_at_once() -> Iterator[None]:
    """Lets Ctrl-C end the process as a kill does.

    A download may be cut anywhere; to unwind it would mean to wait for threads that wait for a
    server.
    """

    def end(number: int, frame: object) -> None:
        sys.stderr.write("\ninterrupted; run it again to continue\n")
        sys.stderr.flush()
        os._exit(130)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _show_plan(corpus: str, source: SourceParams, workers: int) -> None:
    from brewline.core.files import human
    from brewline.download.corpus import make_plan

    plan = make_plan(corpus, source, workers)
    rows = [("file", "size", "state", "from")]
    rows += [(file.name, human(file.size), file.state, file.url) for file in plan.files]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(n) for cell, n in zip(row, widths, strict=False)), row[3]]))
    if source.accept_licence is False:
        print(f"not accepted yet: {source.licence} (sources.{corpus}.accept_licence)")
    at_least = "at least " if any(file.size is None for file in plan.files) else ""
    print(f"still to come {at_least}{human(plan.needed)}, free {human(plan.free)}")
    if plan.shortage:
        raise BrewlineError(plan.shortage, "settings")


if __name__ == "__main__":
    main()
