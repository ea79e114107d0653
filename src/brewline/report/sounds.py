"""The tables of clips in the report: sounds against frames and captions, and the right time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from brewline.config import Params
from brewline.config.published import Published, PublishedSound
from brewline.config.synthetic import synthetic_notice
from brewline.evaluation.sound_scores import (
    AUDIO_TO_FRAME,
    AUDIO_TO_IMAGE,
    AUDIO_TO_TEXT,
    FRAME_TO_AUDIO,
    IMAGE_TO_AUDIO,
    TEXT_TO_AUDIO,
    recall_name,
)
from brewline.models.card import describe
from brewline.pages.charts import NUM_STYLES
from brewline.pages.figures import Figure
from brewline.report.published import NOT_MEASURED, NOTHING
from brewline.report.sound_choices import History, choice_figures
from brewline.report.tables import Cell, Column

SoundMetrics = Mapping[str, Mapping[str, Mapping[str, float]]]

_PARTS = (
    ("Sounds and pictures; of a clip its middle frame", (AUDIO_TO_IMAGE, IMAGE_TO_AUDIO)),
    ("Sounds and all frames; any frame of the clip is right", (AUDIO_TO_FRAME, FRAME_TO_AUDIO)),
    ("Sounds and captions; any caption of the clip is right", (AUDIO_TO_TEXT, TEXT_TO_AUDIO)),
)
_SAW = {
    "pictures": "learned from pictures alone",
    "language": "learned from sounds with texts about them",
    "captions": "learned from captions of sounds",
}


@dataclass(frozen=True)
class SoundRow:
    """A row by its name, and what it is; None stands for what was not measured."""

    name: str
    what: str
    cells: list[Cell | None]


@dataclass(frozen=True)
class SoundPart:
    """Some columns of a table on test, with what others published of them, as printed."""

    title: str
    sizes: str
    columns: list[Column]
    rows: list[SoundRow]
    published: list[tuple[str, str, list[str]]]


@dataclass(frozen=True)
class SoundSection:
    """A table: its parts, what differs between its rows, and which frames its models choose."""

    name: str
    corpus: str
    notice: str
    parts: list[SoundPart]
    differences: list[str]
    styles: dict[str, int]
    figures: list[Figure]


def sound_sections(
    params: Params,
    metrics: SoundMetrics,
    comparisons: Mapping[str, Sequence[Mapping[str, object]]],
    published: Published,
    histories: Mapping[str, Mapping[str, Mapping[str, History]]],
) -> list[SoundSection]:
    """The tables of clips, in the order of `params.yaml`.

    Args:
        params: The tables.
        metrics: See `read_sound_metrics`.
        comparisons: By table, what `comparisons.json` holds.
        published: What others report, which is shown beside real corpora alone.
        histories: By table, see `choice_figures`.
    """
    sections = []
    for name, rows in metrics.items():
        corpus = params.sound_tables[name].data
        found = [
            _part(params, published, name, rows, title, list(_columns(params, directions)))
            for title, directions in _PARTS
        ]
        found.append(_part(params, published, name, rows, _TIME, _TIME_COLUMNS))
        styles = {row: n % NUM_STYLES for n, row in enumerate(histories[name])}
        sections.append(
            SoundSection(
                name=name,
                corpus=corpus,
                notice=synthetic_notice(params, [corpus]),
                parts=[part for part in found if part.rows],
                differences=[_difference(one) for one in comparisons[name] if _is_test(one)],
                styles=styles,
                figures=list(choice_figures(name, histories[name], styles)),
            )
        )
    return sections


_TIME = "The right time: whether a sound picks, among its clip's frames, one of the event it hears"
_TIME_COLUMNS = [
    Column("whole sound", "time/clip_accuracy", "time"),
    Column("by chance", "time/clip_chance", "time"),
    Column("sound of the event", "time/segment_accuracy", "time"),
    Column("by chance", "time/segment_chance", "time"),
]


def short_columns(
    recall_at: Sequence[int], rows: Mapping[str, Mapping[str, float]]
) -> list[Column]:
    """What a terminal has room for: captions and sounds both ways, or pictures without captions.

    Args:
        recall_at: K.
        rows: The metrics of a table.
    """
    has_captions = any(f"test/{TEXT_TO_AUDIO}/num_queries" in one for one in rows.values())
    spoken = {TEXT_TO_AUDIO: "T2A", AUDIO_TO_TEXT: "A2T"}
    seen = {IMAGE_TO_AUDIO: "I2A", AUDIO_TO_IMAGE: "A2I"}
    return [
        Column(f"{name} R@{k}" if k == recall_at[0] else f"R@{k}", recall_name(way, k), way)
        for way, name in (spoken if has_captions else seen).items()
        for k in recall_at
    ]


def _columns(params: Params, directions: Sequence[str]) -> Iterator[Column]:
    for direction in directions:
        short = direction.replace("_to_", " → ")
        for k in params.evaluate.recall_at:
            yield Column(f"{short} R@{k}", recall_name(direction, k), direction)
        yield Column("mAP@10", f"{direction}/map_at_10", direction)
        yield Column("median rank", f"{direction}/median_rank", direction, percent=False)


def _part(
    params: Params,
    published: Published,
    name: str,
    metrics: Mapping[str, Mapping[str, float]],
    title: str,
    columns: list[Column],
) -> SoundPart:
    experiments = params.sound_tables[name].rows
    rows = []
    for row, values in metrics.items():
        cells = [sound_cell(column, values) for column in columns]
        if any(cells):
            rows.append(SoundRow(row, describe(params, experiments[row]), cells))
    direction = columns[0].direction
    sizes = [
        f"{int(values[f'test/{direction}/num_queries']):,} sounds"
        for values in metrics.values()
        if f"test/{direction}/num_queries" in values
    ]
    corpus = params.sound_tables[name].data
    others = [
        (one.system, _about(one), [_printed(one, column) for column in columns])
        for one in published.sounds_of(params.sources[corpus])
    ]
    others = [other for other in others if any(cell != NOTHING for cell in other[2])]
    return SoundPart(title, sizes[0] if sizes else "", columns, rows, others)


def sound_cell(column: Column, values: Mapping[str, float]) -> Cell | None:
    """A row's number on test, or None where it was not measured."""
    metric = f"test/{column.metric}"
    if metric not in values:
        return None
    low, high, deviation = (values.get(f"{metric}_{end}") for end in ("low", "high", "std"))
    return Cell(column, values[metric], low, high, deviation)


def _printed(one: PublishedSound, column: Column) -> str:
    values = {AUDIO_TO_TEXT: one.audio_to_text, TEXT_TO_AUDIO: one.text_to_audio}
    found = values.get(column.direction, {})
    value = next((v for k, v in found.items() if column.metric == _recall(column, k)), None)
    return NOTHING if value is None else f"{value:.1f}"


def _recall(column: Column, k: int) -> str:
    return recall_name(column.direction, k)


def _about(one: PublishedSound) -> str:
    of = one.of or "which clips is not said"
    return f"{NOT_MEASURED}: {one.source}; {_SAW[one.saw]}; {of}"


def _is_test(entry: Mapping[str, object]) -> bool:
    return str(entry["metric"]).startswith("test/")


def _difference(entry: Mapping[str, object]) -> str:
    points, low, high = (100 * float(str(entry[key])) for key in ("difference", "low", "high"))
    metric = str(entry["metric"]).removeprefix("test/").replace("_", " ").replace("/", ": ")
    unclear = "" if low > 0 or high < 0 else ", which may be luck"
    return (
        f"{metric}: {entry['row']} against {entry['baseline']} {points:+.1f} points "
        f"({low:+.1f} to {high:+.1f}){unclear}"
    )


def sounds_markdown(sections: Sequence[SoundSection]) -> str:
    """The tables of clips as Markdown."""
    lines: list[str] = []
    for section in sections:
        lines += [f"## {section.name}", ""]
        lines += [f"> {section.notice}", ""] if section.notice else []
        for part in section.parts:
            lines += [f"**{section.corpus}, test. {part.title}**; {part.sizes}", ""]
            lines.append(f"| row | {' | '.join(column.label for column in part.columns)} |")
            lines.append(f"|---|{'--:|' * len(part.columns)}")
            lines += [f"| {row.name} | {' | '.join(map(_text, row.cells))} |" for row in part.rows]
            lines += [
                f"| *{system}* ({what}) | {' | '.join(cells)} |"
                for system, what, cells in part.published
            ]
            lines.append("")
        lines += [*(f"- {one}." for one in section.differences), ""]
    return "\n".join(lines).rstrip() + "\n" if lines else ""


def _text(cell: Cell | None) -> str:
    if cell is None:
        return NOTHING
    return f"{cell.text} ({cell.interval})" if cell.interval else cell.text
