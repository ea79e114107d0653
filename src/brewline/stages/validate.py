"""Stage `validate`: a row in the manifest, or a row in the quarantine, for every utterance."""

from dataclasses import asdict
from pathlib import Path

from brewline.archives import MediaStore
from brewline.corpora import READERS
from brewline.corpora.listing import survey
from brewline.errors import BrewlineError, exits_cleanly
from brewline.files import write_json
from brewline.manifest import MANIFEST, QUARANTINE, write_table
from brewline.quality import check_corpus, count_reasons, expect
from brewline.stages.arguments import corpus_argument


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus = corpus_argument(__doc__)
    root, limits = Path("data/raw") / corpus, params.validation
    source = params.sources[corpus]
    store = MediaStore(root)
    listings = READERS[source.reader](store, source)
    found = survey(store, listings)
    print(
        f"{corpus}: {', '.join(f'{count} {what}' for what, count in found.items())}".replace(
            "_", " "
        )
    )
    verdicts = check_corpus(root, listings, limits, params.runtime.validate_workers)
    manifest = [v.manifest_row(corpus) for v in verdicts if v.reason is None]
    quarantine = [v.quarantine_row() for v in verdicts if v.reason is not None]
    reasons = count_reasons(quarantine)
    print(
        f"{corpus}: {len(listings)} listed = {len(manifest)} good + {len(quarantine)} "
        f"quarantined {reasons or ''}"
    )
    outcomes = expect(manifest, quarantine, len(listings), limits)
    report = {
        "survey": found,
        "num_listed": len(listings),
        "num_good": len(manifest),
        "num_quarantined": len(quarantine),
        "reasons": reasons,
        "expectations": [asdict(outcome) for outcome in outcomes],
    }
    write_json(Path("reports/validation") / corpus / "results.json", report)
    failed = [f"{o.name} ({o.observed})" for o in outcomes if not o.success]
    if failed:
        raise BrewlineError(f"{corpus} does not meet {len(failed)} of its expectations: {failed}")
    write_table(Path(f"data/quarantine/{corpus}.parquet"), QUARANTINE, quarantine)
    write_table(Path(f"data/manifest/{corpus}.parquet"), MANIFEST, manifest)


if __name__ == "__main__":
    main()
