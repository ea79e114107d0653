"""What the report says of a probe: which emotions are heard in which vectors (as table 3)."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewline.config import Params
from brewline.config.published import Published, PublishedEmotion
from brewline.config.synthetic import synthetic_notice
from brewline.pages import charts
from brewline.pages.figures import Figure, legend_of, line_rows
from brewline.pages.heatmap import heatmap
from brewline.probing.inputs import ANSWERED, POOLINGS, WHISPER, layer_name, weighted_name
from brewline.probing.outputs import MAJORITY, read_checks, read_probe_metrics, read_rows
from brewline.report.published import NOT_MEASURED, NOTHING

_KINDS = {
    "acoustic": "F_A, the acoustic channel",
    "text": "F_T of the transcript",
    "fused": "F_A and F_T, fused",
    "caption": "F_T of the human caption",
    "caption_fused": "fused, with the caption for the transcript",
    ANSWERED: "fine-tuned",
}
# The lines of the charts.
_STYLES = {pooling: style for style, pooling in enumerate(POOLINGS, start=1)}
_LABELS = {
    "paper4": "calm counted as neutral",
    "strict4": "without calm",
    "all8": "each by itself",
}
_PROTOCOLS = {
    "paper": "the paper's: the actors 19 to 24 are tested",
    "emobox": "EmoBox': six folds of four actors",
    "serab": "SERAB's: five actors are tested",
    "by_speaker": "by speaker",
}


@dataclass(frozen=True)
class ProbeFiles:
    """What stage `probe` wrote about a probe."""

    metrics: Path
    folder: Path

    @staticmethod
    def of(name: str, metrics_dir: Path, emotion_dir: Path) -> "ProbeFiles":
        """Those of a probe, from `metrics` and `reports/emotion`."""
        return ProbeFiles(metrics_dir / f"probe/{name}.json", emotion_dir / name)


def emotion_section(
    params: Params, published: Published, name: str, files: ProbeFiles
) -> dict[str, Any]:
    """Everything about a probe, in the words of the template.

    Raises:
        BrewlineError: a file is missing, and which.
    """
    probe = params.probes[name]
    metrics = read_probe_metrics(files.metrics)
    possible = [f"{row}/{kind}" for row in probe.rows for kind in _KINDS]
    of_models = [one for one in possible if one in metrics]
    layers = {pooling: _layers(metrics, pooling) for pooling in POOLINGS}
    # Of the layers the last one, which is what the acoustic channel reads.
    of_whisper = [(found[-1], weighted_name(pooling)) for pooling, found in layers.items()]
    shown = [*of_models, *itertools.chain.from_iterable(of_whisper)]
    first = probe.protocols[0]
    source = params.sources[probe.data]
    others = published.emotion_of(source)
    return {
        "name": name,
        "corpus": probe.data,
        "is_synthetic": source.synthetic,
        "notice": synthetic_notice(params, [probe.data]),
        "is_tuned": any(_is_tuned(one) for one in of_models),
        "labels": [_LABELS[one] for one in probe.labels],
        "tables": [
            {
                "protocol": _PROTOCOLS[protocol],
                "sizes": [_sizes(metrics, protocol, labels) for labels in probe.labels],
                "majority": [
                    _percent(metrics[MAJORITY][f"{protocol}/{labels}/accuracy"])
                    for labels in probe.labels
                ],
                "rows": [_row(metrics, one, protocol, probe.labels) for one in shown],
                "published": list(_published(others, protocol, probe.labels)),
            }
            for protocol in probe.protocols
        ],
        "styles": _STYLES,
        "layers": [
            _row(metrics, one, first, probe.labels) for found in layers.values() for one in found
        ],
        "statements": list(_statements(metrics, of_models, first, probe.labels)),
        "checks": list(_checks(read_checks(files.folder))),
        "figures": [
            *_layer_figures(name, metrics, files, first, probe.labels, layers),
            *_confusion_figures(name, files, first, probe.labels, shown),
        ],
        "groups": _groups(files, first, probe.labels[0], shown),
        "group_labels": _LABELS[probe.labels[0]],
    }


def _layers(metrics: Mapping[str, Mapping[str, float]], pooling: str) -> list[str]:
    """The features of single layers, from the first to the last."""
    names = iter(layer_name(pooling, layer) for layer in itertools.count())
    return list(itertools.takewhile(lambda name: name in metrics, names))


def _is_tuned(feature: str) -> bool:
    return feature.endswith(f"/{ANSWERED}")


def feature_label(name: str) -> str:
    """What a feature is called on the page."""
    row, kind, *layer = name.split("/")
    if row != WHISPER:
        return f"{row}: {_KINDS[kind]}"
    what = "learned sum of the layers" if layer == ["weighted"] else layer[0].replace("-", " ")
    return f"Whisper, {what}, {kind.replace('+std', ' and deviation')}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _range(values: Mapping[str, float], key: str) -> str:
    low, high = (_percent(values[f"{key}_{end}"]) for end in ("low", "high"))
    return f"{low}–{high}"  # noqa: RUF001 - a range


def _sizes(metrics: Mapping[str, Mapping[str, float]], protocol: str, labels: str) -> list[str]:
    recordings, speakers, classes = (
        int(metrics[MAJORITY][f"{protocol}/{labels}/num_{what}"])
        for what in ("recordings", "speakers", "classes")
    )
    return [f"{classes} emotions", f"{recordings:,} recordings of {speakers} speakers"]


def _row(
    metrics: Mapping[str, Mapping[str, float]], feature: str, protocol: str, labels: Sequence[str]
) -> dict[str, Any]:
    found, cells = metrics[feature], []
    for one in labels:
        key = f"{protocol}/{one}/accuracy"
        if key not in found:
            # Fine-tuned on other labels, or under another protocol.
            cells.append({"accuracy": NOTHING})
            continue
        deviations = [
            f"±{_percent(found[f'{key}{end}'])} {over}"
            for end, over in (("_std", "runs"), ("_fold_std", "folds"))
            if f"{key}{end}" in found
        ]
        cells.append(
            {
                "accuracy": _percent(found[key]),
                "interval": _range(found, key),
                "deviations": ", ".join(deviations),
                "balanced": _percent(found[f"{protocol}/{one}/balanced_accuracy"]),
                "f1": _percent(found[f"{protocol}/{one}/macro_f1"]),
            }
        )
    return {"name": feature_label(feature), "runs": int(found["num_seeds"]), "cells": cells}


def _published(
    others: Sequence[PublishedEmotion], protocol: str, labels: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for one in others:
        if one.protocol == protocol and one.labels in labels:
            cells = [NOTHING] * len(labels)
            cells[labels.index(one.labels)] = f"{one.accuracy:.1f}"
            what = f"{NOT_MEASURED}: {one.source}"
            yield {"name": one.system, "what": what, "cells": cells}


def _statements(
    metrics: Mapping[str, Mapping[str, float]],
    of_models: Sequence[str],
    protocol: str,
    labels: Sequence[str],
) -> Iterator[str]:
    """Whether each channel says more than the commonest emotion does, in words."""
    for feature in of_models:
        if feature.split("/")[1] not in ("acoustic", "text", "caption"):
            continue
        found = metrics[feature]
        words: dict[bool, list[str]] = {}
        for one in labels:
            key = f"{protocol}/{one}/accuracy"
            least = metrics[MAJORITY][key]
            words.setdefault(found[f"{key}_low"] > least, []).append(
                f"{_LABELS[one]} {_range(found, key)} against {_percent(least)} %"
            )
        for is_above, each in words.items():
            verdict = (
                "is above the majority class by its interval"
                if is_above
                else "is at chance, not above the majority class by its interval"
            )
            yield f"{feature_label(feature)}, {verdict}: {', '.join(each)}."


def _checks(checks: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in checks:
        least, most, chance = (one[key] for key in ("shuffled_least", "shuffled_most", "chance"))
        # Equal but for the last digit of a sum.
        yield {
            "feature": feature_label(one["feature"]),
            "labels": _LABELS[one["labels"]],
            "is_at_chance": least - 1e-9 <= chance <= most + 1e-9,
            "shuffled": f"{_percent(one['shuffled_balanced_accuracy'])} "
            f"({_percent(least)}–{_percent(most)})",  # noqa: RUF001 - a range
            "chance": _percent(chance),
            "shuffles": one["shuffles"],
            "accuracy": _percent(one["accuracy"]),
            "random": _percent(one["random_split_accuracy"]),
            "flattery": f"{100 * (one['random_split_accuracy'] - one['accuracy']):+.1f}",
        }


def _layer_figures(
    probe: str,
    metrics: Mapping[str, Mapping[str, float]],
    files: ProbeFiles,
    protocol: str,
    labels: Sequence[str],
    layers: Mapping[str, Sequence[str]],
) -> Iterator[Figure]:
    weights = read_rows(files.folder / "layer_weights.csv")
    for one in labels:
        lines = []
        for pooling, style in _STYLES.items():
            points = [
                (float(layer), metrics[name][f"{protocol}/{one}/accuracy"])
                for layer, name in enumerate(layers[pooling])
            ]
            lines.append(charts.Series(pooling, points, style))
        title = f"accuracy by layer of Whisper, {_LABELS[one]}"
        svg = charts.line_chart(lines, title, "layer", "accuracy in %", True)
        words = (probe, "layers", one)
        yield Figure.of(words, title, svg, line_rows(lines), legend_of(lines))
    lines = []
    for pooling, style in _STYLES.items():
        points = [
            (float(row["layer"]), float(row["weight"]))
            for row in weights
            if (row["feature"], row["protocol"], row["labels"])
            == (weighted_name(pooling), protocol, labels[0])
        ]
        lines.append(charts.Series(pooling, points, style))
    title = f"learned weights of the layers, {_LABELS[labels[0]]}"
    svg = charts.line_chart(lines, title, "layer", "weight in %", True)
    words = (probe, "layer-weights", labels[0])
    yield Figure.of(words, title, svg, line_rows(lines), legend_of(lines))


def _confusion_figures(
    probe: str, files: ProbeFiles, protocol: str, labels: Sequence[str], shown: Sequence[str]
) -> Iterator[Figure]:
    """The share of each emotion that was taken for each other one.

    Of the first feature, of all fine-tuned ones, and of what Whisper's layers say together.
    """
    counts: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for row in read_rows(files.folder / "confusion.csv"):
        if row["protocol"] == protocol:
            table = counts.setdefault((row["feature"], row["labels"]), {})
            table.setdefault(row["truth"], {})[row["said"]] = float(row["count"])
    features = [shown[0], *filter(_is_tuned, shown), weighted_name(POOLINGS[-1])]
    for feature in dict.fromkeys(features):
        for one in labels:
            # A fine-tuned one has one protocol and one label set.
            table = counts.get((feature, one), {})
            if not table:
                continue
            shares = [
                [count / sum(said.values()) for count in said.values()] for said in table.values()
            ]
            title = f"{feature_label(feature)}: rows are said, columns understood, {_LABELS[one]}"
            rows = [
                {"said": said, "understood": heard, "share": share}
                for said, of_said in zip(table, shares, strict=True)
                for heard, share in zip(table, of_said, strict=True)
            ]
            words = (probe, "confusion", feature, one)
            yield Figure.of(words, title, heatmap([*table], shares, title), rows)


def _groups(files: ProbeFiles, protocol: str, labels: str, shown: Sequence[str]) -> dict[str, Any]:
    """Accuracy by gender and speaker: a line each, a column for each feature."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in read_rows(files.folder / "groups.csv"):
        if (row["protocol"], row["labels"]) == (protocol, labels):
            group = found.setdefault((row["kind"], row["group"]), {})
            group[row["feature"]] = float(row["accuracy"])
    return {
        "columns": [feature_label(one) for one in shown],
        "rows": [
            {
                "name": f"{kind} {group}",
                "cells": [_percent(values[one]) if one in values else NOTHING for one in shown],
            }
            for (kind, group), values in found.items()
        ],
    }
