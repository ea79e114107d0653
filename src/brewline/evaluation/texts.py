"""What was heard in the recordings of dev and test, what people wrote, and how far they differ."""

from pathlib import Path

from brewline.evaluation.examples import Texts
from brewline.speech.error_rates import Errors
from brewline.tables.parquet import read_table
from brewline.tables.transcripts import WORD_ERRORS_FILE


def read_texts(corpus: str, project: Path = Path()) -> dict[str, Texts]:
    """Reads the texts of dev and test by utterance id, from manifest and transcripts.

    Raises:
        BrewlineError: a table is missing or damaged.
    """
    captions = {
        row["utterance_id"]: row["caption"]
        for row in read_table(project / f"data/manifest/{corpus}.parquet")
        if row["split"] != "train"
    }
    return {
        row["utterance_id"]: Texts(row["text"], captions[row["utterance_id"]], row["language"])
        for row in read_table(project / f"data/transcripts/{corpus}.parquet")
        if row["utterance_id"] in captions
    }


def read_word_errors(corpus: str, project: Path = Path()) -> dict[str, Errors]:
    """Reads by utterance id what stage `assess` found; who has no caption is not among them.

    Raises:
        BrewlineError: the table is missing or damaged.
    """
    path = project / "reports/transcription" / corpus / WORD_ERRORS_FILE
    return {row["utterance_id"]: Errors(**row) for row in read_table(path)}
