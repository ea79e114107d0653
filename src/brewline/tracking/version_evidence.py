"""What is known of a version when promotion is decided: kept in its tags, or found out again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from brewline.config import Params
from brewline.registry.candidates import dev_manifest_digest
from brewline.registry.policy import Evidence, Policy
from brewline.tracking.model_files import downloaded_bundle
from brewline.tracking.registered_models import registered_name
from brewline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def evidence_tags(evidence: Evidence) -> dict[str, str]:
    """The tags of a version that keep what is known of it."""
    values = {"quarantine_rate": evidence.quarantine_rate, "dev": dict(evidence.metrics)}
    return {
        "dev_manifest_digest": evidence.dev_digest,
        "measured": json.dumps(values, sort_keys=True),
    }


def version_evidence(
    store: Store, version: "ModelVersion", params: Params, policy: Policy | None, project: Path
) -> Evidence:
    """What is known of a version on the project's dev split, evaluated again where it has to be.

    With a policy that limits the time of an answer, that is found out too.
    """
    corpus = version.name.removeprefix(registered_name(""))
    name = call_version(version)
    digest = dev_manifest_digest(project / f"data/manifest/{corpus}.parquet")
    evidence = None
    if version.tags.get("dev_manifest_digest") == digest and "measured" in version.tags:
        values = json.loads(version.tags["measured"])
        evidence = Evidence(name, digest, values["dev"], values["quarantine_rate"])
    timed = policy is not None and policy.max_latency_ms is not None
    if evidence and not timed:
        return evidence
    from brewline.models.names import BACKBONES_FOLDER
    from brewline.registry import trial
    from brewline.registry.serving import load_bundle

    with downloaded_bundle(store, version) as bundle:
        served = load_bundle(bundle, project / BACKBONES_FOLDER)
        if evidence is None:
            evidence = trial.evaluate_again(served, params, name, project)
            for key, value in evidence_tags(evidence).items():
                store.client.set_model_version_tag(version.name, version.version, key, value)
        if timed:
            evidence = replace(evidence, latency_ms=trial.latency_ms(served, project))
    return evidence


def call_version(version: "ModelVersion") -> str:
    """How reasons call a version."""
    return f"version {version.version} ({version.tags.get('experiment', 'made by hand')})"
