"""The results as text: for a terminal, as Markdown, and as CSV."""

import csv
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from brewline.config import Params
from brewline.config.published import Published
from brewline.config.synthetic import synthetic_notice
from brewline.evaluation.outputs import (
    ASR_KEY,
    DIRECTION_NAMES,
    IMAGE_TO_SPEECH,
    SPEECH_TO_IMAGE,
    Metrics,
    read_metrics,
)
from brewline.evaluation.sound_table import read_sound_metrics
from brewline.pages.render import percent
from brewline.report.comparisons import read_comparisons
from brewline.report.published import NOTHING, PublishedRow, published_rows
from brewline.report.sounds import short_columns, sound_cell
from brewline.report.tables import Table, columns, further_columns, make_table

NOTHING_EVALUATED = "Nothing is measured on pictures: tables in params.yaml names no table."


def results_table(params: Params, metrics_dir: Path) -> str:
    """The results on test as plain text with aligned columns, for a terminal.

    Raises:
        BrewlineError: metrics are missing.
    """
    metrics = read_metrics(params, metrics_dir)
    sounds = read_sound_metrics(params, metrics_dir)
    recall_at = params.evaluate.recall_at
    tables = [make_table(params, metrics, name, "test", columns(recall_at)) for name in metrics]
    blocks = [_plain_lines(table, metrics[table.name][ASR_KEY]) for table in tables]
    blocks += [_sound_lines(params, name, rows) for name, rows in sounds.items()]
    if not blocks:
        return f"{NOTHING_EVALUATED}\n"
    interval = percent(params.evaluate.confidence)
    what = "S2I: speech to image, I2S: image to speech. " * bool(tables)
    what += "A: sounds, I: middle frames, T: captions. " * bool(sounds)
    what += (
        f"R@K: per cent with a right answer in the top K; in brackets the {interval} % interval."
    )
    corpora = [*params.measured_corpora, *(one.data for one in params.sound_tables.values())]
    notes = [
        what + " * best of the rows that hear speech." * bool(tables),
        *filter(None, [synthetic_notice(params, [*dict.fromkeys(corpora)])]),
    ]
    shown = ["\n".join(lines) for lines in blocks]
    return "\n\n".join([*shown, *(textwrap.fill(note, 92) for note in notes)]) + "\n"


def _plain_lines(table: Table, asr: Mapping[str, float]) -> Iterator[str]:
    """Yields the lines of one table: intervals only beside recall@1, to fit a terminal."""
    error_rate = asr.get(f"{table.split}/asr/wer")
    heard = "" if error_rate is None else f", word error rate {100 * error_rate:.1f} %"
    yield (
        f"{_title(table)}, {table.split}: {table.num_utterances} recordings, "
        f"{table.num_images} pictures{heard}"
    )
    sides = {SPEECH_TO_IMAGE: "S2I ", IMAGE_TO_SPEECH: "I2S "}
    # The direction stands before the first of its columns only, to fit a terminal.
    lines = [["row", *[sides.pop(one.direction, "") + one.label for one in table.columns]]]
    for row in table.rows:
        line = [row.name]
        for cell in row.cells:
            star = "*" if cell.best else " "
            with_interval = cell.column.metric.endswith("recall_at_1") and cell.interval
            line.append(f"{cell.text}{star}" + (f"({cell.interval})" if with_interval else ""))
        lines.append(line)
    yield from _aligned(lines)
    yield table.chance_words


def _sound_lines(
    params: Params, name: str, rows: Mapping[str, Mapping[str, float]]
) -> Iterator[str]:
    """Yields the lines of a table of clips; the report has its other directions."""
    shown = short_columns(params.evaluate.recall_at, rows)
    corpus = params.sound_tables[name].data
    sizes = {int(one[f"test/{shown[-1].direction}/num_queries"]) for one in rows.values()}
    title = name if name == corpus else f"{name} ({corpus})"
    yield f"{title}, test: {', '.join(f'{size:,}' for size in sorted(sizes))} sounds"
    lines = [["row", *(f"{column.label} " for column in shown)]]
    for row, values in rows.items():
        line = [row]
        for column in shown:
            cell = sound_cell(column, values)
            text = NOTHING if cell is None else cell.text
            if cell and cell.interval and column.metric.endswith("recall_at_1"):
                text += f" ({cell.interval})"
            line.append(f"{text} ")
        lines.append(line)
    yield from _aligned(lines)


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields a line of text for each row: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        first = line[0].ljust(widths[0])
        rest = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        yield "  ".join([first, *rest]).rstrip()


def _title(table: Table) -> str:
    """The name of a table, and its corpus where that is another."""
    return table.name if table.name == table.corpus else f"{table.name} ({table.corpus})"


def results_markdown(
    params: Params, metrics: Metrics, evaluation_dir: Path, published: Published
) -> str:
    """The results and the differences as Markdown, with what others publish of real corpora."""
    confidence, recall_at = percent(params.evaluate.confidence), params.evaluate.recall_at
    lines = ["# Results", ""]
    if not metrics:
        lines += [NOTHING_EVALUATED, ""]
    notice = synthetic_notice(params, params.measured_corpora)
    lines += [f"> {notice}", ""] if notice else []
    for name in metrics:
        lines += [f"## {name}", ""]
        for split in ("test", "dev"):
            table = make_table(params, metrics, name, split, columns(recall_at))
            others = []
            if split == "test":
                lines += [*(f"- {row.name}: {row.what}" for row in table.rows), ""]
                others = published_rows(params, published, table, table.columns)
            lines += [*_markdown_lines(table, others), table.chance_words, ""]
            found = read_comparisons(evaluation_dir, table, confidence)
            lines += [f"- {DIRECTION_NAMES[one.direction]} R@1: {one.verdict}." for one in found]
            lines += [""] * bool(found)
        further = make_table(params, metrics, name, "test", further_columns(recall_at))
        lines += ["Further metrics:", "", *_markdown_lines(further)]
        lines += [
            f"Word error rate on {metric.partition('/')[0]}: {100 * value:.1f} %."
            for metric, value in sorted(metrics[name][ASR_KEY].items())
            if metric.endswith("asr/wer")
        ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _markdown_lines(table: Table, published: Sequence[PublishedRow] = ()) -> Iterator[str]:
    yield (
        f"**{table.corpus}, {table.split}**: {table.num_utterances} recordings, "
        f"{table.num_images} pictures; recall in per cent, interval in brackets."
    )
    yield ""
    heads = [f"{column.direction.replace('_', ' ')} {column.label}" for column in table.columns]
    yield f"| row | {' | '.join(heads)} |"
    yield f"|---|{'--:|' * len(heads)}"
    for row in table.rows:
        cells = [
            f"**{cell.text}**" * cell.best
            + cell.text * (not cell.best)
            + (f" ({cell.interval})" if cell.interval else "")
            for cell in row.cells
        ]
        yield f"| {row.name} | {' | '.join(cells)} |"
    for other in published:
        yield f"| *{other.name}* ({other.what}) | {' | '.join(other.cells)} |"
    yield ""


def results_csv(
    metrics: Metrics, others: Sequence[Mapping[str, Mapping[str, Mapping[str, float]]]] = ()
) -> str:
    """Every metric as a line `table,row,metric,value,low,high,std,num_seeds`.

    Args:
        metrics: Of the tables.
        others: Those of the tables of clips, and of the probes, by their names; of a probe a
            feature is a row.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["table", "row", "metric", "value", "low", "high", "std", "num_seeds"])
    for table, rows in [item for one in (metrics, *others) for item in one.items()]:
        for row, values in rows.items():
            for metric in sorted(values):
                if metric == "num_seeds" or metric.endswith(("_low", "_high", "_std")):
                    continue
                extras = [values.get(f"{metric}{end}", "") for end in ("_low", "_high", "_std")]
                seeds = values.get("num_seeds", "")
                writer.writerow([table, row, metric, values[metric], *extras, seeds])
    return buffer.getvalue()
