"""The model card of a version in the registry: Markdown, from the project's files alone."""

import collections
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from brewline.config import Params
from brewline.config.miniature import miniature_notice
from brewline.config.models import UNTRAINED
from brewline.core.files import read_stage_output, sha256_file
from brewline.evaluation.outputs import ASR_KEY, read_model_metrics
from brewline.models.card import describe_variant, load_card
from brewline.models.names import BACKBONES_FOLDER, NAMES_FILE
from brewline.pages.render import percent, render_markdown
from brewline.registry import serving
from brewline.registry.candidates import Challenger
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
    metrics = read_stage_output(project / f"metrics/{corpus}.json", "evaluate")
    models = read_model_metrics(project / "reports/evaluation", corpus)
    names = read_stage_output(project / BACKBONES_FOLDER / NAMES_FILE, "weights")
    manifest = project / f"data/manifest/{corpus}.parquet"
    splits = collections.Counter(row["split"] for row in read_table(manifest))
    rates = metrics.get(ASR_KEY, {})
    return render_markdown(
        "model_card.md.j2",
        title=f"{corpus}: {challenger.name}",
        summary="Finds the picture for what somebody says, and the recordings for a picture.",
        miniature_notice=miniature_notice([corpus]),
        corpus=corpus,
        card=card,
        what=describe_variant(card.switches),
        digest=challenger.digest,
        num_seeds=int(metrics[card.variant]["num_seeds"]),
        confidence=percent(params.evaluate.confidence),
        rows=list(_rows(models[challenger.name], metrics[card.variant], metrics.get(UNTRAINED))),
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
