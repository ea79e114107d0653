"""What validation found out about a corpus, as tables and as numbers.

Everything here is a function of the corpus and the parameters: no times, no paths of a machine.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from brewline.quality.corpus_suites import Account
from brewline.quality.expectations import Expectation, complaints
from brewline.quality.leaks import LeakFinder, Leaks
from brewline.quality.verdicts import Verdict, count_reasons
from brewline.tables.listing import SPLITS
from brewline.tables.manifest import MANIFEST, QUARANTINE, sort_manifest
from brewline.tables.parquet import open_table

if TYPE_CHECKING:
    import pandas

_NUM_BINS = 30
# Duplicates that are named; all are counted.
_MAX_DUPLICATES = 1000


@dataclass(frozen=True)
class Distribution:
    """How values are distributed: extremes, quartiles, and a histogram.

    `edges` has one entry more than `counts`.
    """

    minimum: float
    quartiles: tuple[float, float, float]
    maximum: float
    edges: list[float]
    counts: list[int]


@dataclass(frozen=True)
class Results:
    """Everything about a corpus but its tables."""

    num_listed: int
    num_good: int
    num_quarantined: int
    reasons: dict[str, int]
    # By split: utterances, how many of them have no caption, images, speakers, hours.
    splits: dict[str, dict[str, float]]
    num_duplicates: int
    # Good utterances with the bytes of an earlier one: utterance id, that of the earlier one.
    duplicates: list[tuple[str, str]]
    # What dev and test have of an earlier split; of many, some are named.
    leaks: dict[str, Any]
    distributions: dict[str, Distribution]
    expectations: list[Expectation]

    @property
    def failed(self) -> list[Expectation]:
        """The expectations that the corpus does not meet."""
        return [one for one in self.expectations if not one.success]

    def complaint(self, corpus: str) -> str:
        """One sentence about the expectations that are not met, and what is dropped most."""
        failed = self.failed
        sentence = f"{corpus} does not meet {len(failed)} of its expectations: {complaints(failed)}"
        if self.reasons:
            reason, count = next(iter(self.reasons.items()))
            sentence += f". Most are dropped as `{reason}`: {count} of {self.num_quarantined}"
        return sentence

    def as_json(self) -> dict[str, Any]:
        """As `results.json` has it."""
        return asdict(self)


def write_tables(
    verdicts: Iterable[Verdict], corpus: str, manifest: Path, quarantine: Path
) -> tuple[list[tuple[str, str]], Leaks]:
    """Writes the manifest, in its order, and the quarantine, as the verdicts come.

    Returns:
        Good utterances whose recording has the bytes of an earlier one, with the earlier one; and
        what is in two splits.
    """
    duplicates, leaks = [], LeakFinder()
    with open_table(manifest, MANIFEST) as add_good, open_table(quarantine, QUARANTINE) as add_bad:
        for verdict in verdicts:
            if verdict.reason is None:
                add_good(verdict.manifest_row(corpus))
                leaks.add(verdict)
            else:
                add_bad(verdict.quarantine_row())
            if verdict.same_audio_as:
                duplicates.append((verdict.listing.utterance_id, verdict.same_audio_as))
    found = leaks.found()
    del leaks  # which has what the corpus lists; sorting takes as much
    sort_manifest(manifest)
    return duplicates, found


def gather(
    utterances: "pandas.DataFrame",
    num_words: "pandas.Series[int]",
    quarantine: list[dict[str, Any]],
    listed: Account,
    duplicates: list[tuple[str, str]],
    leaks: Leaks,
    expectations: list[Expectation],
) -> Results:
    """Puts together what there is to say about a corpus.

    Args:
        utterances: The manifest.
        num_words: Of its captions; see `count_words`.
        quarantine: Its rows.
        listed: What the corpus lists.
        duplicates: See `write_tables`.
        leaks: See `write_tables`.
        expectations: Their outcomes.
    """
    columns = {"duration_s": utterances["duration_s"], "caption_words": num_words}
    return Results(
        num_listed=listed.num_listed,
        num_good=len(utterances),
        num_quarantined=len(quarantine),
        reasons=count_reasons(quarantine),
        splits={split: _split_facts(utterances[utterances["split"] == split]) for split in SPLITS},
        num_duplicates=len(duplicates),
        duplicates=duplicates[:_MAX_DUPLICATES],
        leaks={
            "num_recordings": len(leaks.recordings),
            "num_pictures": len(leaks.pictures),
            "recordings": leaks.recordings[:_MAX_DUPLICATES],
            "pictures": leaks.pictures[:_MAX_DUPLICATES],
        },
        distributions={
            name: distribution(values) for name, values in columns.items() if len(values)
        },
        expectations=expectations,
    )


def _split_facts(rows: "pandas.DataFrame") -> dict[str, float]:
    return {
        "utterances": len(rows),
        "without_caption": int((rows["caption"].isna() & (rows["captions"].list.len() == 0)).sum()),
        "images": int(rows["image_id"].nunique()),
        "speakers": int(rows["speaker_id"].nunique()),
        "hours": float(rows["duration_s"].sum()) / 3600,
    }


def distribution(values: ArrayLike) -> Distribution:
    """Quartiles and histogram of (num_values,) numbers; whole numbers get bins of whole numbers."""
    array = np.asarray(values)
    low, high = float(array.min()), float(array.max())
    edges = np.linspace(low, high if high > low else low + 1, _NUM_BINS + 1)
    if np.issubdtype(array.dtype, np.integer):
        step = max(1, int(np.ceil((high - low + 1) / _NUM_BINS)))
        edges = np.arange(low, high + step + 1, step)
    counts, _ = np.histogram(array, edges)
    lower, median, upper = (float(value) for value in np.quantile(array, (0.25, 0.5, 0.75)))
    return Distribution(low, (lower, median, upper), high, edges.tolist(), counts.tolist())
