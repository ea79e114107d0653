"""Files of MLflow that nothing needs any more: of deleted runs, and of models without a version.

MLflow keeps the files of everything that is deleted in its pages, and those of a model when its
versions and its run are gone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from brewline.config import load_params
from brewline.core.files import sha256_tree
from brewline.models.card import CARD_FILE
from brewline.tracking.runs import DIGEST_TAG
from brewline.tracking.store import Store, lock_file, open_store, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

_MODELS = "models"


@dataclass(frozen=True)
class UnneededFiles:
    """A folder of MLflow's that nothing needs, and why.

    `model_id` is MLflow's record of the model whose files it has, where that is still listed.
    """

    path: Path
    why: str
    model_id: str | None = None


def find_unneeded_files(project: Path = Path()) -> list[UnneededFiles]:
    """Looks through the artifacts that lie on this machine; changes nothing.

    Kept is what a run has that was not deleted, what any version of a registered model was made
    of, and a finished model that is one of those in `models/`. Where artifacts lie on a server
    nothing is found.

    Raises:
        OSError: the store cannot be reached.
        BrewlineError: the store refuses, or `params.yaml` is not valid.
    """
    uri = tracking_uri(project)
    if uri.startswith("sqlite:///") and not lock_file(uri).with_suffix("").exists():
        return []
    store = open_store(load_params(project / "params.yaml").tracking, project)
    place = urlsplit(store.client.get_experiment(store.experiment_id).artifact_location)
    root = Path(unquote(place.path))
    if place.scheme not in ("", "file") or not root.is_dir():
        return []
    runs = set(_active_runs(store))
    found = [
        UnneededFiles(folder, "of a run that was deleted in MLflow")
        for folder in sorted(root.iterdir())
        if folder.name != _MODELS and (folder / "artifacts").is_dir() and folder.name not in runs
    ]
    listed = {model.model_id: model for model in _logged_models(store)}
    versions = _models_of_versions(store)
    current = {sha256_tree(card.parent) for card in project.glob(f"models/*/*/{CARD_FILE}")}
    for folder in sorted((root / _MODELS).glob("m-*")):
        model = listed.get(folder.name)
        if folder.name not in versions and not (model and _is_current(model, current)):
            why = "of a model that no version has any more"
            found.append(UnneededFiles(folder, why, folder.name if model else None))
    return found


def forget_models(found: list[UnneededFiles], project: Path = Path()) -> None:
    """Takes the models whose files are about to go off MLflow's lists.

    Raises:
        OSError: the store cannot be reached.
        BrewlineError: the store refuses.
    """
    ids = [one.model_id for one in found if one.model_id]
    if ids:
        store = open_store(load_params(project / "params.yaml").tracking, project)
        for model_id in ids:
            store.client.delete_logged_model(model_id)


def _is_current(model: "LoggedModel", digests: set[str]) -> bool:
    # What was cut off in the middle of its upload is of no use to anybody.
    return model.tags.get(DIGEST_TAG) in digests and str(model.status) == "READY"


def _active_runs(store: Store) -> Iterator[str]:
    token = None
    while True:
        page = store.client.search_runs([store.experiment_id], page_token=token)
        yield from (run.info.run_id for run in page)
        token = page.token
        if not token:
            return


def _logged_models(store: Store) -> "Iterator[LoggedModel]":
    token = None
    while True:
        page = store.client.search_logged_models([store.experiment_id], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _models_of_versions(store: Store) -> set[str]:
    """MLflow's ids of the models that any version of a registered model was made of."""
    found, token = set(), None
    while True:
        page = store.client.search_model_versions(page_token=token)
        for version in page:
            # A version names its model; one that was made by hand may only say where it lies.
            found |= {str(version.model_id), *urlsplit(str(version.source)).path.split("/")}
        token = page.token
        if not token:
            return found
