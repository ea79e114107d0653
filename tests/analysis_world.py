"""What stage `analyse` would write about the tables of a made-up project."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brewline.analysis.attended import AttendedQuery, AttentionMaps
from brewline.analysis.channels import describe_channels, measure_channels
from brewline.analysis.map_figures import draw_picture_map, draw_sound_map
from brewline.analysis.outputs import Analysis, write_analysis
from brewline.analysis.rates import recall_between
from brewline.analysis.word_errors import recall_over_wer, select_queries
from brewline.config import Params
from brewline.evaluation.bootstrap import Bootstrap
from brewline.evaluation.vectors import ACOUSTIC, TEXT, Embeddings, SplitEmbeddings
from brewline.models.crop_box import CropBox

_BOOTSTRAP = Bootstrap(20, 0, 0.95)
_K = 5
_BOX = CropBox(0.125, 0, 0.75, 1)
HOSTILE_WORD = "<script>alert(2)</script>"


def write_made_analysis(
    root: Path, chosen: Params, name: str, examples: Mapping[str, Any], picture: bytes
) -> None:
    """Writes `reports/analysis/<table>`.

    Args:
        root: Of the project.
        chosen: Its parameters.
        name: The table.
        examples: Entries of recordings by row.
        picture: A JPEG of 320 by 240 pixels.
    """
    rows = [*chosen.tables[name].rows]
    ids = [f"test-{number}" for number in range(240)]
    image_of = {one: f"test-image-{number // 2}" for number, one in enumerate(ids)}
    rng = random.Random(name)
    wer_of = {one: rng.choice([0.0, 0.1, 0.2, 0.4]) for one in ids}
    ranks = {
        row: [{one: rng.randrange(1, 5 + round(20 * wer_of[one])) for one in ids}] for row in rows
    }
    full = [
        row
        for row, one in chosen.tables[name].rows.items()
        if one not in chosen.external and chosen.variant_of(one).alpha
    ]
    lost_of = dict.fromkeys(ids, _BOX.lost)
    analysis = Analysis(
        word_errors=recall_over_wer(
            ranks,
            select_queries(wer_of, image_of),
            chosen.tables[name].pairs,
            _K,
            2,
            _BOOTSTRAP,
        ),
        channels={row: _channels() for row in full},
        crops={
            "k": _K,
            "rates": list(recall_between((0.1, 1.0), lost_of, ranks, image_of, _K, 2, _BOOTSTRAP)),
        },
        examples=_groups(rows, full, examples),
        attention=[_attended([*full, *rows][0], picture)],
        keywords=[
            {"row": [*rows][-1], "utterance_id": ids[1], "image_id": image_of[ids[1]], "rank": 3}
            | {"heard": "a red <b>car</b>", "keywords": ["red", "car", "<i>"]}
        ],
    )
    write_analysis(analysis, root / "reports/analysis" / name)


def _channels() -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def drawn(number: int) -> Embeddings:
        return rng.standard_normal((number, 8)).astype(np.float32)

    def unit(vectors: Embeddings) -> Embeddings:
        units: Embeddings = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return units

    acoustic, text = drawn(24), 2 * drawn(24)
    images = [f"test-image-{number}" for number in range(12)]
    split = SplitEmbeddings(
        [f"test-{number}" for number in range(24)],
        [one for one in images for _ in range(2)],
        unit(acoustic + text),
        images,
        unit(drawn(12)),
        {ACOUSTIC: acoustic, TEXT: text},
    )
    found = measure_channels(split)
    return describe_channels([found], split.utterance_image_ids, images, _K, _BOOTSTRAP)


def _groups(
    rows: Sequence[str], full: Sequence[str], examples: Mapping[str, Any]
) -> list[dict[str, Any]]:
    shown = {row: examples[row][:2] for row in rows}
    ids = [one["utterance_id"] for one in shown[rows[0]]]
    box = {"left": _BOX.left, "top": _BOX.top, "width": _BOX.width, "height": _BOX.height}
    groups: list[dict[str, Any]] = [
        {"kind": "repaired", "baseline": "zero-shot", "num": 7, "num_broken": 3, "num_wrong": 18},
        {
            "kind": "disagree",
            "finder": ACOUSTIC,
            "num": 9,
            "ranks": {one: {ACOUSTIC: 2, TEXT: 11} for one in ids},
        },
        {
            "kind": "cropped",
            "num": 4,
            "num_images": 12,
            "min_lost": 0.2,
            "boxes": dict.fromkeys(ids, box),
        },
    ]
    # Without both channels nothing is repaired, and nobody disagrees.
    about = groups if full and "zero-shot" in rows else groups[1:] if full else groups[2:]
    return [{"row": [*full, *rows][0], "examples": shown, **group} for group in about]


def _attended(row: str, picture: bytes) -> AttendedQuery:
    words = ["a", HOSTILE_WORD, "car"]
    frames = np.array([0.0, 0.1, 0.4, 0.2])
    times = [
        {"word": word, "start_s": place / 3, "end_s": (place + 1) / 3}
        for place, word in enumerate(words)
    ]
    loudness = np.linspace(0, 1, 200).reshape(10, 20)
    patches = np.array([[0.0, 0.2], [0.1, 0.4]])
    return AttendedQuery(
        "test-1",
        "test-image-0",
        row,
        1,
        AttentionMaps(0.5, [patches], words, np.array([0.1, 0.4, 0.2]), frames, 0.25),
        draw_picture_map(picture, 320, 240, [(patches, _BOX)]),
        draw_sound_map(loudness, 1.0, frames, 0.25, times),
    )
