"""The numbers of `metrics/` and `reports/evaluation/` as tables and sentences; no pictures here.

Only the corpora and variants that `params.yaml` lists are shown, in its order. What is missing is
an error that names the file; what is left over from an earlier list is ignored.
"""

import csv
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewline.config.params import Params, VariantParams
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json

MINIATURE_PREFIX = "mini-"
MINIATURE_NOTICE = (
    "The corpora whose names begin with mini- are a miniature world: drawn pictures, synthetic "
    "voices and very small models. Their numbers show that the pipeline works. They say nothing "
    "about real recordings and must not stand beside published ones."
)
ASR_KEY = "asr"
SPEECH_TO_IMAGE = "speech_to_image"
IMAGE_TO_SPEECH = "image_to_speech"
DIRECTION_NAMES = {SPEECH_TO_IMAGE: "speech to image", IMAGE_TO_SPEECH: "image to speech"}

Metrics = dict[str, dict[str, dict[str, float]]]


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


@dataclass(frozen=True)
class Comparison:
    """A paired difference between two variants, in points of recall@1."""

    variant: str
    baseline: str
    split: str
    direction: str
    difference: float
    low: float
    high: float
    verdict: str


def is_miniature(corpus: str) -> bool:
    """Whether a corpus belongs to the miniature world."""
    return corpus.startswith(MINIATURE_PREFIX)


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


def model_names(params: Params, variant: str) -> list[str]:
    """The folders of a variant's models: one per seed, or `frozen` where nothing is trained."""
    if not params.variants[variant].trained:
        return ["frozen"]
    return [f"seed-{seed}" for seed in params.train.seeds]


def describe(variant: VariantParams) -> str:
    """Says in a few words what a variant is made of."""
    channels = [
        *(["captions" if variant.transcript == "caption" else "transcripts"] * variant.text),
        *(["voice"] * variant.acoustic),
    ]
    trained = f"{variant.prompts} prompts" if variant.prompts else "no prompts"
    return f"{' and '.join(channels)}, {trained if variant.trained else 'nothing trained'}"


def load_json(path: Path, stage: str = "") -> Any:
    """Reads a JSON file that a stage makes.

    Raises:
        BrewlineError: it is missing, and which stage makes it.
    """
    try:
        return read_json(path)
    except FileNotFoundError:
        command = f"dvc repro {stage}".rstrip()
        raise BrewlineError(f"{path} is missing; run `{command}`") from None
    except ValueError as error:
        raise BrewlineError(f"{path} is not valid JSON: {error}") from None


def read_metrics(params: Params, metrics_dir: Path) -> Metrics:
    """Reads `metrics/<corpus>.json` of every corpus in the lists.

    Returns:
        Corpus to variant to metric to value, in the order of `params.yaml`; the word error rates
        stand under the variant `asr`.

    Raises:
        BrewlineError: a file is missing, or lacks a variant of the lists.
    """
    metrics: Metrics = {}
    for corpus in params.retrieval_corpora:
        path = metrics_dir / f"{corpus}.json"
        found = load_json(path, "evaluate")
        names = params.retrieval_corpora[corpus]
        missing = [name for name in names if name not in found]
        if missing:
            raise BrewlineError(f"{path} lacks {', '.join(missing)}; run `dvc repro evaluate`")
        metrics[corpus] = {name: found[name] for name in names}
        metrics[corpus][ASR_KEY] = found.get(ASR_KEY, {})
    return metrics


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
        what=describe(settings),
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


def read_comparisons(
    params: Params, evaluation_dir: Path, table: Table, confidence_percent: str
) -> list[Comparison]:
    """Reads the differences of one split of one corpus, each with a sentence about it.

    Args:
        params: The lists.
        evaluation_dir: `reports/evaluation`.
        table: Names corpus and split, and says how many pictures there are.
        confidence_percent: As in `95`.
    """
    known = params.retrieval_corpora[table.corpus]
    path = evaluation_dir / table.corpus / "comparisons.json"
    comparisons = []
    for entry in load_json(path, "evaluate"):
        split, direction = entry["metric"].split("/")[:2]
        if split != table.split or not {entry["variant"], entry["baseline"]} <= set(known):
            continue
        comparisons.append(
            Comparison(
                variant=entry["variant"],
                baseline=entry["baseline"],
                split=split,
                direction=direction,
                difference=entry["difference"],
                low=entry["low"],
                high=entry["high"],
                verdict=verdict(entry, table.num_images, confidence_percent),
            )
        )
    return comparisons


def verdict(entry: Mapping[str, Any], num_images: int, confidence_percent: str) -> str:
    """Says in one sentence what a paired difference shows.

    Args:
        entry: variant, baseline, and difference, low, high as fractions.
        num_images: How many pictures the interval was bootstrapped over.
        confidence_percent: As in `95`.
    """
    low, high = 100 * entry["low"], 100 * entry["high"]
    points = 100 * entry["difference"]
    if low > 0 or high < 0:
        word = "better" if low > 0 else "worse"
        ends = sorted((abs(low), abs(high)))
        return (
            f"{entry['variant']} is {word} than {entry['baseline']} by {abs(points):.1f} points "
            f"({ends[0]:.1f} to {ends[1]:.1f})"
        )
    return (
        f"no difference between {entry['variant']} and {entry['baseline']} that these "
        f"{num_images} pictures can show ({points:+.1f} points, {confidence_percent} % interval "
        f"{low:+.1f} to {high:+.1f})"
    )


def percent(fraction: float) -> str:
    """A fraction in per cent without idle zeros: 0.95 is `95`."""
    return f"{100 * fraction:g}"


def results_table(params: Params, metrics_dir: Path) -> str:
    """The results on test as plain text with aligned columns, for a terminal.

    Raises:
        BrewlineError: metrics are missing.
    """
    metrics = read_metrics(params, metrics_dir)
    blocks = []
    for corpus in metrics:
        table = make_table(params, metrics, corpus, "test")
        blocks.append("\n".join(_plain_lines(table, metrics[corpus][ASR_KEY])))
    interval = percent(params.evaluate.confidence)
    notes = [
        "S2I: speech to image, I2S: image to speech. R@K: per cent with a right answer in the top "
        f"K; in brackets the {interval} % interval. * best of the variants that hear speech.",
        *([MINIATURE_NOTICE] if any(map(is_miniature, metrics)) else []),
    ]
    return "\n\n".join([*blocks, *(textwrap.fill(note, 92) for note in notes)]) + "\n"


def _plain_lines(table: Table, asr: Mapping[str, float]) -> Iterator[str]:
    """Yields the lines of one corpus: intervals only beside recall@1, to fit a terminal."""
    error_rate = asr.get(f"{table.split}/asr/wer")
    heard = "" if error_rate is None else f", word error rate {100 * error_rate:.1f} %"
    yield (
        f"{table.corpus}, {table.split}: {table.num_utterances} recordings, "
        f"{table.num_images} pictures{heard}"
    )
    sides = {SPEECH_TO_IMAGE: "S2I ", IMAGE_TO_SPEECH: "I2S "}
    # The direction stands before the first of its columns only, to fit a terminal.
    lines = [["variant", *[sides.pop(one.direction, "") + one.label for one in table.columns]]]
    for row in table.rows:
        line = [row.variant]
        for cell in row.cells:
            star = "*" if cell.best else " "
            with_interval = cell.column.metric.endswith("recall_at_1") and cell.interval
            line.append(f"{cell.text}{star}" + (f"({cell.interval})" if with_interval else ""))
        lines.append(line)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        first = line[0].ljust(widths[0])
        rest = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        yield "  ".join([first, *rest]).rstrip()


def results_markdown(params: Params, metrics: Metrics, evaluation_dir: Path) -> str:
    """The results and the differences as Markdown."""
    confidence = percent(params.evaluate.confidence)
    lines = ["# Results", ""]
    if any(map(is_miniature, metrics)):
        lines += [f"> {MINIATURE_NOTICE}", ""]
    for corpus in metrics:
        lines += [f"## {corpus}", ""]
        for split in ("test", "dev"):
            table = make_table(params, metrics, corpus, split)
            lines += _markdown_lines(table)
            found = read_comparisons(params, evaluation_dir, table, confidence)
            lines += [f"- {DIRECTION_NAMES[one.direction]} R@1: {one.verdict}." for one in found]
            lines += [""] * bool(found)
        lines += [
            f"Word error rate on {metric.partition('/')[0]}: {100 * value:.1f} %."
            for metric, value in sorted(metrics[corpus][ASR_KEY].items())
            if metric.endswith("asr/wer")
        ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _markdown_lines(table: Table) -> Iterator[str]:
    yield (
        f"**{table.split}**: {table.num_utterances} recordings, {table.num_images} pictures; "
        "recall in per cent, interval in brackets."
    )
    yield ""
    heads = [
        f"{column.direction.replace('_', ' ')} {column.label}" if column.percent else column.label
        for column in table.columns
    ]
    yield f"| variant | {' | '.join(heads)} |"
    yield f"|---|{'--:|' * len(heads)}"
    for row in table.rows:
        cells = [
            f"**{cell.text}**" * cell.best
            + cell.text * (not cell.best)
            + (f" ({cell.interval})" if cell.interval else "")
            for cell in row.cells
        ]
        yield f"| {row.variant} | {' | '.join(cells)} |"
    yield ""


def results_csv(metrics: Metrics) -> str:
    """Every metric as a line `corpus,variant,metric,value,low,high,std,num_seeds`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["corpus", "variant", "metric", "value", "low", "high", "std", "num_seeds"])
    for corpus, variants in metrics.items():
        for variant, values in variants.items():
            for metric in sorted(values):
                if metric == "num_seeds" or metric.endswith(("_low", "_high", "_std")):
                    continue
                extras = [values.get(f"{metric}{end}", "") for end in ("_low", "_high", "_std")]
                seeds = values.get("num_seeds", "")
                writer.writerow([corpus, variant, metric, values[metric], *extras, seeds])
    return buffer.getvalue()
