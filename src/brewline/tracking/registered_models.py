"""The registry: one registered model per corpus, whose aliases say which version is for what.

`brewline-<corpus>` has a version for every model that was ever the best of its pipeline run, found
again by the digest of the model's folder. `challenger` is the best of them on dev that was neither
rolled back nor refused; `champion` is the one in use, and moves by `promote` and `rollback` alone,
or by a person.

What a person does by hand is respected. The registered model's tags say what these functions set
last, so that a difference is somebody's decision:

- A `champion` that a person set is the one that the next promotion compares with, and says so
  once; a rollback from it goes to the champion that promotion had chosen.
- Where a person took `champion` away, there is none, and the table's baseline stands in for it.
- A `challenger` that a person set or took away stays so until another version is the best one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from brewline.config import Params
from brewline.core.errors import BrewlineError
from brewline.core.locks import locked
from brewline.tracking.store import (
    RefusedError,
    Store,
    interpreted,
    lock_file,
    open_store,
    public_uri,
    tracking_uri,
)
from brewline.tracking.version_history import add_to_history

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel

CHAMPION = "champion"
CHALLENGER = "challenger"


def registered_name(corpus: str) -> str:
    """The name of a corpus' registered model."""
    return f"brewline-{corpus}"


@contextmanager
def open_registry(params: Params) -> Iterator[Store]:
    """Opens the store for one process of this project at a time.

    Raises:
        BrewlineError: of kind `network` where the store cannot be reached.
    """
    uri = tracking_uri()
    try:
        store = open_store(params.tracking)
        with locked(Path(f"{lock_file(uri)}-registry")), interpreted():
            yield store
    except OSError as error:
        # A number is the file system's, which names what is missing or full.
        if error.errno is not None:
            raise
        raise BrewlineError(
            f"MLflow at {public_uri(uri)} cannot be reached; start again once it is there",
            "network",
        ) from None
    except RefusedError as error:
        raise BrewlineError(f"MLflow at {public_uri(uri)} refuses: {error}", "settings") from None


def get_registered_model(store: Store, name: str) -> "RegisteredModel":
    """The registered model.

    Raises:
        BrewlineError: there is none of this name.
    """
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise BrewlineError(
                f"MLflow has no model {name}; run `dvc repro register` or `brewline record`"
            ) from None
        raise


def aliases_of(model: "RegisteredModel") -> dict[str, str]:
    """The versions by alias."""
    return {alias: str(version) for alias, version in model.aliases.items()}


def moved_by_hand(alias: str, present: str | None, ours: str | None) -> str:
    """The sentence about an alias that somebody moved or took away."""
    before = f"version {ours}" if ours else "none"
    if present is None:
        return f"Somebody took the alias {alias} away from {before} by hand; that is respected."
    return (
        f"Somebody made version {present} the {alias} by hand, where Brewline had chosen {before}; "
        "that is respected."
    )


def champion_by_hand(model: "RegisteredModel") -> list[str]:
    """Says so where the champion is not the one that was set here last."""
    present, ours = aliases_of(model).get(CHAMPION), model.tags.get(CHAMPION)
    return [] if present == ours else [moved_by_hand(CHAMPION, present, ours)]


def adopt_champion(store: Store, model: "RegisteredModel") -> None:
    """Takes over the champion that a person chose; from then on it counts as set here."""
    present, ours = aliases_of(model).get(CHAMPION), model.tags.get(CHAMPION)
    if present == ours:
        return
    if present is None:
        store.client.delete_registered_model_tag(model.name, CHAMPION)
        return
    store.client.set_registered_model_tag(model.name, CHAMPION, present)
    store.client.set_model_version_tag(model.name, present, "promotion", "by hand")
    add_to_history(store, model.name, present, "champion", [moved_by_hand(CHAMPION, present, ours)])
    if ours:
        store.client.set_model_version_tag(model.name, present, "previous_champion", ours)
