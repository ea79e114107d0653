"""What was heard in the recordings of dev and test, and what people wrote about them."""

from pathlib import Path

from brewline.evaluation.examples import Texts
from brewline.tables.parquet import read_table


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
