"""The registry: one registered model per corpus, whose aliases say which version is for what.

`brewline-<corpus>` has a version for every model that was ever the best of its pipeline run, found
again by the digest of the model's folder. `challenger` is the newest of them; `champion` is the
one in use, and moves by `promote` and `rollback` alone, or by a person.

What a person does by hand is respected. The registered model's tags say what these functions set
last, so that a difference is somebody's decision:

- A `champion` that a person set is the one that the next promotion compares with, and says so
  once; a rollback from it goes to the champion that promotion had chosen.
- Where a person took `champion` away, there is none, and zero-shot stands in for it.
- A `challenger` that a person set or took away stays so until another model is registered.
"""

import datetime
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewline.config.params import Params
from brewline.core.errors import BrewlineError
from brewline.core.files import write_text
from brewline.registry.candidates import Challenger, dev_manifest_digest, find_challenger, zero_shot
from brewline.registry.policy import POLICY_FILE, Decision, Measured, Policy, decide, load_policy
from brewline.report.tables import MINIATURE_NOTICE, is_miniature
from brewline.tracking.recording import record_corpus
from brewline.tracking.store import (
    RefusedError,
    Store,
    interpreted,
    lock_file,
    locked,
    open_store,
    public_uri,
    say_once,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.models import Model

CHAMPION = "champion"
CHALLENGER = "challenger"
SERVING_ENTRY = Path("mlflow/serving_model.py")
REQUIREMENTS = Path("requirements.lock")
MODEL_CARD = "model_card.md"
DEFAULT_TOP_K = 5
# Where MLflow keeps the folder of `brewline.registry.serving` inside a version.
_BUNDLE = "artifacts/bundle"
# The tag of a version that names MLflow's record of its files, to which more can be added.
_LOGGED_MODEL = "logged_model_id"
# What serving needs, by the names of the distributions.
SERVED_PACKAGES = (
    "mlflow",
    "numpy",
    "open-clip-torch",
    "openai-whisper",
    "pandas",
    "pillow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "soundfile",
    "soxr",
    "torch",
    "torchvision",
    "webdataset",
)


@dataclass(frozen=True)
class Registration:
    """What became of a corpus' best model.

    `version` is its version of `name`, or None where the store cannot be reached; `runs` are as
    from `record_corpus`; `notes` are sentences about what people did by hand.
    """

    name: str
    model: str
    version: str | None
    runs: dict[Path, str | None]
    notes: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """What to tell people."""
        became = f"version {self.version}" if self.version else "not registered"
        return [f"{self.name}, {self.model}: {became}", *self.notes]


@dataclass(frozen=True)
class Promotion:
    """What a promotion or a rollback did: versions of `name`, None where there was or is none."""

    name: str
    challenger: str | None
    champion_before: str | None
    champion: str | None
    decision: Decision
    notes: list[str] = field(default_factory=list)


def registered_name(corpus: str) -> str:
    """The name of a corpus' registered model."""
    return f"brewline-{corpus}"


@contextmanager
def _open_registry(params: Params) -> Iterator[Store]:
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


def register_corpus(params: Params, corpus: str, project: Path = Path()) -> Registration | None:
    """Records the runs of a corpus, and makes its best model a version and the challenger.

    A model that is a version already, by its digest, becomes no second one.

    Args:
        params: The lists, and how the corpus was prepared.
        corpus: One of the retrieval corpora.
        project: The project's folder.

    Returns:
        The version; None where the corpus has no trained variant that hears speech.

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
    run_id = runs[challenger.folder]
    if run_id is None:
        return unreached
    try:
        with _open_registry(params) as store:
            return _register(store, params, challenger, runs, project)
    except BrewlineError as error:
        if error.kind != "network":
            raise
        say_once(tracking_uri())
        return unreached


def _register(
    store: Store,
    params: Params,
    challenger: Challenger,
    runs: dict[Path, str | None],
    project: Path,
) -> Registration:
    name = registered_name(challenger.corpus)
    _make_registered_model(store, name, challenger.corpus)
    found = _find_version(store, name, challenger.digest)
    if found is None:
        run_id = runs[challenger.folder]
        assert run_id is not None
        found = _make_version(store, params, challenger, run_id, project)
    version = str(found.version)
    model = store.client.get_registered_model(name)
    ours, present = model.tags.get(CHALLENGER), _aliases(model).get(CHALLENGER)
    notes = []
    if version != ours:
        store.client.set_registered_model_alias(name, CHALLENGER, version)
        store.client.set_registered_model_tag(name, CHALLENGER, version)
    elif present != version:
        notes = [_moved(CHALLENGER, present, version)]
    return Registration(name, challenger.name, version, runs, notes)


def _make_registered_model(store: Store, name: str, corpus: str) -> None:
    from mlflow.exceptions import MlflowException

    notice = f" {MINIATURE_NOTICE}" if is_miniature(corpus) else ""
    try:
        store.client.create_registered_model(
            name, {"corpus": corpus}, f"Matches speech with the pictures of {corpus}.{notice}"
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

    variant, seed = challenger.name.split("/")
    made = store.client.create_logged_model(
        store.experiment_id,
        name=challenger.corpus,
        source_run_id=run_id,
        tags={"variant": variant, "seed": seed, "model_digest": challenger.digest},
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        _save(params, challenger, path, project, Model(run_id=run_id, model_id=made.model_id))
        store.client.log_model_artifacts(made.model_id, str(path))
    store.client.finalize_logged_model(made.model_id, "READY")
    store.client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    best = f"{challenger.name}, the best on dev of its pipeline run."
    return store.client.create_model_version(
        registered_name(challenger.corpus),
        # Not `models:/<id>`, which MLflow looks up in the store of the process, not in this one.
        source=made.artifact_location,
        run_id=run_id,
        model_id=made.model_id,
        description=f"{best} Its artifact {MODEL_CARD} says what it is.",
        tags={
            "model_digest": challenger.digest,
            "variant": variant,
            "seed": seed,
            _LOGGED_MODEL: made.model_id,
            **_measured_tags(challenger.measured),
        },
    )


def _save(
    params: Params, challenger: Challenger, path: Path, project: Path, about: "Model"
) -> None:
    """Writes a pyfunc model into the folder `path`, ready to be uploaded."""
    import mlflow

    from brewline.registry.model_card import model_card
    from brewline.registry.serving import write_bundle

    bundle = path.with_name("bundle")
    write_bundle(params, challenger.corpus, challenger.folder, bundle, project)
    mlflow.pyfunc.save_model(
        path,
        python_model=str(project / SERVING_ENTRY),
        artifacts={"bundle": str(bundle)},
        code_paths=[str(Path(__file__).parents[1])],
        signature=_signature(),
        input_example=([_example(challenger.corpus, project)], {"top_k": DEFAULT_TOP_K}),
        pip_requirements=served_requirements(project / REQUIREMENTS),
        mlflow_model=about,
    )
    write_text(path / MODEL_CARD, model_card(params, challenger, project))


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    def optional(**columns: Any) -> Schema:
        return Schema([ColSpec(kind, name, required=False) for name, kind in columns.items()])

    return ModelSignature(
        optional(audio="string", image="string", text="string"),
        optional(
            ids=Array(DataType.string),
            scores=Array(DataType.double),
            embedding=Array(DataType.double),
            transcript="string",
        ),
        ParamSchema([ParamSpec("top_k", "long", DEFAULT_TOP_K)]),
    )


def _example(corpus: str, project: Path) -> dict[str, str]:
    """A query that works: the shortest recording of the test split."""
    import base64

    from brewline.report import page
    from brewline.tables.manifest import read_table

    inputs = page.project_inputs(project)
    manifest = inputs.manifest_dir / f"{corpus}.parquet"
    rows = [row for row in read_table(manifest) if row["split"] == "test"]
    shortest = min(rows, key=lambda row: (row["duration_s"], row["utterance_id"]))
    media = page.CorpusMedia(corpus, manifest, inputs.media)
    return {"audio": base64.b64encode(media.audio(shortest["utterance_id"])).decode()}


def served_requirements(lock: Path) -> list[str]:
    """The packages that serving needs, as `requirements.lock` pins them for this Python.

    Raises:
        BrewlineError: the file is missing, or lacks one.
    """
    from packaging.requirements import Requirement

    try:
        text = lock.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BrewlineError(f"{lock} is missing; it pins what a served model needs") from None
    pinned = {}
    for line in re.findall(r"^[A-Za-z0-9][^\s\\][^\\\n]*", text, re.MULTILINE):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            pinned[requirement.name] = f"{requirement.name}{requirement.specifier}"
    missing = [name for name in SERVED_PACKAGES if name not in pinned]
    if missing:
        raise BrewlineError(f"{lock} does not pin {', '.join(missing)}; run `make lock`")
    return [pinned[name] for name in SERVED_PACKAGES]


def propose(params: Params, corpus: str, policy: Policy, project: Path = Path()) -> Promotion:
    """Says what `promote` would decide now; moves nothing and writes no decision.

    Raises:
        BrewlineError: as `promote` does.
    """
    with _open_registry(params) as store:
        return _judge(store, params, corpus, policy, project)


def promote(
    params: Params,
    corpus: str,
    policy: Policy,
    project: Path = Path(),
    veto: str | None = None,
) -> Promotion:
    """Makes the challenger of a corpus its champion, if the policy allows it.

    Both are compared on the project's present dev split; one that was measured on another is
    measured again first. Decision and reasons are written to the challenger's version and to its
    run. With no champion, the challenger has to beat zero-shot.

    Args:
        params: The lists, and how evaluation is done.
        corpus: One of the retrieval corpora.
        policy: See `brewline.registry.policy`.
        project: The project's folder; dev is read from it.
        veto: A person's reason against it, a sentence, which outweighs the policy.

    Raises:
        BrewlineError: there is no challenger, a file is missing, or the store cannot be reached
            (kind `network`).
    """
    with _open_registry(params) as store:
        result = _judge(store, params, corpus, policy, project)
        _adopt_champion(store, _get_registered_model(store, result.name))
        if veto is not None:
            reasons = [veto, *result.decision.reasons]
            result = replace(result, decision=Decision(False, reasons))
        assert result.challenger is not None
        if result.challenger == result.champion_before:
            return result
        version = store.client.get_model_version(result.name, result.challenger)
        _write_decision(store, version, result.decision, policy)
        if not result.decision.promote:
            return result
        _ensure_backbones(store, version, corpus, project)
        _move_champion(store, result.name, result.challenger, result.champion_before)
        return replace(result, champion=result.challenger)


def _judge(store: Store, params: Params, corpus: str, policy: Policy, project: Path) -> Promotion:
    """The decision about the present challenger, before anything is written or moved."""
    name = registered_name(corpus)
    model = _get_registered_model(store, name)
    notes = _champion_by_hand(model)
    aliases = _aliases(model)
    champion, challenger = aliases.get(CHAMPION), aliases.get(CHALLENGER)
    registered = model.tags.get(CHALLENGER)
    if challenger != registered:
        notes.append(_moved(CHALLENGER, challenger, registered))
    if challenger is None:
        raise BrewlineError(f"{name} has no challenger; set the alias, or register another model")
    version = store.client.get_model_version(name, challenger)
    if challenger == champion:
        decision = Decision(False, [f"Version {champion} is the champion already."])
    elif "rolled_back_at" in version.tags:
        decision = Decision(
            False,
            [
                f"Version {challenger} was rolled back on {version.tags['rolled_back_at']}; remove "
                "its tag rolled_back_at to try it again."
            ],
        )
    else:
        measured = _measured(store, version, params, policy, project)
        rival = (
            zero_shot(corpus, project)
            if champion is None
            else _measured(
                store, store.client.get_model_version(name, champion), params, None, project
            )
        )
        decision = decide(measured, rival, policy)
    return Promotion(name, challenger, champion, champion, decision, notes)


def rollback(params: Params, corpus: str) -> Promotion:
    """Makes the champion before the present one the champion again.

    The version that goes is not promoted again, until its tag `rolled_back_at` is removed.

    Raises:
        BrewlineError: there is no champion, or none before it; or the store cannot be reached
            (kind `network`).
    """
    with _open_registry(params) as store:
        client, name = store.client, registered_name(corpus)
        model = _get_registered_model(store, name)
        notes = _champion_by_hand(model)
        _adopt_champion(store, model)
        champion = _aliases(model).get(CHAMPION)
        if champion is None:
            raise BrewlineError(f"{name} has no champion to roll back from")
        before = client.get_model_version(name, champion).tags.get("previous_champion")
        if not before:
            raise BrewlineError(f"version {champion} of {name} had no champion before it")
        if not any(str(v.version) == before for v in _versions(store, name)):
            raise BrewlineError(
                f"version {before} of {name}, the champion before version {champion}, was deleted"
            )
        reasons = [f"Version {champion} was rolled back to version {before}."]
        for key, value in (
            ("rolled_back_at", _now()),
            ("promotion", "rolled back"),
            ("promotion_reasons", "\n".join(reasons)),
        ):
            client.set_model_version_tag(name, champion, key, value)
        client.set_registered_model_alias(name, CHAMPION, before)
        client.set_registered_model_tag(name, CHAMPION, before)
        challenger = _aliases(model).get(CHALLENGER)
        return Promotion(name, challenger, champion, before, Decision(True, reasons), notes)


def _versions(store: Store, name: str) -> "Sequence[ModelVersion]":
    return list(store.client.search_model_versions(f"name = '{name}'"))


def _get_registered_model(store: Store, name: str) -> "RegisteredModel":
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise BrewlineError(
                f"MLflow has no model {name}; run `dvc repro register` or `brewline record`"
            ) from None
        raise


def _aliases(model: "RegisteredModel") -> dict[str, str]:
    return {alias: str(version) for alias, version in model.aliases.items()}


def _moved(alias: str, present: str | None, ours: str | None) -> str:
    before = f"version {ours}" if ours else "none"
    if present is None:
        return f"Somebody took the alias {alias} away from {before} by hand; that is respected."
    return (
        f"Somebody made version {present} the {alias} by hand, where Brewline had chosen {before}; "
        "that is respected."
    )


def _champion_by_hand(model: "RegisteredModel") -> list[str]:
    """Says so where the champion is not the one that was set here last."""
    present, ours = _aliases(model).get(CHAMPION), model.tags.get(CHAMPION)
    return [] if present == ours else [_moved(CHAMPION, present, ours)]


def _adopt_champion(store: Store, model: "RegisteredModel") -> None:
    """Takes over the champion that a person chose; from then on it counts as set here."""
    present, ours = _aliases(model).get(CHAMPION), model.tags.get(CHAMPION)
    if present == ours:
        return
    if present is None:
        store.client.delete_registered_model_tag(model.name, CHAMPION)
        return
    store.client.set_registered_model_tag(model.name, CHAMPION, present)
    store.client.set_model_version_tag(model.name, present, "promotion", "by hand")
    if ours:
        store.client.set_model_version_tag(model.name, present, "previous_champion", ours)


def _measured_tags(measured: Measured) -> dict[str, str]:
    values = {"quarantine_rate": measured.quarantine_rate, "dev": dict(measured.metrics)}
    return {
        "dev_manifest_digest": measured.dev_digest,
        "measured": json.dumps(values, sort_keys=True),
    }


def _measured(
    store: Store, version: "ModelVersion", params: Params, policy: Policy | None, project: Path
) -> Measured:
    """What is known of a version on the project's dev split, measured again where it has to be.

    With a policy that limits the time of an answer, that is measured too.
    """
    corpus = version.name.removeprefix(registered_name(""))
    name = _call(version)
    digest = dev_manifest_digest(project / f"data/manifest/{corpus}.parquet")
    measured = None
    if version.tags.get("dev_manifest_digest") == digest and "measured" in version.tags:
        values = json.loads(version.tags["measured"])
        measured = Measured(name, digest, values["dev"], values["quarantine_rate"])
    timed = policy is not None and policy.max_latency_ms is not None
    if measured and not timed:
        return measured
    from brewline.models.card import BACKBONES_FOLDER
    from brewline.registry import trial
    from brewline.registry.serving import load_bundle

    with _downloaded(store, version) as bundle:
        served = load_bundle(bundle, project / BACKBONES_FOLDER)
        if measured is None:
            measured = trial.measure_again(served, params, name, project)
            for key, value in _measured_tags(measured).items():
                store.client.set_model_version_tag(version.name, version.version, key, value)
        if timed:
            measured = replace(measured, latency_ms=trial.latency_ms(served, project))
    return measured


def _call(version: "ModelVersion") -> str:
    """How reasons call a version."""
    return f"version {version.version} ({version.tags.get('variant', 'made by hand')})"


@contextmanager
def _downloaded(store: Store, version: "ModelVersion") -> Iterator[Path]:
    """The folder that serving needs, copied from the store."""
    import mlflow

    uri = store.client.get_model_version_download_uri(version.name, version.version)
    with tempfile.TemporaryDirectory() as folder:
        mlflow.artifacts.download_artifacts(
            artifact_uri=f"{uri.rstrip('/')}/{_BUNDLE}", dst_path=folder, tracking_uri=store.uri
        )
        yield Path(folder) / Path(_BUNDLE).name


def _ensure_backbones(store: Store, version: "ModelVersion", corpus: str, project: Path) -> None:
    """Adds the frozen backbones to a version that was registered without them."""
    if is_miniature(corpus):
        return
    from brewline.models.card import BACKBONES_FOLDER
    from brewline.registry.serving import BACKBONES, add_backbones

    with _downloaded(store, version) as bundle:
        if (bundle / BACKBONES).is_dir():
            return
        if _LOGGED_MODEL not in version.tags:
            raise BrewlineError(f"{_call(version)} was not made by Brewline; it lacks backbones")
        add_backbones(bundle, project / BACKBONES_FOLDER)
        store.client.log_model_artifacts(
            version.tags[_LOGGED_MODEL], str(bundle / BACKBONES), f"{_BUNDLE}/{BACKBONES}"
        )


def _write_decision(
    store: Store, version: "ModelVersion", decision: Decision, policy: Policy
) -> None:
    values = {
        "promotion": "promoted" if decision.promote else "rejected",
        "promotion_reasons": "\n".join(decision.reasons),
        "promotion_policy": policy.model_dump_json(),
        "promotion_decided_at": _now(),
    }
    for key, value in values.items():
        store.client.set_model_version_tag(version.name, version.version, key, value)
        if version.run_id:
            store.client.set_tag(version.run_id, key, value)


def _move_champion(store: Store, name: str, version: str, before: str | None) -> None:
    client = store.client
    client.set_model_version_tag(name, version, "promoted_at", _now())
    client.set_model_version_tag(name, version, "previous_champion", before or "")
    client.set_registered_model_alias(name, CHAMPION, version)
    client.set_registered_model_tag(name, CHAMPION, version)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
