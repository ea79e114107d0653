"""Stage `validate`: a row in the manifest, or a row in the quarantine, for every utterance."""

import gc
from dataclasses import asdict, replace
from pathlib import Path

from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path, write_json, write_text
from brewline.core.programs import exits_cleanly
from brewline.corpora.readers import READERS
from brewline.corpora.survey import survey
from brewline.corpora.transcripts import with_transcripts
from brewline.media.archives import MediaStore
from brewline.quality.corpus_suites import account, count_words, expect
from brewline.quality.expectations import import_ahead
from brewline.quality.explain import explain
from brewline.quality.page import validation_page
from brewline.quality.results import gather, write_tables
from brewline.quality.verdicts import Judge
from brewline.stages.arguments import corpus_and_utterance
from brewline.tables.parquet import read_frame, read_table


@exits_cleanly
def main() -> None:
    """Runs the stage; with `--explain`, says why an utterance was dropped, and writes nothing."""
    params, corpus, utterance_id = corpus_and_utterance(__doc__)
    limits, source = params.limits_of(corpus), params.sources[corpus]
    facts = Path("data/facts") / corpus
    # It looks through millions of objects, none of which refers to itself: a quarter of the time.
    gc.disable()
    importing = import_ahead()  # beside the reading of the corpus
    store = MediaStore(Path("data/raw") / corpus)
    listings = READERS[source.reader](store, source)
    listings, num_unused = with_transcripts(store, listings, source.transcripts)
    if utterance_id:
        print("\n".join(explain(store, listings, utterance_id, facts, limits)))
        return
    found = survey(store, listings)
    print(f"{corpus}: {found}")
    if source.transcripts:
        imported = sum(row.transcript is not None for row in listings)
        print(f"{corpus}: {imported} transcripts imported, {num_unused} of no utterance left out")
    reports = Path("reports/validation") / corpus
    listed = account(listings, 0)
    verdicts = Judge(store, facts, limits).corpus(listings)
    del listings  # they go with the last verdict: they are as large as all that follows
    with (
        atomic_path(Path(f"data/manifest/{corpus}.parquet")) as manifest,
        atomic_path(Path(f"data/quarantine/{corpus}.parquet")) as quarantine,
    ):
        duplicates, leaks = write_tables(verdicts, corpus, manifest, quarantine)
        dropped, utterances = read_table(quarantine), read_frame(manifest)
        listed = replace(listed, num_quarantined=len(dropped))
        importing.join()
        data_docs = reports / "data_docs" if limits.data_docs else None
        words = count_words(utterances)
        outcomes = expect(utterances, words, listed, leaks, limits, source.expected, data_docs)
        results = gather(utterances, words, dropped, listed, duplicates, leaks, outcomes)
        print(
            f"{corpus}: {results.num_listed} listed = {results.num_good} good + "
            f"{results.num_quarantined} quarantined {results.reasons or ''}"
        )
        write_json(reports / "results.json", {"survey": asdict(found)} | results.as_json())
        write_text(reports / "index.html", validation_page(corpus, results, dropped, store))
        if results.failed:
            raise BrewlineError(results.complaint(corpus))


if __name__ == "__main__":
    main()
