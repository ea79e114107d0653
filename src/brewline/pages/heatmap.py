"""A table of shares as an SVG in which larger ones are darker, for our pages."""

import html
from collections.abc import Sequence

_CELL, _LEFT, _TOP = 46, 76, 24


def heatmap(names: Sequence[str], shares: Sequence[Sequence[float]], title: str) -> str:
    """Draws a square table of shares in per cent.

    Args:
        names: Of the rows, and of the columns.
        shares: A row for each name; fractions from 0 to 1.
        title: Says what is drawn, for those who cannot see it.

    Returns:
        An `<svg>` element, everything in it escaped; its colour is that of the class `s1`.
    """
    size = _CELL * len(names)
    parts = [
        f'<svg class="chart s1" viewBox="0 0 {_LEFT + size} {_TOP + size}" role="img">',
        f"<title>{html.escape(title)}</title>",
    ]
    for number, name in enumerate(names):
        middle = number * _CELL + _CELL // 2
        text = html.escape(name)
        parts.append(
            f'<text x="{_LEFT - 8}" y="{_TOP + middle + 4}" text-anchor="end">{text}</text>'
            f'<text x="{_LEFT + middle}" y="{_TOP - 8}" text-anchor="middle">{text}</text>'
        )
    for row, values in enumerate(shares):
        for column, share in enumerate(values):
            left, top = _LEFT + column * _CELL, _TOP + row * _CELL
            # Half at most, so that the number can be read on it.
            parts.append(
                f'<rect x="{left}" y="{top}" width="{_CELL - 1}" height="{_CELL - 1}" '
                f'fill="currentColor" fill-opacity="{share / 2:.3f}"/>'
                f'<text x="{left + _CELL // 2}" y="{top + _CELL // 2 + 4}" text-anchor="middle">'
                f"{100 * share:.0f}</text>"
            )
    parts.append("</svg>")
    return "".join(parts)
