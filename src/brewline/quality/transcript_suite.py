"""What must hold for the transcripts of a corpus."""

from typing import TYPE_CHECKING, Any

from brewline.core.scripts import has_word
from brewline.quality.expectations import Expectation, rule, run_suites
from brewline.tables.transcripts import DROPPED, FAILED, OK, TRANSCRIPTS

if TYPE_CHECKING:
    import pandas


def expect_transcripts(
    transcripts: "pandas.DataFrame", utterances: "pandas.DataFrame", max_failure_rate: float
) -> list[Expectation]:
    """Holds the transcripts of a corpus against their suite.

    Args:
        transcripts: The table.
        utterances: The manifest.
        max_failure_rate: Share of the recordings that may have failed.

    Returns:
        Every expectation with what was observed.
    """
    import pandas

    failed = float((transcripts["status"] != OK).mean())
    wordless = sum(bool(text) and not has_word(text) for text in transcripts["text"].dropna())
    theirs, ours = set(transcripts["utterance_id"]), set(utterances["utterance_id"])
    facts = {
        "failure_rate": [failed],
        "num_missing": [len(ours - theirs)],
        "num_unknown": [len(theirs - ours)],
        "num_wordless": [wordless],
    }
    tables = {"transcripts": transcripts, "corpus": pandas.DataFrame(facts)}
    return run_suites(tables, _transcripts_suites(utterances, max_failure_rate))


def _transcripts_suites(
    utterances: "pandas.DataFrame", max_failure_rate: float
) -> dict[str, list[Any]]:
    import great_expectations.expectations as gxe

    return {
        "transcripts": [
            gxe.ExpectTableColumnsToMatchOrderedList(
                column_list=TRANSCRIPTS.names,
                **rule("the table has its columns, in their order"),
            ),
            gxe.ExpectColumnValuesToBeUnique(
                column="utterance_id", **rule("no utterance has two rows")
            ),
            gxe.ExpectColumnDistinctValuesToBeInSet(
                column="status",
                value_set=[OK, FAILED, DROPPED],
                **rule("every row is ok, failed or dropped"),
            ),
            gxe.ExpectColumnValuesToNotBeNull(
                column="text", **rule("every row has a text, which may be empty")
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column="avg_logprob", max_value=0.0, **rule("log-probabilities are not positive")
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column="num_frames", min_value=0, **rule("frames are counted")
            ),
        ],
        "corpus": [
            gxe.ExpectColumnMaxToBeBetween(
                column="num_missing",
                max_value=0,
                **rule(f"all {len(utterances):,} good utterances have a row"),
            ),
            gxe.ExpectColumnMaxToBeBetween(
                column="num_unknown", max_value=0, **rule("no row is of another utterance")
            ),
            gxe.ExpectColumnMaxToBeBetween(
                column="failure_rate",
                max_value=max_failure_rate,
                **rule(f"no more than {100 * max_failure_rate:g} % of the recordings failed"),
            ),
            gxe.ExpectColumnMaxToBeBetween(
                column="num_wordless", max_value=0, **rule("a text is empty or has a word")
            ),
        ],
    }
