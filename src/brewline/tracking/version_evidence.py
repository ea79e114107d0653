"""What is known of a version when promotion is decided: kept beside it, or found out again.

Tags say what it reached on dev; how it answered each query is a file among the version's own, which
the tag `dev_ranks` names.
"""

import hashlib
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewline.config import Params
from brewline.core.files import read_json, write_text
from brewline.core.locks import slot
from brewline.evaluation.query_ranks import QueryRanks
from brewline.registry.candidates import dev_manifest_digest
from brewline.registry.policy import Evidence, Policy
from brewline.tracking.model_files import LOGGED_MODEL_TAG, downloaded, downloaded_bundle
from brewline.tracking.registered_models import registered_name
from brewline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

DEV_DIGEST_TAG = "dev_manifest_digest"
MEASURED_TAG = "measured"
RANKS_TAG = "dev_ranks"


def write_evidence(evidence: Evidence, folder: Path) -> dict[str, str]:
    """Writes what is known of a version into the folder of its files; returns the tags with it."""
    values = {
        "quarantine_rate": evidence.quarantine_rate,
        "dev": dict(evidence.metrics),
        "chosen_among": evidence.chosen_among,
    }
    tags = {
        DEV_DIGEST_TAG: evidence.dev_digest,
        MEASURED_TAG: json.dumps(values, sort_keys=True),
    }
    if evidence.ranks:
        text = json.dumps(asdict(evidence.ranks), sort_keys=True)
        # Of another dev manifest, or of other code, it is another file.
        name = f"evidence/dev_ranks-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        write_text(folder / name, text)
        tags[RANKS_TAG] = name
    return tags


def keep_evidence(store: Store, version: "ModelVersion", evidence: Evidence) -> None:
    """Keeps what is known of a version beside it, where that is new.

    A version that was made by hand has no files that more can be added to, and keeps nothing.
    """
    if LOGGED_MODEL_TAG not in version.tags:
        return
    with tempfile.TemporaryDirectory() as folder:
        tags = write_evidence(evidence, Path(folder))
        if tags.items() <= version.tags.items():
            return
        store.client.log_model_artifacts(version.tags[LOGGED_MODEL_TAG], folder)
    for key, value in tags.items():
        store.client.set_model_version_tag(version.name, version.version, key, value)


def measured(version: "ModelVersion") -> dict[str, Any]:
    """What the tag says: `dev`, `quarantine_rate` and `chosen_among`; nothing where it lacks."""
    known: dict[str, Any] = json.loads(version.tags.get(MEASURED_TAG, "{}"))
    return {"dev": {}, "quarantine_rate": None, "chosen_among": 1} | known


def version_evidence(
    store: Store, version: "ModelVersion", params: Params, policy: Policy | None, project: Path
) -> Evidence:
    """What is known of a version on the project's dev split, evaluated again where it has to be.

    That is where it was measured on another dev manifest, or kept no ranks of its queries. With a
    policy that limits the time of an answer, that is found out too.
    """
    corpus = version.name.removeprefix(registered_name(""))
    name = call_version(version)
    digest = dev_manifest_digest(project / f"data/manifest/{corpus}.parquet")
    evidence = _kept(store, version, digest)
    timed = policy is not None and policy.max_latency_ms is not None
    if evidence and not timed:
        return evidence
    from brewline.models.names import BACKBONES_FOLDER
    from brewline.registry import trial
    from brewline.registry.serving import load_bundle

    with downloaded_bundle(store, version) as bundle:
        served = load_bundle(bundle, project / BACKBONES_FOLDER)
        if evidence is None:
            evidence = replace(
                trial.evaluate_again(served, params, name, project),
                chosen_among=measured(version)["chosen_among"],
            )
            keep_evidence(store, version, evidence)
        if timed:
            # Alone on the machine: beside a training it would be the time of both.
            with slot(project):
                evidence = replace(evidence, latency_ms=trial.latency_ms(served, project))
    return evidence


def _kept(store: Store, version: "ModelVersion", dev_digest: str) -> Evidence | None:
    """What was kept of a version on this dev manifest, if all of it was."""
    tags = version.tags
    if tags.get(DEV_DIGEST_TAG) != dev_digest or not {MEASURED_TAG, RANKS_TAG} <= tags.keys():
        return None
    known = measured(version)
    with downloaded(store, version, tags[RANKS_TAG]) as path:
        ranks = QueryRanks(**read_json(path))
    return Evidence(
        call_version(version),
        dev_digest,
        known["dev"],
        ranks,
        chosen_among=known["chosen_among"],
        quarantine_rate=known["quarantine_rate"],
    )


def call_version(version: "ModelVersion") -> str:
    """How reasons call a version."""
    return f"version {version.version} ({version.tags.get('experiment', 'made by hand')})"
