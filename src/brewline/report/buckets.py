"""Recall by what recordings are like, arranged for the page: a table for each kind of bucket."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from brewline.evaluation.outputs import read_buckets
from brewline.pages import charts
from brewline.pages.figures import Figure

# By the kinds of `evaluation.buckets`: what stands above a table.
_TITLES = {
    "duration_s": "Length in seconds",
    "level_range_db": "Loud above quiet parts in dB; noise narrows it",
    "caption_words": "Words of the caption",
    "wer": "Word error rate of the transcript",
    "speaker": "Speaker",
}


def bucket_tables(path: Path, rows: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields a table for each kind, in the words of the template.

    Args:
        path: Of `buckets.csv`.
        rows: The rows of the table; leftovers of others are ignored.

    Raises:
        BrewlineError: the file is missing.
    """
    found = [one for one in read_buckets(path) if one["row"] in rows]
    for kind, of_kind in itertools.groupby(found, key=lambda one: str(one["kind"])):
        buckets = []
        for name, group in itertools.groupby(of_kind, key=lambda one: str(one["bucket"])):
            by_row = {one["row"]: one for one in group}
            first = by_row[rows[0]]
            buckets.append(
                {
                    "name": name,
                    "num_queries": first["num_queries"],
                    "num_images": first["num_images"],
                    "cells": [_cell(by_row[row]) for row in rows],
                }
            )
        yield {"title": _TITLES[kind], "k": first["k"], "buckets": buckets}


def bucket_figures(
    table: str, path: Path, rows: Sequence[str], styles: Mapping[str, int]
) -> Iterator[Figure]:
    """Yields a figure for each kind of which at least two buckets have a recall.

    Args:
        table: Its name.
        path: Of `buckets.csv`.
        rows: As of `bucket_tables`.
        styles: Of the rows.
    """
    found = [one for one in read_buckets(path) if one["row"] in rows]
    for kind, of_kind in itertools.groupby(found, key=lambda one: str(one["kind"])):
        every = [one for one in of_kind if one["recall"] is not None]
        groups = {
            name: [
                charts.Range(one["row"], one["recall"], one["low"], one["high"], styles[one["row"]])
                for one in group
            ]
            for name, group in itertools.groupby(every, key=lambda one: str(one["bucket"]))
        }
        if len(groups) > 1:
            title, k = _TITLES[kind], every[0]["k"]
            svg = charts.range_chart([*groups.items()], title, f"recall@{k} in %")
            legend = {row: styles[row] for row in rows}
            yield Figure.of((table, "buckets", kind), title, svg, every, legend)


def _cell(one: dict[str, Any]) -> dict[str, str]:
    if one["recall"] is None:
        return {"text": "too few", "interval": ""}
    low, high = (f"{100 * one[end]:.1f}" for end in ("low", "high"))
    return {"text": f"{100 * one['recall']:.1f}", "interval": f"{low}–{high}"}  # noqa: RUF001
