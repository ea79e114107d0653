"""The model card of a version in the registry: Markdown, from the project's files alone."""

import collections
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from brewline.config.params import Params
from brewline.core.files import sha256_file
from brewline.models.card import BACKBONES_FOLDER, NAMES_FILE, load_card
from brewline.registry import serving
from brewline.registry.candidates import Challenger
from brewline.report.tables import MINIATURE_NOTICE, describe, is_miniature, load_json, percent
from brewline.tables.manifest import read_table

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
    import jinja2

    corpus = challenger.corpus
    card = load_card(challenger.folder)
    metrics = load_json(project / f"metrics/{corpus}.json", "evaluate")
    models = load_json(project / f"reports/evaluation/{corpus}/models.json", "evaluate")
    names = load_json(project / BACKBONES_FOLDER / NAMES_FILE, "weights")
    manifest = project / f"data/manifest/{corpus}.parquet"
    splits = collections.Counter(row["split"] for row in read_table(manifest))
    rates = metrics.get("asr", {})
    # Markdown that MLflow shows: no value here comes from the data.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1] / "pages/templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md.j2").render(
        title=f"{corpus}: {challenger.name}",
        summary="Finds the picture for what somebody says, and the recordings for a picture.",
        miniature_notice=MINIATURE_NOTICE if is_miniature(corpus) else "",
        corpus=corpus,
        card=card,
        what=describe(card.switches),
        digest=challenger.digest,
        num_seeds=int(metrics[card.variant]["num_seeds"]),
        confidence=percent(params.evaluate.confidence),
        rows=list(_rows(models[challenger.name], metrics[card.variant], metrics.get("zero-shot"))),
        wer={split: _show(rates.get(f"{split}/asr/wer")) for split in ("dev", "test")},
        licence=params.sources[corpus].licence,
        splits={split: splits[split] for split in ("train", "dev", "test")},
        num_quarantined=len(read_table(project / f"data/quarantine/{corpus}.parquet")),
        quarantine_percent=f"{100 * (challenger.measured.quarantine_rate or 0):.1f}",
        digests={
            "SHA-256 of the manifest": sha256_file(manifest),
            "SHA-256 of the manifest's dev rows": challenger.measured.dev_digest,
            **{f"SHA-256 of the {name}": sha256 for name, sha256 in card.data.items()},
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
            "megapixels": serving.MAX_MEGAPIXELS,
            "text": serving.MAX_TEXT_LENGTH,
        },
    )


def _rows(
    own: Mapping[str, float], of_variant: Mapping[str, float], zero_shot: Mapping[str, float] | None
) -> Iterator[dict[str, Any]]:
    for name, value in own.items():
        if name.endswith(("gallery_size", "num_queries")):
            continue
        low, high = of_variant.get(f"{name}_low"), of_variant.get(f"{name}_high")
        interval = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
        yield {
            "metric": name,
            "own": _show(value),
            "variant": f"{_show(of_variant.get(name))}{interval}",
            "reference": _show((zero_shot or {}).get(name)),
        }


def _show(value: float | None) -> str:
    return _NOT_MEASURED if value is None else f"{value:.3f}"
