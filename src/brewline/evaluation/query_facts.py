"""What is known of each recording of test, by which recall is split up."""

from dataclasses import dataclass
from pathlib import Path

from brewline.tables.parquet import read_table


@dataclass(frozen=True)
class QueryFacts:
    """A recording that asks for its picture.

    `level_range_db` is how far its loud parts are above its quiet ones, which noise narrows; None:
    nobody measured it.
    """

    speaker_id: str
    duration_s: float
    level_range_db: float | None


def read_query_facts(corpus: str, project: Path = Path()) -> dict[str, QueryFacts]:
    """Reads the facts of test by utterance id, from the manifest and from what inspection found.

    Raises:
        BrewlineError: a table is missing or damaged.
    """
    # By the hash of their bytes: a manifest has the path that the corpus lists, the facts have the
    # one that is stored.
    facts = project / f"data/facts/{corpus}/recordings.parquet"
    level_range_of = {
        row["sha256"]: row["level_dbfs"] - row["noise_dbfs"]
        for row in read_table(facts, ["sha256", "level_dbfs", "noise_dbfs"])
        if row["level_dbfs"] is not None
    }
    columns = ["utterance_id", "split", "speaker_id", "duration_s", "audio_sha256"]
    return {
        row["utterance_id"]: QueryFacts(
            row["speaker_id"], row["duration_s"], level_range_of.get(row["audio_sha256"])
        )
        for row in read_table(project / f"data/manifest/{corpus}.parquet", columns)
        if row["split"] == "test"
    }
