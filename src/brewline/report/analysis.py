"""What the report says of why the rows of a table find what they find, in the words of its page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewline.analysis.files import (
    ATTENTION_FILE,
    CHANNELS_FILE,
    CROPS_FILE,
    EXAMPLES_FILE,
    KEYWORDS_FILE,
    WORD_ERRORS_FILE,
    read_analysis,
)
from brewline.core.errors import BrewlineError
from brewline.evaluation.outputs import IMAGE_TO_SPEECH, SPEECH_TO_IMAGE
from brewline.evaluation.vectors import ACOUSTIC, FUSED, TEXT
from brewline.pages import charts
from brewline.pages.render import data_uri, markup
from brewline.report.analysis_figures import CHANNEL_LABELS, norm_figure, word_error_figure
from brewline.report.examples import ExampleArranger

_SIGNALS = {**CHANNEL_LABELS, FUSED: "their sum"}
_OUTCOMES = {
    "both": "both channels find it",
    TEXT: "F_T alone finds it",
    ACOUSTIC: "F_A alone finds it",
    "neither": "neither finds it",
}
_FINDERS = {ACOUSTIC: "the acoustic channel", TEXT: "the textual channel"}


@dataclass(frozen=True)
class AnalysedTable:
    """A table and what the page knows of its rows.

    `styles` are their lines; of `alone` there is one seed, of which nobody knows how much another
    one would differ.
    """

    name: str
    folder: Path
    styles: Mapping[str, int]
    alone: Sequence[str]


def analysis_section(table: AnalysedTable, arranger: ExampleArranger) -> dict[str, Any]:
    """Everything that stage `analyse` found about a table.

    Args:
        table: Which.
        arranger: Takes the pictures and recordings that are shown.

    Raises:
        BrewlineError: a file is missing, or a picture or recording cannot be read.
    """
    groups = read_analysis(table.folder, EXAMPLES_FILE)
    by_kind: dict[str, list[dict[str, Any]]] = {"repaired": [], "disagree": [], "cropped": []}
    for number, group in enumerate(groups, start=1):
        arranged = arranger.group(f"{table.name}-{group['kind']}-{number}", group)
        by_kind[group["kind"]].append({**group, "examples": arranged})
    crops = read_analysis(table.folder, CROPS_FILE)
    channels = [
        {"row": row, **_channels(table.name, row, found)}
        for row, found in read_analysis(table.folder, CHANNELS_FILE).items()
    ]
    word_errors = _word_errors(table, by_kind["repaired"])
    figures = [word_errors["figure"], *(one["figure"] for one in channels)]
    (cropped,) = by_kind["cropped"]
    return {
        "name": table.name,
        "word_errors": word_errors,
        "channels": channels,
        "figures": [figure for figure in figures if figure],
        "disagreements": [
            {**group, "finder": _FINDERS[group["finder"]]}
            for group in by_kind["disagree"]
            if group["num"]
        ],
        "attention": [
            _attention(table.folder, one, arranger)
            for one in read_analysis(table.folder, ATTENTION_FILE)
        ],
        "keywords": [
            {**one, "audio": arranger.player(one["utterance_id"])}
            for one in read_analysis(table.folder, KEYWORDS_FILE)
        ],
        "crops": {
            **cropped,
            "k": crops["k"],
            "min_lost": f"{100 * cropped['min_lost']:g}",
            "rates": list(_rates(crops["rates"], [*table.styles])),
        },
    }


def _word_errors(table: AnalysedTable, repairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = read_analysis(table.folder, WORD_ERRORS_FILE)
    return {
        **{key: found[key] for key in ("k", "num_queries", "num_images", "num_beyond")},
        "num_without_caption": found["num_without_caption"],
        "figure": word_error_figure(table.name, found, table.styles),
        "fits": [
            {
                "row": one["row"],
                "odds": _odds(one["odds_ratio"]),
                "interval": f"{_end(one['odds_ratio_low'])}–{_end(one['odds_ratio_high'])}",  # noqa: RUF001
                "slope": "–" if one["slope"] is None else f"{one['slope']:+.1f}",  # noqa: RUF001
            }
            for one in found["fits"]
        ],
        "rates": list(_rates(found["rates"], [*table.styles])),
        "differences": list(_differences(found["differences"], table.alone)),
        "repairs": repairs,
    }


def _odds(ratio: float | None) -> str:
    return "cannot be told" if ratio is None else f"× {ratio:.2f}"  # noqa: RUF001


def _end(ratio: float | None) -> str:
    return "?" if ratio is None else f"{ratio:.2f}"


def _differences(
    found: Sequence[Mapping[str, Any]], alone: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yields a bar and a sentence for each pair whose slopes are known."""
    known = [one for one in found if None not in (one["difference"], one["low"], one["high"])]
    span = max((max(abs(one["low"]), abs(one["high"])) for one in known), default=0.0) or 1.0
    for one in known:
        unsure = [row for row in (one["row"], one["baseline"]) if row in alone]
        kind, sentence = slopes_verdict(one, unsure)
        bar = charts.interval_bar(one["low"], one["difference"], one["high"], span, kind)
        yield {"bar": markup(bar), "sentence": sentence}


def slopes_verdict(one: Mapping[str, Any], unsure: Sequence[str]) -> tuple[str, str]:
    """How the slopes of two rows differ: the kind of a bar, and a sentence.

    Args:
        one: `row`, `baseline`, `difference`, `low` and `high`.
        unsure: Those of the two of which there is one seed.
    """
    row, baseline = one["row"], one["baseline"]
    numbers = (
        f"(difference of slopes {one['difference']:+.1f}, {one['low']:+.1f} to {one['high']:+.1f})"
    )
    if one["low"] <= 0 <= one["high"]:
        told = "as far as can be told"
        return "unclear", f"word errors cost {row} as much as {baseline}, {told} {numbers}"
    kind, word = ("better", "less") if one["low"] > 0 else ("worse", "more")
    sentence = f"word errors cost {row} {word} than {baseline} {numbers}"
    if unsure:
        return "unclear", f"{sentence}, but {' and '.join(unsure)} had one seed: that may be luck"
    return kind, sentence


def _rates(found: Sequence[Mapping[str, Any]], rows: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields the lines of a table of rates: one for each range of values."""
    ends = dict.fromkeys((one["from"], one["to"]) for one in found)
    for low, high in ends:
        of_range = {one["row"]: one for one in found if (one["from"], one["to"]) == (low, high)}
        first = of_range[rows[0]]
        yield {
            "name": f"{100 * high:g} %" if low == high else f"{100 * low:g} to {100 * high:g} %",
            "num_queries": first["num_queries"],
            "num_images": first["num_images"],
            "cells": [_recall_cell(of_range[row], "recall") for row in rows],
        }


def _recall_cell(one: Mapping[str, Any], key: str) -> dict[str, str]:
    if one[key] is None:
        return {"text": "too few", "interval": ""}
    low, high = (f"{100 * one[end]:.1f}" for end in ("low", "high"))
    return {"text": f"{100 * one[key]:.1f}", "interval": f"{low}–{high}"}  # noqa: RUF001


def _channels(table: str, row: str, found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "signals": [
            {
                "name": label,
                "norm": _quarters(found["norms"][name]) if name in found["norms"] else None,
                "cells": [
                    _recall_cell(one, "value")
                    for direction in (SPEECH_TO_IMAGE, IMAGE_TO_SPEECH)
                    for metric, one in found["recall"][name].items()
                    if metric.startswith(direction)
                ],
            }
            for name, label in _SIGNALS.items()
        ],
        "cosine": _quarters(found["cosine"]),
        "outcomes": [
            {
                "name": label,
                "share": f"{100 * found['outcomes'][name]['share']:.1f}",
                "found": f"{100 * found['outcomes'][name]['found_by_sum']:.1f}",
            }
            for name, label in _OUTCOMES.items()
        ],
        "num_models": found["num_models"],
        "figure": norm_figure(table, row, found["histogram"]),
    }


def _quarters(values: Sequence[float]) -> dict[str, str]:
    low, middle, high = (f"{value:.2f}" for value in values)
    return {"text": middle, "interval": f"{low}–{high}"}  # noqa: RUF001


def _attention(folder: Path, one: Mapping[str, Any], arranger: ExampleArranger) -> dict[str, Any]:
    return {
        **one,
        "audio": arranger.player(one["utterance_id"]),
        "figures": {kind: _figure(folder / name) for kind, name in one["figures"].items()},
    }


def _figure(path: Path) -> dict[str, str]:
    """A figure of ours as a URI, with its width and height, and its file beside the page."""
    try:
        svg = path.read_bytes()
    except FileNotFoundError:
        raise BrewlineError(f"{path} is missing; run `dvc repro analyse`") from None
    _, _, width, height = svg.partition(b'viewBox="')[2].partition(b'"')[0].decode().split()
    uri = data_uri("image/svg+xml", svg)
    return {"uri": uri, "width": width, "height": height, "file": path.name}
