"""Paired differences between the rows of a table, each with a sentence about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewline.core.files import read_stage_output
from brewline.report.tables import Table


@dataclass(frozen=True)
class Comparison:
    """A paired difference between two rows, in points of recall@1."""

    row: str
    baseline: str
    split: str
    direction: str
    difference: float
    low: float
    high: float
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
    known = {row.name for row in table.rows}
    path = evaluation_dir / table.name / "comparisons.json"
    comparisons = []
    for entry in read_stage_output(path, "score"):
        split, direction = entry["metric"].split("/")[:2]
        if split != table.split or not {entry["row"], entry["baseline"]} <= known:
            continue
        comparisons.append(
            Comparison(
                row=entry["row"],
                baseline=entry["baseline"],
                split=split,
                direction=direction,
                difference=entry["difference"],
                low=entry["low"],
                high=entry["high"],
                verdict=verdict(entry, table.num_images, confidence_percent),
            )
        )
    return comparisons


def verdict(entry: Mapping[str, Any], num_images: int, confidence_percent: str) -> str:
    """Says in one sentence what a paired difference shows.

    Args:
        entry: row, baseline, and difference, low, high as fractions.
        num_images: How many pictures the interval was bootstrapped over.
        confidence_percent: As in `95`.
    """
    low, high = 100 * entry["low"], 100 * entry["high"]
    points = 100 * entry["difference"]
    if low > 0 or high < 0:
        word = "better" if low > 0 else "worse"
        ends = sorted((abs(low), abs(high)))
        return (
            f"{entry['row']} is {word} than {entry['baseline']} by {abs(points):.1f} points "
            f"({ends[0]:.1f} to {ends[1]:.1f})"
        )
    return (
        f"no difference between {entry['row']} and {entry['baseline']} that these "
        f"{num_images} pictures can show ({points:+.1f} points, {confidence_percent} % interval "
        f"{low:+.1f} to {high:+.1f})"
    )
