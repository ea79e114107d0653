"""The report: one page that opens anywhere without a network, and the same numbers as text.

The page is a function of its inputs: equal inputs give equal bytes. Everything that comes from a
corpus (captions, transcripts, names) is escaped, and the page's own policy forbids to load
anything.
"""

import collections
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewline.config import Params
from brewline.config.published import PUBLISHED_FILE, Published, load_published
from brewline.config.synthetic import synthetic_notice
from brewline.core.files import read_stage_output, sha256_file, sha256_tree, write_text
from brewline.evaluation.outputs import (
    ASR_KEY,
    BUCKETS_FILE,
    DIRECTION_NAMES,
    SPEECH_TO_IMAGE,
    Metrics,
    read_metrics,
    read_model_metrics,
    read_recall,
)
from brewline.evaluation.scores import SELECTION_METRIC
from brewline.evaluation.sound_table import read_sound_metrics
from brewline.media.corpus_media import CorpusMedia, ReadMedia, stored_media
from brewline.models.names import model_names
from brewline.pages import charts
from brewline.pages.album import Album
from brewline.pages.figures import FIGURES_FOLDER, write_figures
from brewline.pages.render import markup, percent, render
from brewline.probing.outputs import read_probe_metrics
from brewline.report.analysis import AnalysedTable, analysis_section
from brewline.report.buckets import bucket_figures, bucket_tables
from brewline.report.comparisons import read_comparisons
from brewline.report.emotion import ProbeFiles, emotion_section
from brewline.report.examples import ExampleArranger, galleries
from brewline.report.figures import read_history, recall_figures, training_figures
from brewline.report.paper_tables import paper_tables
from brewline.report.papers import PAPERS_FOLDER, write_papers
from brewline.report.published import published_rows
from brewline.report.sound_choices import History
from brewline.report.sounds import SoundMetrics, SoundSection, sound_sections, sounds_markdown
from brewline.report.tables import Table, columns, further_columns, make_table, seed_rows
from brewline.report.text import NOTHING_EVALUATED, results_csv, results_markdown

_MAX_QUARANTINE_ROWS = 200
# Where sections have them.
_FIGURES = ("bucket_figures", "recall_figures", "training_figures", "figures")
# Of pictures and recordings in the page, before they are a third longer as text, so that it stays
# below 15 MB; each table has its part.
_MAX_PICTURE_BYTES, _MAX_AUDIO_BYTES = 5 << 20, 4 << 20
_WITHOUT_RESULT = {"tracking", "runtime"}


@dataclass(frozen=True)
class ReportInputs:
    """Where the report finds what the other stages made.

    `published` is what others report, `media` gives the bytes of a recording or a picture by corpus
    and the path in the manifest.
    """

    metrics_dir: Path
    evaluation_dir: Path
    sounds_dir: Path
    emotion_dir: Path
    analysis_dir: Path
    models_dir: Path
    manifest_dir: Path
    quarantine_dir: Path
    published: Published
    media: ReadMedia


def project_inputs(project: Path = Path()) -> ReportInputs:
    """The inputs at their places in the project's folder."""
    return ReportInputs(
        metrics_dir=project / "metrics",
        evaluation_dir=project / "reports/evaluation",
        sounds_dir=project / "reports/sounds",
        emotion_dir=project / "reports/emotion",
        analysis_dir=project / "reports/analysis",
        models_dir=project / "models",
        manifest_dir=project / "data/manifest",
        quarantine_dir=project / "data/quarantine",
        published=load_published(project / PUBLISHED_FILE),
        media=stored_media(project / "data/raw"),
    )


def write_report(params: Params, inputs: ReportInputs, out_dir: Path) -> None:
    """Writes `index.html`, `results.md` and `results.csv`, and the folders `papers` and `figures`.

    Args:
        params: The tables to show; leftovers of others are ignored.
        inputs: What the other stages made.
        out_dir: Usually `reports`; other files in it are left alone.

    Raises:
        BrewlineError: something that belongs to them is missing, and which file.
    """
    metrics = read_metrics(params, inputs.metrics_dir)
    albums: list[Album] = []
    tables = [_table_section(params, inputs, metrics, name, albums) for name in metrics]
    probes = {
        name: ProbeFiles.of(name, inputs.metrics_dir, inputs.emotion_dir) for name in params.probes
    }
    measured = {name: read_probe_metrics(files.metrics) for name, files in probes.items()}
    sounds = read_sound_metrics(params, inputs.metrics_dir)
    clips = _clips(params, inputs, sounds)
    papers = paper_tables(params, metrics, measured, inputs.published)
    emotions = [
        emotion_section(params, inputs.published, name, files) for name, files in probes.items()
    ]
    page = render(
        "report.html.j2",
        tables=tables,
        probes=emotions,
        clips=clips,
        papers=papers,
        nothing_evaluated="" if tables or clips else NOTHING_EVALUATED,
        images=[picture for album in albums for picture in album.pictures.values()],
        synthetic_notice=synthetic_notice(params, params.measured_corpora),
        confidence=percent(params.evaluate.confidence),
        data=[_data_section(inputs, corpus) for corpus in params.corpora],
        error_rates=_error_rates(params, metrics),
        digests=list(_digests(params, inputs)),
        parameters=_parameters(params),
    )
    write_text(out_dir / "index.html", page)
    markdown = results_markdown(params, metrics, inputs.evaluation_dir, inputs.published)
    write_text(out_dir / "results.md", "\n".join(filter(None, [markdown, sounds_markdown(clips)])))
    write_text(out_dir / "results.csv", results_csv(metrics, [sounds, measured]))
    write_papers(papers, out_dir / PAPERS_FOLDER)
    figures = [
        one for each in (*tables, *emotions) for key in _FIGURES for one in each.get(key, [])
    ]
    figures += [one for section in clips for one in section.figures]
    write_figures(figures, out_dir / FIGURES_FOLDER)


def _table_section(
    params: Params, inputs: ReportInputs, metrics: Metrics, name: str, albums: list[Album]
) -> dict[str, Any]:
    """Everything about a table, in the words of the template."""
    shown = params.tables[name]
    # A variant has one style on the whole page, whatever else a table has.
    styles = _styles(params, name)
    shown_columns = columns(params.evaluate.recall_at)
    test, dev = (make_table(params, metrics, name, one, shown_columns) for one in ("test", "dev"))
    further = further_columns(params.evaluate.recall_at)
    measured = read_model_metrics(params, shown.data, inputs.evaluation_dir)
    models = _read_models(params, inputs, name)
    curves = read_recall(inputs.evaluation_dir / name / "recall.csv", "test")
    manifest = inputs.manifest_dir / f"{shown.data}.parquet"
    media = CorpusMedia(shown.data, manifest, inputs.media)
    num_tables = len(params.tables)
    album = Album(f"{name}-picture-", media.image, _MAX_PICTURE_BYTES // num_tables)
    albums.append(album)
    rows = [*shown.rows]
    buckets = inputs.evaluation_dir / name / BUCKETS_FILE
    speech_first = sorted(rows, key=lambda row: not params.hears(shown.rows[row]))
    arranger = ExampleArranger(album, media, speech_first, _MAX_AUDIO_BYTES // num_tables)
    best = headline(params, metrics[name], name)
    alone = [row.name for row in test.rows if row.num_seeds == 1]
    analysed = AnalysedTable(name, inputs.analysis_dir / name, styles, alone)
    analysis = analysis_section(analysed, arranger)
    compared = list(dict.fromkeys([best["row"], shown.baseline or best["row"]]))
    # The curves of models that were taken over stand where they were trained.
    trained = [row for row in rows if params.is_trained(shown.rows[row])]
    return {
        "name": name,
        "corpus": shown.data,
        "is_synthetic": params.sources[shown.data].synthetic,
        "headline": best,
        "baseline": shown.baseline,
        "test": test,
        "published": published_rows(params, inputs.published, test, shown_columns),
        "dev": dev,
        "seeds": seed_rows(params, measured, name, "test", shown_columns),
        "further": make_table(params, metrics, name, "test", further),
        "buckets": list(bucket_tables(buckets, rows)),
        "bucket_figures": list(bucket_figures(name, buckets, rows, styles)),
        "has_ceiling": any(row.is_ceiling for row in test.rows),
        "styles": styles,
        "trained_styles": {row: styles[row] for row in trained},
        "num_parameters": {
            row: f"{folders[0][1]['num_trained_parameters']:,}" for row, folders in models.items()
        },
        "test_differences": _differences(params, inputs, test),
        "dev_differences": _differences(params, inputs, dev),
        "recall_figures": list(recall_figures(name, curves, styles)),
        "training_figures": list(
            training_figures(name, {row: models[row] for row in trained}, styles)
        ),
        "galleries": galleries(inputs.evaluation_dir / name, rows, compared, arranger, name),
        "analysis": analysis,
        "figures": analysis["figures"],
    }


def _clips(params: Params, inputs: ReportInputs, metrics: SoundMetrics) -> list[SoundSection]:
    """The tables of clips."""
    differences = {
        name: read_stage_output(inputs.sounds_dir / name / "comparisons.json", "score_sounds")
        for name in metrics
    }
    histories = {name: dict(_frame_histories(params, inputs, name)) for name in metrics}
    return sound_sections(params, metrics, differences, inputs.published, histories)


def _frame_histories(
    params: Params, inputs: ReportInputs, table: str
) -> Iterator[tuple[str, dict[str, History]]]:
    """Yields the rows of a table of clips that learned from frames, with their histories."""
    for row, experiment in params.sound_tables[table].rows.items():
        one = params.experiments[experiment]
        if one.task == "audio_image" and params.is_trained(experiment):
            folder = inputs.models_dir / experiment
            names = model_names(params, experiment)
            yield row, {name: read_history(folder / name) for name in names}


def _styles(params: Params, name: str) -> dict[str, int]:
    """A line style for each row: that of its variant, or the next free one."""
    styles: dict[str, int] = {}
    # Those of others come after all variants.
    known = [*params.variants, *params.external]
    for row, experiment in params.tables[name].rows.items():
        one = params.experiments.get(experiment)
        style = known.index(one.variant if one else experiment) % charts.NUM_STYLES
        while style in styles.values() and len(styles) < charts.NUM_STYLES:
            style = (style + 1) % charts.NUM_STYLES
        styles[row] = style
    return styles


def headline(
    params: Params, metrics: Mapping[str, Mapping[str, float]], name: str
) -> dict[str, str]:
    """The row that is best on dev among those that hear speech, and how it does on test."""
    table = params.tables[name]
    best = max(params.contenders(name), key=lambda row: metrics[row][SELECTION_METRIC])
    found = f"test/{SPEECH_TO_IMAGE}/recall_at_1"
    on_test = {row: f"{100 * metrics[row][found]:.1f}" for row in table.rows}
    compared = table.baseline is not None and table.baseline != best
    return {
        "row": best,
        "value": on_test[best],
        "reference": f" The baseline, {table.baseline}: {on_test[table.baseline or best]}\u00a0%."
        * compared,
    }


def _error_rates(params: Params, metrics: Metrics) -> dict[str, dict[str, str]]:
    """The word error rates of dev and test, by corpus."""
    return {
        params.tables[name].data: {
            split: _error_rate(metrics[name][ASR_KEY], split) for split in ("dev", "test")
        }
        for name in metrics
    }


def _error_rate(metrics: Mapping[str, float], split: str) -> str:
    value = metrics.get(f"{split}/asr/wer")
    return "not measured" if value is None else f"{100 * value:.1f} %"


def _differences(params: Params, inputs: ReportInputs, table: Table) -> list[dict[str, Any]]:
    confidence = percent(params.evaluate.confidence)
    found = read_comparisons(inputs.evaluation_dir, table, confidence)
    span = max((max(abs(one.low), abs(one.high)) for one in found), default=0.0) or 1.0
    return [
        {
            "direction": DIRECTION_NAMES[one.direction].replace(" to ", " → "),
            "verdict": one.verdict,
            "bar": markup(charts.interval_bar(one.low, one.difference, one.high, span, one.kind)),
        }
        for one in found
    ]


def _read_models(
    params: Params, inputs: ReportInputs, name: str
) -> dict[str, list[tuple[Path, dict[str, Any]]]]:
    """The folders of each row's models with their `model.json`, a folder per seed.

    Of what others computed there are none.
    """
    models = {}
    for row, experiment in params.tables[name].rows.items():
        if experiment in params.external:
            continue
        folders = [inputs.models_dir / experiment / one for one in model_names(params, experiment)]
        models[row] = [(folder, read_stage_output(folder / "model.json")) for folder in folders]
    return models


def _data_section(inputs: ReportInputs, corpus: str) -> dict[str, Any]:
    """What a corpus lists, what of it is used, and what was set aside for which reason."""
    from brewline.tables.parquet import read_column, read_table

    path = inputs.quarantine_dir / f"{corpus}.parquet"
    split, image_id, duration_s = (
        read_column(inputs.manifest_dir / f"{corpus}.parquet", name).to_pylist()
        for name in ("split", "image_id", "duration_s")
    )
    quarantine = sorted(read_table(path), key=lambda row: (row["reason"], row["utterance_id"]))
    reasons = collections.Counter(row["reason"] for row in quarantine)
    splits = collections.Counter(split)
    return {
        "corpus": corpus,
        "num_listed": len(split) + len(quarantine),
        "num_used": [splits[one] for one in ("train", "dev", "test")],
        "num_quarantined": len(quarantine),
        "num_images": len({*image_id} - {None}),
        "minutes": f"{sum(duration_s) / 60:.1f}",
        "reasons": sorted(reasons.items(), key=lambda item: (-item[1], item[0])),
        "quarantined": quarantine[:_MAX_QUARANTINE_ROWS],
        "num_hidden": max(0, len(quarantine) - _MAX_QUARANTINE_ROWS),
        "path": f"data/quarantine/{corpus}.parquet",
    }


def _digests(params: Params, inputs: ReportInputs) -> Iterator[tuple[str, str]]:
    """Yields what the numbers are a function of: (name, SHA-256)."""
    backbones = read_stage_output(inputs.models_dir / "backbones/backbones.json", "weights")
    for kind, facts in backbones.items():
        yield f"{kind} weights: {facts['name']}", facts["sha256"]
    for corpus in params.corpora:
        yield f"manifest of {corpus}", sha256_file(inputs.manifest_dir / f"{corpus}.parquet")
    data: set[tuple[str, str]] = set()
    seen: set[Path] = set()
    for name in params.tables:
        for folders in _read_models(params, inputs, name).values():
            for folder, model in folders:
                if folder in seen:
                    continue
                seen.add(folder)
                yield f"model {folder.parent.name}/{folder.name}", sha256_tree(folder)
                data |= {
                    (f"{part} of {model['trained_on']}, as the models were trained on", str(digest))
                    for part, digest in (model["data"] or {}).items()
                }
    yield from sorted(data)


def _parameters(params: Params) -> str:
    """The parameters that can change a result, as YAML."""
    import yaml

    values = params.model_dump(mode="json", by_alias=True, exclude=_WITHOUT_RESULT)
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=96)
