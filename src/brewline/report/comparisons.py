"""Paired differences between the rows of a table, each with a sentence about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewline.core.files import read_stage_output
from brewline.report.tables import Table


@dataclass(frozen=True)
class Comparison:
    """A paired difference between two rows, in points of recall@1.

    `kind` is `better`, `worse`, or `unclear`: its interval holds zero, or covers no seeds.
    """

    row: str
    baseline: str
    split: str
    direction: str
    difference: float
    low: float
    high: float
    kind: str
    verdict: str


def read_comparisons(
    evaluation_dir: Path, table: Table, confidence_percent: str
) -> list[Comparison]:
    """Reads the differences of one split of one table, each with a sentence about it.

    Args:
        evaluation_dir: `reports/evaluation`.
        table: Names itself and the split, and says how many pictures there are.
        confidence_percent: As in `95`.
    """
    num_seeds = {row.name: row.num_seeds for row in table.rows}
    path = evaluation_dir / table.name / "comparisons.json"
    comparisons = []
    for entry in read_stage_output(path, "score"):
        split, direction = entry["metric"].split("/")[:2]
        names = [entry["row"], entry["baseline"]]
        if split != table.split or not set(names) <= num_seeds.keys():
            continue
        alone = [name for name in names if num_seeds[name] == 1]
        comparisons.append(
            Comparison(
                row=entry["row"],
                baseline=entry["baseline"],
                split=split,
                direction=direction,
                difference=entry["difference"],
                low=entry["low"],
                high=entry["high"],
                kind=kind_of(entry, alone),
                verdict=verdict(entry, alone, table.num_images, confidence_percent),
            )
        )
    return comparisons


def kind_of(entry: Mapping[str, Any], alone: Sequence[str]) -> str:
    """Whether a difference is for the better, for the worse, or unclear; see `verdict`."""
    if alone or entry["low"] <= 0 <= entry["high"]:
        return "unclear"
    return "better" if entry["low"] > 0 else "worse"


def verdict(
    entry: Mapping[str, Any], alone: Sequence[str], num_images: int, confidence_percent: str
) -> str:
    """Says in one sentence what a paired difference shows.

    Args:
        entry: row, baseline, and difference, low, high as fractions.
        alone: Those of the two that were trained from one seed: an interval over pictures does not
            cover how much another seed would differ, and says nothing of who is better.
        num_images: How many pictures the interval was bootstrapped over.
        confidence_percent: As in `95`.
    """
    row, baseline = entry["row"], entry["baseline"]
    low, high = 100 * entry["low"], 100 * entry["high"]
    points = 100 * entry["difference"]
    if low <= 0 <= high:
        return (
            f"no difference between {row} and {baseline} that these {num_images} pictures can "
            f"show ({points:+.1f} points, {confidence_percent} % interval {low:+.1f} to "
            f"{high:+.1f})"
        )
    ends = sorted((abs(low), abs(high)))
    span = f"({ends[0]:.1f} to {ends[1]:.1f})"
    if alone:
        side = "higher" if low > 0 else "lower"
        have = "have one seed each" if len(alone) > 1 else "has one seed"
        return (
            f"{row} scored {abs(points):.1f} points {side} than {baseline} {span}, but "
            f"{' and '.join(alone)} {have}: only more of them can tell that from luck"
        )
    word = kind_of(entry, alone)
    return f"{row} is {word} than {baseline} by {abs(points):.1f} points {span}"
