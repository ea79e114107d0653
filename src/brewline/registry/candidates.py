"""What registering and promotion go by: which model is best, and what is known of it on dev.

All of it comes from the project's files, so equal files give equal answers.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from brewline.config import Params
from brewline.core.errors import BrewlineError
from brewline.core.files import read_stage_output, sha256_tree
from brewline.evaluation.outputs import ASR_KEY, read_dev_ranks, read_model_metrics
from brewline.models.names import model_names
from brewline.registry.policy import WER, Evidence, Policy
from brewline.tables.parquet import read_table


@dataclass(frozen=True)
class Challenger:
    """The model of a corpus that is put forward.

    `name` is `<experiment>/seed-<n>`, `digest` the SHA-256 of its folder.
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
            "chosen_among": self.evidence.chosen_among,
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

    It is one of the rows of the tables on the corpus that were trained on it. What reads captions
    hears no speech and is left out. Of equal models the one that `params.yaml` names first is
    taken.

    Returns:
        The model, or None where no row qualifies.

    Raises:
        BrewlineError: a file of the project is missing, or a model was not measured.
    """
    names = [
        f"{experiment}/{name}"
        for experiment in params.trained_rows(corpus)
        for name in model_names(params, experiment)
    ]
    if not names:
        return None
    models = read_model_metrics(params, corpus, project / "reports/evaluation")
    missing = [name for name in names if policy.metric not in models.get(name, {})]
    if missing:
        raise BrewlineError(f"{missing[0]} has no {policy.metric}; run `dvc repro score`")
    name = max(names, key=lambda one: models[one][policy.metric])
    folder = project / "models" / name
    if not folder.is_dir():
        raise BrewlineError(f"{folder} is missing; run `dvc repro`")
    evidence = replace(read_evidence(params, corpus, name, project), chosen_among=len(names))
    return Challenger(corpus, name, folder, sha256_tree(folder), evidence)


def baseline_evidence(params: Params, corpus: str, project: Path = Path()) -> Evidence:
    """What the baseline of a corpus reaches on dev: the first champion has to beat it.

    Raises:
        BrewlineError: it was not measured, or no table on the corpus names a baseline.
    """
    for table in params.tables_on(corpus).values():
        if table.baseline is not None:
            experiment = table.rows[table.baseline]
            name = f"{experiment}/{model_names(params, experiment)[0]}"
            return replace(read_evidence(params, corpus, name, project), name=table.baseline)
    raise BrewlineError(
        f"no table on {corpus} names a baseline, which a first champion has to beat; set one under "
        "tables of params.yaml",
        "settings",
    )


def read_evidence(params: Params, corpus: str, name: str, project: Path = Path()) -> Evidence:
    """Reads what `score` found of a model on dev.

    Raises:
        BrewlineError: the model was not measured.
    """
    evaluation = project / "reports/evaluation"
    models = read_model_metrics(params, corpus, evaluation)
    if name not in models:
        raise BrewlineError(
            f"{name} was not measured on {corpus}; name it in a table of params.yaml and run "
            "`dvc repro`"
        )
    metrics = {k: v for k, v in models[name].items() if k.startswith("dev/") and v is not None}
    rates = read_error_rates(params, corpus, project)
    if WER in rates:
        metrics[WER] = rates[WER]
    digest = dev_manifest_digest(project / f"data/manifest/{corpus}.parquet")
    return Evidence(
        name,
        digest,
        metrics,
        read_dev_ranks(params, corpus, name, evaluation),
        quarantine_rate=quarantine_rate(project, corpus),
    )


def read_error_rates(params: Params, corpus: str, project: Path = Path()) -> dict[str, float]:
    """The word error rates of a corpus, which are the same in all its tables."""
    name = next(iter(params.tables_on(corpus)))
    found = read_stage_output(project / f"metrics/{name}.json", "score")
    rates: dict[str, float] = found.get(ASR_KEY, {})
    return rates
