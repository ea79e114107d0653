"""What registering and promotion go by: which model is best, and what is known of it on dev.

All of it comes from the project's files, so equal files give equal answers.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from brewline.config import Params
from brewline.config.models import UNTRAINED
from brewline.core.errors import BrewlineError
from brewline.core.files import read_stage_output, sha256_tree
from brewline.evaluation.outputs import ASR_KEY, read_model_metrics
from brewline.registry.policy import WER, Evidence, Policy, best_on_dev
from brewline.tables.parquet import read_table


@dataclass(frozen=True)
class Challenger:
    """The model of a corpus that is put forward.

    `name` is `<variant>/seed-<n>`, `digest` the SHA-256 of its folder.
    """

    corpus: str
    name: str
    folder: Path
    digest: str
    evidence: Evidence

    @property
    def facts(self) -> dict[str, Any]:
        """What `reports/registration.json` says of it: a function of the project's files."""
        return {
            "model": self.name,
            "model_digest": self.digest,
            "dev_manifest_digest": self.evidence.dev_digest,
            "quarantine_rate": self.evidence.quarantine_rate,
            "dev": dict(self.evidence.metrics),
        }


def dev_manifest_digest(manifest: Path) -> str:
    """The SHA-256 over the rows of the dev split: other splits may change without a matter."""
    rows = [row for row in read_table(manifest) if row["split"] == "dev"]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def quarantine_rate(project: Path, corpus: str) -> float:
    """The share of the utterances that a corpus lists which validation dropped."""
    kept, dropped = (
        len(read_table(project / f"data/{kind}/{corpus}.parquet"))
        for kind in ("manifest", "quarantine")
    )
    return dropped / max(1, kept + dropped)


def find_challenger(
    params: Params, corpus: str, policy: Policy, project: Path = Path()
) -> Challenger | None:
    """Finds the best model of a corpus, by the metric of the policy.

    Returns:
        The model, or None where the corpus has no trained variant that hears speech.

    Raises:
        BrewlineError: a file of the project is missing.
    """
    name = best_on_dev(
        params, corpus, read_model_metrics(project / "reports/evaluation", corpus), policy.metric
    )
    if name is None:
        return None
    folder = project / "models" / corpus / name
    if not folder.is_dir():
        raise BrewlineError(f"{folder} is missing; run `dvc repro`")
    return Challenger(
        corpus, name, folder, sha256_tree(folder), read_evidence(corpus, name, project)
    )


def zero_shot(corpus: str, project: Path = Path()) -> Evidence:
    """What the corpus' zero-shot variant reaches on dev: the first champion has to beat it.

    Raises:
        BrewlineError: it was not evaluated.
    """
    return replace(read_evidence(corpus, f"{UNTRAINED}/frozen", project), name=UNTRAINED)


def read_evidence(corpus: str, name: str, project: Path = Path()) -> Evidence:
    """Reads what `evaluate` found of a model on dev.

    Raises:
        BrewlineError: the model was not evaluated.
    """
    models = read_model_metrics(project / "reports/evaluation", corpus)
    if name not in models:
        raise BrewlineError(
            f"{name} of {corpus} was not evaluated; put it into retrieval_corpora.{corpus} of "
            "params.yaml and run `dvc repro`"
        )
    metrics = {k: v for k, v in models[name].items() if k.startswith("dev/") and v is not None}
    rates = read_stage_output(project / f"metrics/{corpus}.json", "evaluate").get(ASR_KEY, {})
    if WER in rates:
        metrics[WER] = rates[WER]
    digest = dev_manifest_digest(project / f"data/manifest/{corpus}.parquet")
    return Evidence(name, digest, metrics, quarantine_rate(project, corpus))
