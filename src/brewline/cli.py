"""The program `brewline`: look at results, search with a trained model, bring runs into MLflow."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# Anything heavy is imported by the command that needs it: `--help` has to be quick.
if TYPE_CHECKING:
    from brewline.search.answer import Answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command in the project's folder.

    Args:
        arguments: As on the command line; by default those of this process.

    Returns:
        0; 1 after a mistake that the user can mend, which is then named in one sentence.
    """
    options = _parser().parse_args(arguments)
    from brewline.core.errors import BrewlineError

    try:
        return int(options.command(options))
    except BrewlineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="brewline", description="Match speech with images: results, search, tracking."
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    _add_search(commands)
    shown = commands.add_parser("results", help="print the results on test")
    shown.set_defaults(command=_results)

    compared = commands.add_parser(
        "compare",
        help="name the headlines that differ between two commits or experiments",
        description="Compares recall@1 of every row, on dev and test, with the intervals of each "
        "side. Whether a difference is one that the pictures can show, the report says, of rows "
        "that are measured together.",
    )
    compared.add_argument(
        "before",
        nargs="?",
        default="HEAD",
        help="a commit, branch or experiment of DVC's (%(default)s)",
    )
    compared.add_argument("after", nargs="?", help="another (default: what lies in metrics/ now)")
    compared.set_defaults(command=_compare)

    _add_export(commands)
    cleaned = commands.add_parser(
        "clean",
        help="name what nothing needs any more, or remove it",
        description="Names outputs of stages that have left dvc.yaml (a corpus, an experiment or a "
        "table that is gone), their entries in dvc.lock, partial work that nothing will resume, "
        "and files in MLflow of deleted runs and of models that are no version any more. DVC's "
        "cache keeps what it has: `dvc gc --workspace` frees that.",
    )
    cleaned.add_argument("--yes", action="store_true", help="remove them")
    cleaned.set_defaults(command=_clean)

    recorded = commands.add_parser(
        "record",
        help="bring every model, transcription and probe into MLflow",
        description="Finds or makes the MLflow run of every transcription and probe, and of every "
        "model that has a row in a table of params.yaml, and completes it from the files; ends "
        "runs whose process is gone; once stage register has run, registers the best model of each "
        "corpus too. Doing it again changes nothing.",
    )
    recorded.add_argument(
        "--tables", nargs="*", metavar="TABLE", help="only the models of these tables"
    )
    recorded.set_defaults(command=_record)
    return parser


def _add_search(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    found = commands.add_parser(
        "search",
        help="find pictures by a recording or words, recordings by a photo, clips by any",
        description="With a model of speech, ranks the pictures of a corpus for a recording or "
        "words, or its recordings for a photo; with a model of sounds, its clips. What a file is, "
        "is decided by its content.",
    )
    asked = found.add_mutually_exclusive_group(required=True)
    asked.add_argument("query", type=Path, nargs="?", help="a recording or a picture")
    asked.add_argument("--text", metavar="WORDS", type=_words, help="words instead of a file")
    found.add_argument(
        "--model",
        type=Path,
        help="a model's folder, as in models/mini-lncoco-full/seed-0 (default: the best on dev, "
        "of the first corpus of speech that has one)",
    )
    found.add_argument(
        "--split", choices=("train", "dev", "test"), default="test", help="default: %(default)s"
    )
    found.add_argument("--top", type=_positive, default=5, help="default: %(default)s")
    found.add_argument("--html", type=Path, help="also write a page with pictures and players")
    found.set_defaults(command=_search)


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    exported = commands.add_parser(
        "export-mteb",
        help="write a table's corpus and results in mteb's formats",
        description="Writes dev and test of the table's corpus as a retrieval task of mteb, both "
        "ways, with recordings and pictures as published, and the scores of its models as mteb "
        "writes results. mteb itself is not needed.",
    )
    exported.add_argument("table", help="one of `tables` in params.yaml")
    exported.add_argument("folder", type=Path, help="is made")
    exported.add_argument(
        "--language", default="eng-Latn", help="of the recordings, as mteb has it (%(default)s)"
    )
    exported.set_defaults(command=_export_mteb)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def _words(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("there are no words in it")
    return text


def _search(options: argparse.Namespace) -> int:
    from brewline.config import load_params
    from brewline.core.files import write_text
    from brewline.search.page import search_page
    from brewline.search.query import search

    params = load_params()
    query = options.text or options.query
    answer = search(query, params, options.model, options.split, options.top)
    print("\n".join(_answer_lines(answer)))
    if options.html:
        write_text(options.html, search_page(params, query, answer))
        print(f"\nwritten: {options.html}")
    return 0


def _answer_lines(answer: "Answer") -> Iterator[str]:
    where = f"{answer.corpus}, {answer.split}, model {answer.model}"
    if answer.transcript is not None:
        yield f"heard: {answer.transcript or '(nothing)'}"
    yield f"best of {answer.gallery_size} {answer.found} ({where}):"
    width = max((len(hit.utterance_id or hit.image_id) for hit in answer.hits), default=0)
    for hit in answer.hits:
        name = (hit.utterance_id or hit.image_id).ljust(width)
        yield f"{hit.rank:>3}  {hit.score:.3f}  {name}  {hit.caption or ''}".rstrip()


_NEXT = """
The page with pictures and recordings: reports/index.html
To try next:
  source .venv/bin/activate                          then the programs below are found
  brewline search sample/recording.ogg               or a photo, or --text "a small dog"
  dvc exp run --temp -S variants.full.alpha=0.2      one change, in a workspace of its own
  make tables                                        every corpus with pictures x variant x seed
  make ui                                            start flows, compare runs, promote models
"""


def _results(options: argparse.Namespace) -> int:
    from brewline.config import load_params
    from brewline.report.text import results_table

    print(results_table(load_params(), Path("metrics")), end="")
    print(_NEXT, end="")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from brewline.report.changes import changes_text, find_changes, metrics_here, metrics_of

    after = metrics_of(options.after) if options.after else metrics_here()
    print(changes_text(find_changes(metrics_of(options.before), after)), end="")
    return 0


def _export_mteb(options: argparse.Namespace) -> int:
    from brewline.config import choose, load_params
    from brewline.core.errors import BrewlineError
    from brewline.export.mteb import export_mteb

    params = load_params()
    if options.table in params.sound_tables and options.table not in params.tables:
        raise BrewlineError(
            f"{options.table!r} is a table of sounds, whose clips have several frames; "
            "the export is of recordings with one picture each: name one of `tables`"
        )
    table = choose("table", options.table, list(params.tables))
    for name in export_mteb(params, table, options.folder, options.language):
        print(name)
    print(f"\nwritten: {options.folder}; its README.md says how mteb reads it")
    return 0


def _clean(options: argparse.Namespace) -> int:
    from brewline.core.files import human
    from brewline.leftovers import find_leftovers, remove_leftovers

    found = find_leftovers()
    if not found.paths and not found.stages:
        print("nothing is left over")
        return 0
    width = max((len(str(one.path)) for one in found.paths), default=0)
    for one in found.paths:
        print(f"{one.path!s:{width}}  {human(one.size):>9}  {one.why}")
    if found.stages:
        print(f"in dvc.lock, of no stage: {', '.join(found.stages)}")
    if options.yes:
        remove_leftovers(found)
    what = f"{len(found.paths)} paths, {human(sum(one.size for one in found.paths))}"
    print(f"{what}{': removed' if options.yes else '; `brewline clean --yes` removes them'}")
    return 0


def _record(options: argparse.Namespace) -> int:
    from brewline.config import choose, load_params
    from brewline.tracking.recording import record_everything
    from brewline.tracking.registration import register_corpus

    params = load_params()
    known = list(dict.fromkeys([*params.tables, *params.sound_tables]))
    chosen = known if options.tables is None else options.tables
    for name in chosen:
        choose("table", name, known)
    complete = True
    for what, run_id in record_everything(params, chosen).items():
        complete = complete and run_id is not None
        print(f"{what}: {run_id or 'not recorded'}")
    # Before stage register has run, the models may not have been evaluated.
    if options.tables is None and Path("reports/registration.json").exists():
        for corpus in params.measured_corpora:
            registered = register_corpus(params, corpus)
            if registered:
                complete = complete and registered.is_complete
                print("\n".join(registered.lines))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
