"""Line charts as SVG for our pages.

The SVG is written by hand because it takes its colours from the page, light or dark, on screen or
on paper, and because equal data must give equal bytes.
"""

import html
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NUM_STYLES = 8

_WIDTH, _HEIGHT = 380, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 36


@dataclass(frozen=True)
class Series:
    """A line through (x, y) points; `style` picks one of the page's `NUM_STYLES` line styles.

    `mark` is the x of the point to be pointed out; `dots` are points (x, y, low, high) beside the
    line, each with its interval.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: int
    mark: float | None = None
    dots: Sequence[tuple[float, float, float, float]] = ()


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    ticks: list[float]

    def place(self, value: float, start: float, end: float) -> float:
        return start + (value - self.low) / (self.high - self.low) * (end - start)


def _nice_step(span: float, num_ticks: int) -> float:
    """The step of 1, 2 or 5 times a power of ten that gives about `num_ticks` ticks."""
    rough = span / num_ticks
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)


def _axis(values: Sequence[float], from_zero: bool, most: float | None = None) -> _Axis:
    low = 0.0 if from_zero else min(values)
    high = max(values)
    if high <= low:
        high = low + 1.0
    step = _nice_step(high - low, 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if most is not None:
        last = min(last, round(most / step))
    return _Axis(first * step, last * step, [step * n for n in range(first, last + 1)])


def _label(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.10g}" if value == round(value, 6) else f"{value:.6g}"


def line_chart(
    series: Sequence[Series], title: str, x_label: str, y_label: str, in_percent: bool = False
) -> str:
    """Draws lines in one system of axes.

    Args:
        series: The lines; each has points or dots.
        title: Says what is drawn, for those who cannot see it.
        x_label: Below the axis.
        y_label: Above the axis.
        in_percent: Values of y are fractions; the axis runs from 0 in per cent.

    Returns:
        An `<svg>` element, everything in it escaped. Colours come from the classes `s0`, `s1` ...
    """
    factor = 100.0 if in_percent else 1.0
    x_values = [point[0] for one in series for point in (*one.points, *one.dots)]
    y_values = [
        factor * y for one in series for point in (*one.points, *one.dots) for y in point[1:]
    ]
    x_axis = _axis(x_values, from_zero=True)
    y_axis = _axis(y_values, from_zero=in_percent, most=100.0 if in_percent else None)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{html.escape(title)}</title>",
        *_frame(x_axis, y_axis, x_label, y_label),
    ]
    for one in series:
        points = [(x_axis.place(x, _LEFT, _WIDTH - _RIGHT), factor * y) for x, y in one.points]
        places = [(x, y_axis.place(y, _HEIGHT - _BOTTOM, _TOP)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<g class="s{one.style % NUM_STYLES}"><title>{html.escape(one.name)}</title>')
        if places:
            parts.append(f'<polyline points="{path}"/>')
        for x, *values in one.dots:
            left = x_axis.place(x, _LEFT, _WIDTH - _RIGHT)
            top, low, high = (
                y_axis.place(factor * value, _HEIGHT - _BOTTOM, _TOP) for value in values
            )
            parts.append(f'<path class="whisker" d="M{left:.1f} {low:.1f}V{high:.1f}"/>')
            parts.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3"/>')
        for (x, _), (left, top) in zip(one.points, places, strict=True):
            if x == one.mark or len(places) == 1:
                parts.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4"/>')
        parts.append("</g>")
    parts.append("</svg>")
    return "".join(parts)


def histogram(edges: Sequence[float], counts: Sequence[int], title: str, x_label: str) -> str:
    """Draws how many values lie between each two edges.

    Args:
        edges: One more than counts, rising.
        counts: Not all of them zero.
        title: Says what is drawn, for those who cannot see it.
        x_label: Below the axis.

    Returns:
        An `<svg>` element, everything in it escaped.
    """
    x_axis = _axis(edges, from_zero=False)
    y_axis = _axis(counts, from_zero=True)
    bottom = _HEIGHT - _BOTTOM
    parts = [
        f'<svg class="chart s1" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{html.escape(title)}</title>",
        *_frame(x_axis, y_axis, x_label, "count"),
    ]
    for (low, high), count in zip(itertools.pairwise(edges), counts, strict=True):
        left, right = (x_axis.place(x, _LEFT, _WIDTH - _RIGHT) for x in (low, high))
        top = y_axis.place(count, bottom, _TOP)
        if count:
            parts.append(
                f'<path class="column" d="M{left:.1f} {bottom}V{top:.1f}H{right:.1f}V{bottom}Z">'
                f"<title>{low:g} to {high:g}: {count:,}</title></path>"
            )
    parts.append("</svg>")
    return "".join(parts)


@dataclass(frozen=True)
class Range:
    """A value with its interval, as fractions; `style` as of a line."""

    name: str
    value: float
    low: float
    high: float
    style: int


def range_chart(
    groups: Sequence[tuple[str, Sequence[Range]]], title: str, x_label: str, height: int = 11
) -> str:
    """Draws values with their intervals in per cent, one below the other, by groups.

    Args:
        groups: What stands at the left, and the values of it; some of them may have none.
        title: Says what is drawn, for those who cannot see it.
        x_label: Below the axis.
        height: Of a value.

    Returns:
        An `<svg>` element, everything in it escaped. Colours come from the classes `s0`, `s1` ...
    """
    left, right = 96, _WIDTH - _RIGHT
    highs = [100 * one.high for _, values in groups for one in values]
    axis = _axis([*highs, 1.0], from_zero=True, most=100.0)
    parts, top = [], float(_TOP)
    for name, values in groups:
        middle = top + height * max(1, len(values)) / 2
        text = html.escape(name)
        parts.append(f'<text x="{left - 6}" y="{middle + 4:g}" text-anchor="end">{text}</text>')
        for row, one in enumerate(values):
            low, value, high = (
                axis.place(100 * x, left, right) for x in (one.low, one.value, one.high)
            )
            y = top + height * (row + 0.5)
            parts.append(
                f'<g class="s{one.style % NUM_STYLES}"><title>{html.escape(one.name)}</title>'
                f'<path class="whisker" d="M{low:.1f} {y:g}H{high:.1f}"/>'
                f'<circle cx="{value:.1f}" cy="{y:g}" r="3"/></g>'
            )
        top += height * max(1, len(values)) + 8
    grid = [
        f'<path class="grid" d="M{x:.1f} {_TOP}V{top:g}"/>'
        f'<text x="{x:.1f}" y="{top + 14:g}" text-anchor="middle">{_label(tick)}</text>'
        for tick in axis.ticks
        for x in [axis.place(tick, left, right)]
    ]
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {top + 34:g}" role="img">'
        f"<title>{html.escape(title)}</title>{''.join([*grid, *parts])}"
        f'<text x="{(left + right) / 2:g}" y="{top + 30:g}" text-anchor="middle">'
        f"{html.escape(x_label)}</text></svg>"
    )


def _frame(x_axis: _Axis, y_axis: _Axis, x_label: str, y_label: str) -> Iterator[str]:
    """Yields grid lines and labels."""
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for tick in y_axis.ticks:
        top = y_axis.place(tick, bottom, _TOP)
        yield f'<path class="grid" d="M{_LEFT} {top:.1f}H{right}"/>'
        yield f'<text x="{_LEFT - 6}" y="{top + 4:.1f}" text-anchor="end">{_label(tick)}</text>'
    for tick in x_axis.ticks:
        left = x_axis.place(tick, _LEFT, right)
        yield f'<text x="{left:.1f}" y="{bottom + 15}" text-anchor="middle">{_label(tick)}</text>'
    middle_x, middle_y = (_LEFT + right) / 2, (_TOP + bottom) / 2
    yield f'<path class="axis" d="M{_LEFT} {bottom}H{right}"/>'
    yield (
        f'<text x="{middle_x:g}" y="{_HEIGHT - 4}" text-anchor="middle">{html.escape(x_label)}'
        "</text>"
    )
    yield (
        f'<text transform="translate(11 {middle_y:g}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_label)}</text>"
    )


def interval_bar(low: float, value: float, high: float, span: float, kind: str) -> str:
    """Draws a value and its interval on a line from -span to span with a mark at zero.

    Args:
        low: Lower end of the interval.
        value: The value.
        high: Upper end.
        span: Half of what the line covers; the same for bars that are to be compared.
        kind: `better`, `worse` or `unclear`, by which it is coloured.

    Returns:
        An `<svg>` element of the class `interval`.
    """
    axis = _Axis(-span, span, [])
    left, middle, right = (axis.place(x, 4, 156) for x in (low, value, high))
    return (
        f'<svg class="interval {kind}" viewBox="0 0 160 18" aria-hidden="true">'
        '<path class="grid" d="M4 9H156"/><path class="axis" d="M80 1V17"/>'
        f'<path class="bar" d="M{left:.1f} 9H{right:.1f}"/>'
        f'<circle cx="{middle:.1f}" cy="9" r="4"/></svg>'
    )
