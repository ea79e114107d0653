"""The model card of a version in the registry: Markdown, from the project's files alone."""

import collections
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from brewline.config import Params
from brewline.config.synthetic import synthetic_notice
from brewline.core.files import read_stage_output, sha256_file
from brewline.evaluation.outputs import read_model_metrics
from brewline.models.card import ModelCard, describe, flatten, load_card
from brewline.models.names import BACKBONES_FOLDER, NAMES_FILE
from brewline.pages.render import percent, render_markdown
from brewline.registry import serving
from brewline.registry.candidates import Challenger, read_error_rates
from brewline.tables.parquet import read_table

_NOT_MEASURED = "not measured"


def model_card(params: Params, challenger: Challenger, project: Path = Path()) -> str:
    """Writes the card of a model.

    Args:
        params: The licence of the corpus, and how queries are prepared.
        challenger: The model.
        project: Its metrics, manifests and backbones are read.

    Raises:
        BrewlineError: a file of the project is missing.
    """
    corpus = challenger.corpus
    card = load_card(challenger.folder)
    names = read_stage_output(project / BACKBONES_FOLDER / NAMES_FILE, "weights")
    manifest = project / f"data/manifest/{corpus}.parquet"
    splits = collections.Counter(row["split"] for row in read_table(manifest))
    rates = read_error_rates(params, corpus, project)
    return render_markdown(
        "model_card.md.j2",
        title=f"{corpus}: {challenger.name}",
        summary="Finds the picture for what somebody says, and the recordings for a picture.",
        synthetic_notice=synthetic_notice(params, [corpus]),
        corpus=corpus,
        card=card,
        what=describe(params, card.experiment),
        settings=_settings(card),
        digest=challenger.digest,
        confidence=percent(params.evaluate.confidence),
        results=_results(params, challenger, card.experiment, project),
        wer={split: _show(rates.get(f"{split}/asr/wer")) for split in ("dev", "test")},
        licence=params.sources[corpus].licence,
        splits={split: splits[split] for split in ("train", "dev", "test")},
        num_quarantined=len(read_table(project / f"data/quarantine/{corpus}.parquet")),
        quarantine_percent=f"{100 * (challenger.evidence.quarantine_rate or 0):.1f}",
        digests={
            "SHA-256 of the manifest": sha256_file(manifest),
            "SHA-256 of the manifest's dev rows": challenger.evidence.dev_digest,
            **{f"SHA-256 of the index of the {k}": sha256 for k, sha256 in card.data.items()},
        },
        backbones={
            role: {"name": names[role]["name"], "sha256": sha256}
            for role, sha256 in card.backbones.items()
            if sha256
        },
        language=params.asr.language,
        limits={
            "records": serving.MAX_RECORDS,
            "mb": serving.MAX_MB,
            "duration_s": f"{params.validation.max_duration_s:g}",
            "megapixels": f"{params.validation.max_image_megapixels:g}",
            "text": serving.MAX_TEXT_LENGTH,
        },
    )


def _settings(card: ModelCard) -> dict[str, Any]:
    """The variant and the recipe, as `params.yaml` had them; what is not set is left out."""
    sections = {"variant": card.switches.model_dump(), "recipe": card.recipe or {}}
    return {name: value for name, value in flatten(sections) if value is not None}


def _results(
    params: Params, challenger: Challenger, experiment: str, project: Path
) -> dict[str, Any]:
    """The model beside its row and the baseline of the first table that shows it."""
    shown = params.row_of(experiment)
    assert shown is not None, "a challenger is a row of a table"
    table, row = shown
    metrics = read_stage_output(project / f"metrics/{table}.json", "score")
    models = read_model_metrics(params, challenger.corpus, project / "reports/evaluation")
    baseline = params.tables[table].baseline
    compared = metrics.get(baseline) if baseline else None
    return {
        "table": table,
        "row": row,
        "baseline": baseline or "no baseline",
        "num_seeds": int(metrics[row]["num_seeds"]),
        "metrics": list(_rows(models[challenger.name], metrics[row], compared)),
    }


def _rows(
    own: Mapping[str, float], of_row: Mapping[str, float], baseline: Mapping[str, float] | None
) -> Iterator[dict[str, Any]]:
    for name, value in own.items():
        if name.endswith(("gallery_size", "num_queries")):
            continue
        low, high = of_row.get(f"{name}_low"), of_row.get(f"{name}_high")
        interval = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
        yield {
            "metric": name,
            "own": _show(value),
            "row": f"{_show(of_row.get(name))}{interval}",
            "baseline": _show((baseline or {}).get(name)),
        }


def _show(value: float | None) -> str:
    return _NOT_MEASURED if value is None else f"{value:.3f}"
