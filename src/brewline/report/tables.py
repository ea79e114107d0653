"""The results of a table: a row per experiment, a column per metric.

Only the tables and rows that `params.yaml` names are shown, in its order. What is missing is an
error that names the file; what is left over from earlier ones is ignored.
"""

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from brewline.config import Params
from brewline.core.errors import BrewlineError
from brewline.evaluation.outputs import (
    DIRECTION_NAMES,
    IMAGE_TO_SPEECH,
    SPEECH_TO_IMAGE,
    Metrics,
)
from brewline.models.card import describe
from brewline.models.names import model_names


@dataclass(frozen=True)
class Column:
    """A column of the results: `metric` follows the split; fractions are shown in per cent."""

    label: str
    metric: str
    direction: str
    percent: bool = True


@dataclass(frozen=True)
class Cell:
    """A measured value with its interval and its deviation over seeds, where there are any."""

    column: Column
    value: float
    low: float | None
    high: float | None
    deviation: float | None
    best: bool = False

    def _show(self, value: float) -> str:
        return f"{100 * value:.1f}" if self.column.percent else f"{value:.1f}"

    @property
    def text(self) -> str:
        """The value: in per cent, or as a rank."""
        return self._show(self.value)

    @property
    def interval(self) -> str:
        """Both ends with a dash between them, or nothing."""
        if self.low is None or self.high is None:
            return ""
        return f"{self._show(self.low)}–{self._show(self.high)}"  # noqa: RUF001 - a range

    @property
    def spread(self) -> str:
        """`±0.8` over seeds, or nothing."""
        return "" if self.deviation is None else f"±{self._show(self.deviation)}"


@dataclass(frozen=True)
class Row:
    """An experiment in a table, by the name that it has there.

    `is_ceiling` where human captions stand in for the transcripts.
    """

    name: str
    what: str
    num_seeds: int
    is_ceiling: bool
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """The results of one split."""

    name: str
    corpus: str
    split: str
    num_utterances: int
    num_images: int
    columns: list[Column]
    rows: list[Row]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The directions from left to right, and how many columns each has."""
        counts = collections.Counter(column.direction for column in self.columns)
        return [(DIRECTION_NAMES[one].replace(" to ", " → "), counts[one]) for one in counts]

    @property
    def chance_words(self) -> str:
        """What recall@1 a guess reaches, and which rows are not above it by their intervals."""
        chance = 1 / self.num_images
        below = [
            f"{row.name} ({cell.column.direction.replace('_', ' ')})"
            for row in self.rows
            for cell in row.cells
            if cell.column.label == "R@1" and cell.low is not None and cell.low <= chance
        ]
        others = (
            f"not above it by the interval: {', '.join(below)}"
            if below
            else "every row is above it by its interval"
        )
        return f"A guess reaches R@1 {100 * chance:.1f} %; {others}."


def columns(recall_at: Sequence[int]) -> list[Column]:
    """The columns of the results: recall@K both ways, then the median rank."""
    forward = [
        Column(f"R@{k}", f"{SPEECH_TO_IMAGE}/recall_at_{k}", SPEECH_TO_IMAGE) for k in recall_at
    ]
    backward = [
        Column(f"R@{k}", f"{IMAGE_TO_SPEECH}/any_hit_recall_at_{k}", IMAGE_TO_SPEECH)
        for k in recall_at
    ]
    rank = Column("median rank", f"{SPEECH_TO_IMAGE}/median_rank", SPEECH_TO_IMAGE, percent=False)
    return [*forward, rank, *backward]


def further_columns(recall_at: Sequence[int]) -> list[Column]:
    """What else is known of both directions; mteb's recall is the share that is found."""
    found = [
        Column(f"found@{k}", f"{IMAGE_TO_SPEECH}/recall_at_{k}", IMAGE_TO_SPEECH) for k in recall_at
    ]
    middle = Column("median rank", f"{IMAGE_TO_SPEECH}/median_rank", IMAGE_TO_SPEECH, percent=False)
    both = {
        direction: [
            Column("mean rank", f"{direction}/mean_rank", direction, percent=False),
            Column("MRR", f"{direction}/mean_reciprocal_rank", direction),
            Column("nDCG@10", f"{direction}/ndcg_at_10", direction),
        ]
        for direction in DIRECTION_NAMES
    }
    return [*both[SPEECH_TO_IMAGE], *found, middle, *both[IMAGE_TO_SPEECH]]


def make_table(
    params: Params, metrics: Metrics, name: str, split: str, shown: list[Column]
) -> Table:
    """Arranges some columns of one split of one table.

    The best value of a column is marked among the rows that hear speech; those that read human
    captions instead are ceilings and compete with nobody.

    Raises:
        BrewlineError: a row lacks a metric.
    """
    rows = [
        _make_row(params, name, row, metrics[name][row], split, shown)
        for row in params.tables[name].rows
    ]
    rows = _mark_best(rows, shown)
    sizes = metrics[name][rows[0].name]
    return Table(
        name=name,
        corpus=params.tables[name].data,
        split=split,
        num_utterances=int(sizes[f"{split}/{SPEECH_TO_IMAGE}/num_queries"]),
        num_images=int(sizes[f"{split}/{SPEECH_TO_IMAGE}/gallery_size"]),
        columns=shown,
        rows=rows,
    )


def _make_row(
    params: Params,
    table: str,
    name: str,
    values: Mapping[str, float],
    split: str,
    shown: list[Column],
) -> Row:
    cells = []
    for column in shown:
        metric = f"{split}/{column.metric}"
        if metric not in values:
            raise BrewlineError(
                f"metrics/{table}.json: row {name} lacks {metric!r}; run `dvc repro score`"
            )
        cells.append(
            Cell(
                column=column,
                value=values[metric],
                low=values.get(f"{metric}_low"),
                high=values.get(f"{metric}_high"),
                deviation=values.get(f"{metric}_std"),
            )
        )
    experiment = params.tables[table].rows[name]
    return Row(
        name=name,
        what=describe(params, experiment),
        # What others computed may come from one training, and says nothing of another one.
        num_seeds=1 if experiment in params.external else len(params.seeds_of(experiment) or []),
        is_ceiling=not params.hears(experiment),
        cells=cells,
    )


def seed_rows(
    params: Params,
    models: Mapping[str, Mapping[str, float]],
    name: str,
    split: str,
    shown: list[Column],
) -> list[Row]:
    """The models of the rows that have several, one row each, without intervals.

    Args:
        params: The table.
        models: Metrics by model, see `read_model_metrics`.
        name: The table.
        split: Of which the metrics are.
        shown: The columns.

    Raises:
        BrewlineError: a model lacks a metric.
    """
    return [
        replace(
            _make_row(params, name, row, models[f"{experiment}/{model}"], split, shown),
            name=f"{row}, {model.replace('-', ' ')}",
        )
        for row, experiment in params.tables[name].rows.items()
        if len(names := model_names(params, experiment)) > 1
        for model in names
    ]


def _mark_best(rows: list[Row], shown: list[Column]) -> list[Row]:
    """Marks the best cell of each column by the value as it is printed, ties included."""
    marked = {row.name: list(row.cells) for row in rows}
    for position, column in enumerate(shown):
        contenders = [row.cells[position] for row in rows if not row.is_ceiling]
        if len(contenders) < 2:
            continue
        choose = max if column.percent else min
        best = choose(float(cell.text) for cell in contenders)
        for row in rows:
            cell = row.cells[position]
            if not row.is_ceiling and float(cell.text) == best:
                marked[row.name][position] = replace(cell, best=True)
    return [replace(row, cells=marked[row.name]) for row in rows]
