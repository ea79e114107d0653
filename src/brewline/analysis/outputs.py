"""What stage `analyse` writes about a table in `reports/analysis/<table>/`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewline.analysis.attended import AttendedQuery
from brewline.analysis.files import (
    ATTENTION_FILE,
    CHANNELS_FILE,
    CROPS_FILE,
    EXAMPLES_FILE,
    KEYWORDS_FILE,
    WORD_ERRORS_FILE,
)
from brewline.core.files import atomic_path, write_csv, write_json, write_text
from brewline.evaluation.vectors import ACOUSTIC, TEXT

_FIT_COLUMNS = (
    *("row", "slope", "low", "high"),
    *("odds_ratio", "odds_ratio_low", "odds_ratio_high", "num_models"),
)
_RATE_COLUMNS = ("from", "to", "mean", "row", "num_queries", "num_images", "recall", "low", "high")


@dataclass(frozen=True)
class Analysis:
    """Everything that is found about a table.

    `word_errors`, `channels`, `crops`, `examples` and `keywords` are as the files of the same names
    hold them.
    """

    word_errors: Mapping[str, Any]
    channels: Mapping[str, Mapping[str, Any]]
    crops: Mapping[str, Any]
    examples: Sequence[Mapping[str, Any]]
    attention: Sequence[AttendedQuery]
    keywords: Sequence[Mapping[str, Any]]


def write_analysis(analysis: Analysis, folder: Path) -> None:
    """Writes numbers as JSON and CSV, and maps as SVG; the folder is replaced as a whole."""
    with atomic_path(folder) as partial:
        partial.mkdir()
        write_json(partial / WORD_ERRORS_FILE, analysis.word_errors)
        write_csv(partial / "word_errors.csv", analysis.word_errors["rates"], _RATE_COLUMNS)
        write_csv(partial / "slopes.csv", analysis.word_errors["fits"], _FIT_COLUMNS)
        write_json(partial / CHANNELS_FILE, analysis.channels)
        recalls = list(_channel_rows(analysis.channels))
        write_csv(partial / "channels.csv", recalls, ("row", "signal", "metric", *_ENDS))
        write_csv(partial / "norms.csv", list(_norm_rows(analysis.channels)), ("row", *_NORMS))
        write_json(partial / CROPS_FILE, analysis.crops)
        write_csv(partial / "crops.csv", analysis.crops["rates"], _RATE_COLUMNS)
        write_json(partial / EXAMPLES_FILE, analysis.examples)
        write_json(partial / KEYWORDS_FILE, analysis.keywords)
        _write_attention(analysis.attention, partial)


_ENDS = ("value", "low", "high")
_NORMS = ("norm", ACOUSTIC, TEXT)


def _channel_rows(channels: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for row, found in channels.items():
        for signal, metrics in found["recall"].items():
            for metric, values in metrics.items():
                yield {"row": row, "signal": signal, "metric": metric, **values}


def _norm_rows(channels: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for row, found in channels.items():
        for each in zip(*(found["histogram"][name] for name in _NORMS), strict=True):
            yield {"row": row, **dict(zip(_NORMS, each, strict=True))}


def _write_attention(attention: Sequence[AttendedQuery], folder: Path) -> None:
    entries, weights = [], []
    for number, one in enumerate(attention, start=1):
        files = {"picture": one.picture, "sound": one.sound}
        names = {kind: f"attention-{number}-{kind}.svg" for kind, svg in files.items() if svg}
        for kind, name in names.items():
            write_text(folder / name, files[kind] or "")
        weights += list(_weights(one))
        words = one.maps.words or []
        of_words = [] if one.maps.word_weights is None else one.maps.word_weights.tolist()
        most = max(of_words, default=0.0) or 1.0
        entries.append(
            {
                "utterance_id": one.utterance_id,
                "image_id": one.image_id,
                "row": one.row,
                "rank": one.rank,
                "similarity": one.maps.similarity,
                "words": [
                    {"word": word, "share": weight / most}
                    for word, weight in zip(words, of_words, strict=True)
                ],
                "figures": names,
            }
        )
    write_json(folder / ATTENTION_FILE, entries)
    columns = ("utterance_id", "kind", "place", "what", "weight")
    write_csv(folder / "attention.csv", weights, columns)


def _weights(one: AttendedQuery) -> Iterator[dict[str, Any]]:
    """Yields every weight: a patch by its row and column, a word, a frame by its start."""
    squares = one.maps.patches
    found: dict[str, list[tuple[str, float]]] = {
        "patch": [
            (f"{f'square {square} ' if len(squares) > 1 else ''}row {row} column {column}", weight)
            for square, patches in enumerate(squares)
            for row, weights in enumerate(patches.tolist())
            for column, weight in enumerate(weights)
        ]
    }
    if one.maps.words is not None and one.maps.word_weights is not None:
        found["word"] = list(zip(one.maps.words, one.maps.word_weights.tolist(), strict=True))
    if one.maps.frames is not None and one.maps.frame_s is not None:
        found["frame"] = [
            (f"{place * one.maps.frame_s:.2f} s", weight)
            for place, weight in enumerate(one.maps.frames.tolist())
        ]
    for kind, weights in found.items():
        for place, (what, weight) in enumerate(weights):
            yield {
                "utterance_id": one.utterance_id,
                "kind": kind,
                "place": place,
                "what": what,
                "weight": weight,
            }
