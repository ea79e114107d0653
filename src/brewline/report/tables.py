"""The results of a corpus as a table: a row per variant, a column per metric.

Only the corpora and variants that `params.yaml` lists are shown, in its order. What is missing is
an error that names the file; what is left over from an earlier list is ignored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from brewline.config import Params
from brewline.config.miniature import is_miniature
from brewline.config.models import VariantParams
from brewline.core.errors import BrewlineError
from brewline.evaluation.outputs import IMAGE_TO_SPEECH, SPEECH_TO_IMAGE, Metrics
from brewline.models.card import describe_variant


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
    """A variant in a table; `is_ceiling` where human captions stand in for the transcripts."""

    variant: str
    what: str
    num_seeds: int
    is_ceiling: bool
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """The results of one split of one corpus."""

    corpus: str
    split: str
    num_utterances: int
    num_images: int
    columns: list[Column]
    rows: list[Row]

    @property
    def is_miniature(self) -> bool:
        """Whether the numbers come from the miniature world."""
        return is_miniature(self.corpus)


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


def make_table(params: Params, metrics: Metrics, corpus: str, split: str) -> Table:
    """Arranges the metrics of one split of one corpus.

    The best value of a column is marked among the variants that hear speech; those that read
    human captions instead are ceilings and compete with nobody.

    Raises:
        BrewlineError: a variant lacks a metric.
    """
    shown = columns(params.evaluate.recall_at)
    rows = [
        _make_row(params.variants[name], name, metrics[corpus][name], corpus, split, shown)
        for name in params.retrieval_corpora[corpus]
    ]
    rows = _mark_best(rows, shown)
    sizes = metrics[corpus][rows[0].variant]
    return Table(
        corpus=corpus,
        split=split,
        num_utterances=int(sizes[f"{split}/{SPEECH_TO_IMAGE}/num_queries"]),
        num_images=int(sizes[f"{split}/{SPEECH_TO_IMAGE}/gallery_size"]),
        columns=shown,
        rows=rows,
    )


def _make_row(
    settings: VariantParams,
    name: str,
    values: Mapping[str, float],
    corpus: str,
    split: str,
    shown: list[Column],
) -> Row:
    cells = []
    for column in shown:
        metric = f"{split}/{column.metric}"
        if metric not in values:
            raise BrewlineError(
                f"the metrics of {corpus}/{name} lack {metric!r}; run `dvc repro evaluate`"
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
    return Row(
        variant=name,
        what=describe_variant(settings),
        num_seeds=int(values.get("num_seeds", 1)) if settings.trained else 0,
        is_ceiling=settings.text and settings.transcript == "caption",
        cells=cells,
    )


def _mark_best(rows: list[Row], shown: list[Column]) -> list[Row]:
    """Marks the best cell of each column by the value as it is printed, ties included."""
    marked = {row.variant: list(row.cells) for row in rows}
    for position, column in enumerate(shown):
        contenders = [row.cells[position] for row in rows if not row.is_ceiling]
        if len(contenders) < 2:
            continue
        choose = max if column.percent else min
        best = choose(float(cell.text) for cell in contenders)
        for row in rows:
            cell = row.cells[position]
            if not row.is_ceiling and float(cell.text) == best:
                marked[row.variant][position] = Cell(
                    column, cell.value, cell.low, cell.high, cell.deviation, best=True
                )
    return [
        Row(row.variant, row.what, row.num_seeds, row.is_ceiling, marked[row.variant])
        for row in rows
    ]
