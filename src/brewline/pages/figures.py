"""Figures of a page, each of which is also a file to print from, and a table of its numbers."""

import csv
import functools
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brewline.core.files import atomic_path
from brewline.pages.charts import Series
from brewline.pages.render import markup, template_text

# Beside the page.
FIGURES_FOLDER = "figures"
_ROW, _SWATCH = 18, 26


@dataclass(frozen=True)
class Figure:
    """A chart, and the numbers that it shows.

    `name` is what its files are called; `svg` is marked as fit for a page; `rows` are those of the
    CSV; `legend` has the style of each line, which the page itself says once for several figures.
    """

    name: str
    title: str
    svg: Any
    rows: Sequence[Mapping[str, Any]]
    legend: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def of(
        words: Iterable[str],
        title: str,
        svg: str,
        rows: Sequence[Mapping[str, Any]],
        legend: Mapping[str, int] | None = None,
    ) -> "Figure":
        """A figure whose name is made of words, of which only letters and digits stay."""
        name = "-".join(re.sub(r"[^A-Za-z0-9_]+", "-", word).strip("-") for word in words)
        return Figure(name, title, markup(svg), rows, legend or {})


def line_rows(lines: Sequence[Series]) -> list[dict[str, Any]]:
    """The numbers of a chart of lines: a row for each point."""
    return [{"line": one.name, "x": x, "y": y} for one in lines for x, y in one.points]


def legend_of(lines: Sequence[Series]) -> dict[str, int]:
    """The style of each line of a chart."""
    return {one.name: one.style for one in lines}


def write_figures(figures: Sequence[Figure], folder: Path) -> None:
    """Writes each figure as SVG and as CSV into `folder`, which is replaced as a whole.

    Raises:
        ValueError: two figures have one name.
    """
    names = [one.name for one in figures]
    if len({*names}) != len(names):
        raise ValueError(f"figures of one name among {sorted(names)}")
    with atomic_path(folder) as partial:
        partial.mkdir()
        for one in figures:
            (partial / f"{one.name}.svg").write_text(alone(one), encoding="utf-8")
            (partial / f"{one.name}.csv").write_text(_csv(one.rows), encoding="utf-8")


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def alone(figure: Figure) -> str:
    """The SVG as a file of its own: with its colours, on white, and with its legend below."""
    svg = str(figure.svg)
    found = re.match(r'<svg class="([^"]*)" viewBox="0 0 (\S+) (\S+)"', svg)
    assert found, svg[:80]
    classes, width, height = found[1], float(found[2]), float(found[3])
    legend = "".join(
        f'<g class="s{style}"><polyline points="8,{height + _ROW * row + 8:g} '
        f'{8 + _SWATCH},{height + _ROW * row + 8:g}"/>'
        f'<text x="{_SWATCH + 16}" y="{height + _ROW * row + 12:g}">{html.escape(name)}</text></g>'
        for row, (name, style) in enumerate(figure.legend.items())
    )
    total = height + _ROW * len(figure.legend)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{classes}" '
        f'viewBox="0 0 {width:g} {total:g}" width="{2 * width:g}" height="{2 * total:g}"'
    )
    body = svg[found.end() :].removesuffix("</svg>")
    attributes, inner = body.split(">", 1)
    style = f'<style>{_style()}</style><rect width="100%" height="100%" fill="#fff"/>'
    return f"{head}{attributes}>{style}{inner}{legend}</svg>\n"


@functools.cache
def _style() -> str:
    """The rules for charts of our pages, with the light colours written out.

    What draws an SVG outside of a browser seldom knows variables.
    """
    sheet = template_text("style.css")
    colours = dict(re.findall(r"(--\w+): (#\w+);", sheet.partition("@media")[0]))
    rules = sheet.partition("/* charts */")[2].partition("/* end of charts */")[0]
    font = "text { font-family: sans-serif; }"
    return font + re.sub(r"var\((--\w+)\)", lambda one: colours[one[1]], rules)
