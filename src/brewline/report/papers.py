"""The papers' tables over all corpora: what they are made of, and their files."""

import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewline.core.files import atomic_path
from brewline.report.published import NOTHING

# Beside the page.
PAPERS_FOLDER = "papers"


@dataclass(frozen=True)
class PaperCell:
    """A number as a fraction; what others print has no interval, and a gallery of its own."""

    value: float
    low: float | None = None
    high: float | None = None
    seeds: int | None = None
    gallery: int | None = None

    @property
    def text(self) -> str:
        """In per cent."""
        return f"{100 * self.value:.1f}"

    @property
    def note(self) -> str:
        """Both ends of the interval in per cent, or among how many others looked, or nothing."""
        if self.gallery is not None:
            return f"of {self.gallery:,}"
        if self.low is None or self.high is None:
            return ""
        return f"{100 * self.low:.1f}–{100 * self.high:.1f}"  # noqa: RUF001 - a range


@dataclass(frozen=True)
class PaperColumn:
    """A metric on a corpus; `sizes` says of how many it is.

    `about` is what tells its columns apart, and stands with the corpus above those that share it.
    """

    corpus: str
    about: str
    label: str
    metric: str
    sizes: str

    @property
    def group(self) -> str:
        """What stands above columns that belong together."""
        return f"{self.corpus}, {self.about}"


@dataclass(frozen=True)
class PaperLine:
    """A line, with a cell or None for each column; `what` says what it is, how it was chosen.

    `is_measured` where we did it; else others published it.
    """

    name: str
    what: str
    is_measured: bool
    cells: list[PaperCell | None]


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper over our corpora; `notice` is about those that are generated."""

    number: int
    title: str
    said: str
    notice: str
    columns: list[PaperColumn]
    lines: list[PaperLine]

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"table-{self.number}"

    @property
    def labelled_groups(self) -> list[tuple[str, list[str], str]]:
        """What stands above the columns, the labels below it, and of how many they are."""
        grouped = itertools.groupby(self.columns, lambda column: (column.group, column.sizes))
        return [(group, [one.label for one in each], sizes) for (group, sizes), each in grouped]

    @property
    def groups(self) -> list[tuple[str, str, int]]:
        """What stands above the columns, of how many they are, and how many columns each has."""
        return [(group, sizes, len(labels)) for group, labels, sizes in self.labelled_groups]


def write_papers(tables: Sequence[PaperTable], folder: Path) -> None:
    """Writes each table as Markdown and as CSV into `folder`, which is replaced as a whole."""
    with atomic_path(folder) as partial:
        partial.mkdir()
        for table in tables:
            (partial / f"{table.name}.md").write_text(paper_markdown(table), encoding="utf-8")
            (partial / f"{table.name}.csv").write_text(_csv(table), encoding="utf-8")


def paper_markdown(table: PaperTable) -> str:
    """A table with its title and what is to be known of it."""
    lines = [f"## Table {table.number}: {table.title}", ""]
    lines += [f"> {table.notice}", ""] if table.notice else []
    lines += [table.said, ""]
    lines += [
        f"- {group}, {', '.join(labels)}: {sizes}" for group, labels, sizes in table.labelled_groups
    ]
    heads = [f"{column.group}, {column.label}" for column in table.columns]
    lines += ["", f"| line | {' | '.join(heads)} | what |", f"|---|{'--:|' * len(heads)}---|"]
    for line in table.lines:
        cells = [
            NOTHING if cell is None else cell.text + f" ({cell.note})" * bool(cell.note)
            for cell in line.cells
        ]
        lines.append(f"| {line.name} | {' | '.join(cells)} | {line.what} |")
    return "\n".join([*lines, ""])


def _csv(table: PaperTable) -> str:
    """A line for each number, in fractions."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        [
            *("line", "what", "measured_here", "corpus", "measured_on", "metric"),
            *("value", "low", "high", "num_seeds", "published_gallery"),
        ]
    )
    for line in table.lines:
        for column, cell in zip(table.columns, line.cells, strict=True):
            if cell is not None:
                writer.writerow(_csv_row(line, column, cell))
    return buffer.getvalue()


def _csv_row(line: PaperLine, column: PaperColumn, cell: PaperCell) -> list[Any]:
    numbers = (cell.value, cell.low, cell.high, cell.seeds, cell.gallery)
    return [
        line.name,
        line.what,
        "yes" if line.is_measured else "no",
        column.corpus,
        column.sizes if line.is_measured else "",
        column.metric,
        *("" if one is None else one for one in numbers),
    ]
