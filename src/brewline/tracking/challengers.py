"""Which version of a registered model is put forward: the best on dev that nobody has refused."""

from typing import TYPE_CHECKING

from brewline.tracking.registered_models import CHALLENGER, aliases_of
from brewline.tracking.store import Store
from brewline.tracking.version_evidence import DEV_DIGEST_TAG, measured

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

# Tags of versions that are not put forward until somebody removes them.
ROLLED_BACK_TAG = "rolled_back_at"
REFUSED_TAG = "refused_at"


def versions_of(store: Store, name: str) -> "list[ModelVersion]":
    """All versions of a registered model."""
    return list(store.client.search_model_versions(f"name = '{name}'"))


def best_version(store: Store, name: str, dev_digest: str, metric: str) -> "ModelVersion | None":
    """The best version on a dev manifest that was neither rolled back nor refused.

    Of equal ones it is the oldest; None where there is none.

    Args:
        store: Where the versions are.
        name: The registered model.
        dev_digest: Only what was measured on this dev manifest can be compared.
        metric: The policy's.
    """
    eligible = [
        version
        for version in versions_of(store, name)
        if version.tags.get(DEV_DIGEST_TAG) == dev_digest
        and not {ROLLED_BACK_TAG, REFUSED_TAG} & version.tags.keys()
        and metric in measured(version)["dev"]
    ]
    return max(
        eligible,
        key=lambda version: (measured(version)["dev"][metric], -int(version.version)),
        default=None,
    )


def num_compared(store: Store, name: str, dev_digest: str) -> int:
    """How many models the best version was picked from at most, those behind each version too."""
    return sum(
        measured(version)["chosen_among"]
        for version in versions_of(store, name)
        if version.tags.get(DEV_DIGEST_TAG) == dev_digest
    )


def set_challenger(store: Store, name: str, version: str) -> None:
    """Puts a version forward, and remembers that it was not a person who did."""
    store.client.set_registered_model_alias(name, CHALLENGER, version)
    store.client.set_registered_model_tag(name, CHALLENGER, version)


def replace_challenger(
    store: Store, model: "RegisteredModel", gone: "ModelVersion", metric: str
) -> str | None:
    """Puts the next best version forward in the place of one that is out of the question now.

    Where a person chose another challenger, or took it away, that stays so. Where no version is
    left, the alias stays too, and promotion says why it does not go by it.

    Returns:
        The challenger, or None where there is none.
    """
    present = aliases_of(model).get(CHALLENGER)
    if present != str(gone.version):
        return present
    best = best_version(store, model.name, gone.tags.get(DEV_DIGEST_TAG, ""), metric)
    if best is None:
        return present
    set_challenger(store, model.name, str(best.version))
    return str(best.version)
