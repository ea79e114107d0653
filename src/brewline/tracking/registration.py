"""The best model of a corpus becomes a version of its registered model, and perhaps the challenger.

The challenger is the best on dev of all versions, whichever came last. An experiment (see
`project_around`) becomes no version unless `tracking.register_experiments` asks for it.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from brewline.config import Params
from brewline.config.synthetic import synthetic_notice
from brewline.core.errors import BrewlineError
from brewline.registry.candidates import Challenger, find_challenger
from brewline.registry.policy import POLICY_FILE, Policy, load_policy
from brewline.tracking.challengers import best_version, set_challenger
from brewline.tracking.model_files import LOGGED_MODEL_TAG, MODEL_CARD, save_served_model
from brewline.tracking.recording import record_corpus
from brewline.tracking.registered_models import (
    CHALLENGER,
    aliases_of,
    moved_by_hand,
    open_registry,
    registered_name,
)
from brewline.tracking.store import Store, project_around, say_once, tracking_uri
from brewline.tracking.version_evidence import (
    DEV_DIGEST_TAG,
    call_version,
    keep_evidence,
    measured,
    write_evidence,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Registration:
    """What became of a corpus' best model.

    `version` is its version of `name`, or None where the store cannot be reached, or where it is an
    experiment that nobody asked to register; `runs` are as from `record_corpus`; `notes` are
    sentences about who the challenger is, and what people did by hand.
    """

    name: str
    model: str
    version: str | None
    runs: dict[Path, str | None]
    notes: list[str] = field(default_factory=list)
    is_experiment: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether all was done that was asked for."""
        return self.version is not None or self.is_experiment

    @property
    def lines(self) -> list[str]:
        """What to tell people."""
        became = f"version {self.version}" if self.version else "not registered"
        if self.is_experiment:
            became += ", as an experiment; tracking.register_experiments in params.yaml asks for it"
        return [f"{self.name}, {self.model}: {became}", *self.notes]


def register_corpus(params: Params, corpus: str, project: Path = Path()) -> Registration | None:
    """Records the runs of a corpus, makes its best model a version, and the best one challenger.

    A model that is a version already, by its digest, becomes no second one.

    Args:
        params: The tables, and how the corpus was prepared.
        corpus: What the tables measure on.
        project: The project's folder.

    Returns:
        The version; None where no row of its tables was trained on it and hears speech.

    Raises:
        BrewlineError: a file of the project is missing, or the store refuses something. A store
            that cannot be reached is no error: one sentence says so, and `version` is None.
    """
    runs = record_corpus(params, corpus, project)
    policy = load_policy(project / POLICY_FILE)
    challenger = find_challenger(params, corpus, policy, project)
    if challenger is None:
        return None
    unreached = Registration(registered_name(corpus), challenger.name, None, runs)
    if project_around(project) and not params.tracking.register_experiments:
        return replace(unreached, is_experiment=True)
    if runs[challenger.folder] is None:
        return unreached
    try:
        with open_registry(params) as store:
            return _register(store, params, challenger, policy, runs, project)
    except BrewlineError as error:
        if error.kind != "network":
            raise
        say_once(tracking_uri())
        return unreached


def _register(
    store: Store,
    params: Params,
    challenger: Challenger,
    policy: Policy,
    runs: dict[Path, str | None],
    project: Path,
) -> Registration:
    name = registered_name(challenger.corpus)
    is_experiment = project_around(project) is not None
    _make_registered_model(store, name, params, challenger.corpus)
    found = _find_version(store, name, challenger.digest)
    if found is None:
        run_id = runs[challenger.folder]
        assert run_id is not None
        found = _make_version(store, params, challenger, run_id, project)
    # What an experiment measured on dev data of its own is not what the project goes by.
    elif not is_experiment:
        keep_evidence(store, found, challenger.evidence)
    notes = list(_put_forward(store, found, policy.metric, is_experiment))
    return Registration(name, challenger.name, str(found.version), runs, notes)


def _put_forward(
    store: Store, registered: "ModelVersion", metric: str, is_experiment: bool
) -> Iterator[str]:
    """Makes the best version on dev the challenger; yields what there is to say about it."""
    name = registered.name
    model = store.client.get_registered_model(name)
    ours, present = model.tags.get(CHALLENGER), aliases_of(model).get(CHALLENGER)
    registered = store.client.get_model_version(name, registered.version)
    dev_digest = registered.tags[DEV_DIGEST_TAG]
    if is_experiment and present is not None:
        # On dev data of its own an experiment would be alone, and so the best.
        dev_digest = store.client.get_model_version(name, present).tags.get(DEV_DIGEST_TAG, "")
    best = best_version(store, name, dev_digest, metric)
    if best is None:
        yield "No version may be challenger: what was measured on this dev data was turned down."
        return
    chosen = str(best.version)
    if chosen != ours:
        set_challenger(store, name, chosen)
    elif present != chosen:
        yield moved_by_hand(CHALLENGER, present, chosen)
    if chosen != str(registered.version):
        values = [measured(one)["dev"].get(metric) for one in (best, registered)]
        reached = ["not measured" if value is None else f"{value:.4f}" for value in values]
        yield (
            f"{call_version(best)} is the best on dev that may be challenger: {metric} is "
            f"{reached[0]}, of version {registered.version} {reached[1]}."
        )


def _make_registered_model(store: Store, name: str, params: Params, corpus: str) -> None:
    from mlflow.exceptions import MlflowException

    notice = synthetic_notice(params, [corpus])
    try:
        store.client.create_registered_model(
            name,
            {"corpus": corpus},
            f"Matches speech with the pictures of {corpus}. {notice}".rstrip(),
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _find_version(store: Store, name: str, digest: str) -> "ModelVersion | None":
    """The oldest version that holds the model of this digest."""
    condition = f"name = '{name}' and tags.model_digest = '{digest}'"
    found = store.client.search_model_versions(condition)
    return min(found, key=lambda version: int(version.version), default=None)


def _make_version(
    store: Store, params: Params, challenger: Challenger, run_id: str, project: Path
) -> "ModelVersion":
    """Uploads the model with all that serving it takes, and makes it a version.

    The version comes last: where it is, its files are whole.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    experiment, seed = challenger.name.split("/")
    made = store.client.create_logged_model(
        store.experiment_id,
        name=challenger.corpus,
        source_run_id=run_id,
        tags={"experiment": experiment, "seed": seed, "model_digest": challenger.digest},
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        save_served_model(
            params, challenger, path, project, Model(run_id=run_id, model_id=made.model_id)
        )
        evidence_tags = write_evidence(challenger.evidence, path)
        store.client.log_model_artifacts(made.model_id, str(path))
    store.client.finalize_logged_model(made.model_id, "READY")
    store.client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    return store.client.create_model_version(
        registered_name(challenger.corpus),
        # Not `models:/<id>`, which MLflow looks up in the store of the process, not in this one.
        source=made.artifact_location,
        run_id=run_id,
        model_id=made.model_id,
        description=_describe(store, params, challenger, made.model_id),
        tags={
            "model_digest": challenger.digest,
            "experiment": experiment,
            "seed": seed,
            LOGGED_MODEL_TAG: made.model_id,
            **evidence_tags,
        },
    )


def _describe(store: Store, params: Params, challenger: Challenger, model_id: str) -> str:
    """What the version's page says: what it is, with a link to its card among its files."""
    # Without an address: it works wherever the server is.
    page = f"#/experiments/{store.experiment_id}/models/{model_id}/artifacts"
    chosen = challenger.evidence.chosen_among
    lines = [
        f"**{challenger.name}**, the best on dev of {chosen} of its pipeline run.",
        synthetic_notice(params, [challenger.corpus]),
        f"[Model card]({page}), the file `{MODEL_CARD}` there, says what it is.",
    ]
    return "\n\n".join(line for line in lines if line)
