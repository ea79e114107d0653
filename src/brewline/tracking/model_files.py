"""What a version holds: a model that MLflow serves, with all it needs and its card."""

import base64
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewline.config import Params
from brewline.core.errors import BrewlineError
from brewline.core.files import write_text
from brewline.media.corpus_media import project_media
from brewline.models.card import load_card
from brewline.registry.candidates import Challenger
from brewline.tables.parquet import read_table
from brewline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import Model

SERVING_ENTRY = Path("mlflow/serving_model.py")
REQUIREMENTS = Path("requirements.lock")
MODEL_CARD = "model_card.md"
DEFAULT_TOP_K = 5
# Where MLflow keeps the folder of `brewline.registry.serving` inside a version.
BUNDLE = "artifacts/bundle"
# The tag of a version that names MLflow's record of its files, to which more can be added.
LOGGED_MODEL_TAG = "logged_model_id"
# What serving needs, by the names of the distributions; transformers where HuBERT hears.
SERVED_PACKAGES = (
    "av",
    "mlflow",
    "numpy",
    "open-clip-torch",
    "openai-whisper",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "scipy",
    "soundfile",
    "soxr",
    "timm",
    "torch",
    "torchvision",
    "webdataset",
)


def save_served_model(
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
        pip_requirements=served_requirements(project / REQUIREMENTS, challenger.folder),
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
    manifest = read_table(project / f"data/manifest/{corpus}.parquet")
    rows = [row for row in manifest if row["split"] == "test"]
    shortest = min(rows, key=lambda row: (row["duration_s"], row["utterance_id"]))
    content = project_media(corpus, project).audio(shortest["utterance_id"])
    return {"audio": base64.b64encode(content).decode()}


def served_requirements(lock: Path, model: Path) -> list[str]:
    """The packages that serving a model needs, as `requirements.lock` pins them for this Python.

    Args:
        lock: The file.
        model: The folder of the model.

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
    by_hubert = load_card(model).backbones.get("hubert") is not None
    needed = [*SERVED_PACKAGES, *(["transformers"] if by_hubert else [])]
    missing = [name for name in needed if name not in pinned]
    if missing:
        raise BrewlineError(f"{lock} does not pin {', '.join(missing)}; run `make lock`")
    return [pinned[name] for name in needed]


@contextmanager
def downloaded_bundle(store: Store, version: "ModelVersion") -> Iterator[Path]:
    """The folder that serving needs, copied from the store."""
    with downloaded(store, version, BUNDLE) as folder:
        yield folder


@contextmanager
def downloaded(store: Store, version: "ModelVersion", name: str) -> Iterator[Path]:
    """A file or folder of a version, copied from the store."""
    import mlflow

    uri = store.client.get_model_version_download_uri(version.name, version.version)
    with tempfile.TemporaryDirectory() as folder:
        mlflow.artifacts.download_artifacts(
            artifact_uri=f"{uri.rstrip('/')}/{name}", dst_path=folder, tracking_uri=store.uri
        )
        yield Path(folder) / Path(name).name
