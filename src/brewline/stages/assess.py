"""Stage `assess`: how well a corpus was heard, in numbers and as a page."""

from dataclasses import asdict
from pathlib import Path

from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path, write_json, write_text
from brewline.core.programs import exits_cleanly
from brewline.media.archives import MediaStore
from brewline.quality.transcript_suite import expect_transcripts
from brewline.speech.assessment import assess
from brewline.speech.page import transcription_page
from brewline.stages.arguments import named_argument
from brewline.tables.parquet import read_frame, read_table, write_table
from brewline.tables.transcripts import WORD_ERRORS, WORD_ERRORS_FILE


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus = named_argument(__doc__)
    tables = [Path(f"data/{kind}/{corpus}.parquet") for kind in ("manifest", "transcripts")]
    manifest, transcripts = map(read_table, tables)
    utterances, texts = map(read_frame, tables)
    max_rate = params.runtime.max_transcription_failure_rate
    found = assess(manifest, transcripts, expect_transcripts(texts, utterances, max_rate))
    for split, rate in found.splits.items():
        print(
            f"{corpus}, {split}: word error rate {100 * rate.wer:.1f} %, of characters "
            f"{100 * rate.cer:.1f} % ({rate.num_recordings:,} recordings)"
        )
    with atomic_path(Path("reports/transcription") / corpus) as folder:
        folder.mkdir(parents=True)
        write_json(folder / "results.json", found.as_json())
        write_table(folder / WORD_ERRORS_FILE, WORD_ERRORS, map(asdict, found.errors))
        store = MediaStore(Path("data/raw") / corpus)
        page = transcription_page(corpus, found, manifest, transcripts, store)
        write_text(folder / "index.html", page)
    if found.failed:
        raise BrewlineError(found.complaint(corpus))


if __name__ == "__main__":
    main()
