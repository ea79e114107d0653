"""What nothing needs any more: outputs of stages that are gone, old work, files of MLflow's.

DVC never looks at an output again once its stage has left `dvc.yaml`, partial work is named by
what would resume it, and MLflow keeps the files of what was deleted in it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewline.core.errors import BrewlineError
from brewline.core.files import FRAMES_FOLDER, PICTURES_FOLDER, WORK_DIR, remove, total_size
from brewline.core.locks import PIPELINE_LOCK, locked
from brewline.core.programs import LOCKS
from brewline.tracking.unneeded_files import UnneededFiles, find_unneeded_files, forget_models

if TYPE_CHECKING:
    from dvc.repo import Repo

# The stages that keep partial work under `work/<stage>/`.
_RESUMED = ("inspect", "transcribe", "shard", "layers", "augment", "encode", "train", "embed")


@dataclass(frozen=True)
class Leftover:
    """A path that nothing needs any more, and why; `size` in bytes."""

    path: Path
    why: str
    size: int


@dataclass(frozen=True)
class Leftovers:
    """What is left over in a project.

    `stages` are entries of `dvc.lock` without a stage; `of_mlflow` are those of the paths that
    MLflow has.
    """

    paths: list[Leftover] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    of_mlflow: list[UnneededFiles] = field(default_factory=list)


def find_leftovers(project: Path = Path()) -> Leftovers:
    """Looks for what nothing needs any more; changes nothing.

    Outputs of a stage that `dvc.lock` knows and `dvc.yaml` does not; partial work of stages that
    are up to date, or of experiments that are gone. Finished seeds of an experiment that is there
    are kept: one more seed takes them over. Of MLflow see `find_unneeded_files`.

    Raises:
        BrewlineError: DVC finds `dvc.yaml` invalid, or is busy; or MLflow cannot be asked.
    """
    with _repository(project) as repo:
        current = {stage.addressing: stage for stage in repo.index.stages}
        needed = {Path(out.fs_path) for stage in current.values() for out in stage.outs}
        gone = {name: entry for name, entry in _locked_stages(project) if name not in current}
        stale = {name.rpartition(":")[2] for name in repo.status()}
    found = [
        Leftover(path.relative_to(project.absolute()), f"an output of {name}", total_size(path))
        for name, entry in gone.items()
        for path in (project.absolute() / out["path"] for out in entry.get("outs", []))
        if path.exists() and not any(_touch(path, other) for other in needed)
    ]
    found += _partial_files(project)
    found += _partial_work(project, {name for name in current if name not in stale}, {*current})
    with _mlflow_explained():
        of_mlflow = find_unneeded_files(project)
    found += [
        Leftover(_below(one.path, project), one.why, total_size(one.path)) for one in of_mlflow
    ]
    return Leftovers(sorted(found, key=lambda one: one.path), sorted(gone), of_mlflow)


def _below(path: Path, project: Path) -> Path:
    root = project.absolute()
    return path.relative_to(root) if path.is_relative_to(root) else path


@contextmanager
def _mlflow_explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise BrewlineError(
            "MLflow cannot be reached, and knows what of its files is needed; start it, then clean",
            "network",
        ) from None


def remove_leftovers(found: Leftovers, project: Path = Path()) -> None:
    """Removes what `find_leftovers` found, and the entries of `dvc.lock`.

    Raises:
        BrewlineError: a run or a stage is at work in this project.
    """
    from dvc.utils.serialize import modify_yaml

    with ExitStack() as held, _repository(project) as repo:
        for lock in [project / PIPELINE_LOCK, *sorted((project / LOCKS).glob("*.lock"))]:
            held.enter_context(locked(lock, _refuse))
        held.enter_context(repo.lock)
        # First: what is listed has its files.
        with _mlflow_explained():
            forget_models(found.of_mlflow, project)
        for one in found.paths:
            remove(project / one.path)
        if found.stages:
            with modify_yaml(str(project / "dvc.lock")) as content:
                for name in found.stages:
                    del content["stages"][name]


def _refuse(holder: str) -> None:
    raise BrewlineError(
        f"process {holder} is at work in this project; wait until it ends, then clean", "busy"
    )


@contextmanager
def _repository(project: Path) -> "Iterator[Repo]":
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    try:
        with Repo(str(project)) as repo:
            yield repo
    except LockError:
        raise BrewlineError("another DVC process works in this folder; wait", "busy") from None
    except DvcException as error:
        raise BrewlineError(f"dvc.yaml: {error}", "settings") from None


def _locked_stages(project: Path) -> list[tuple[str, dict[str, Any]]]:
    import yaml

    path = project / "dvc.lock"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    return list((content or {}).get("stages", {}).items())


def _touch(path: Path, other: Path) -> bool:
    return path == other or path.is_relative_to(other) or other.is_relative_to(path)


def _partial_files(project: Path) -> Iterator[Leftover]:
    """Half-made outputs of stages that were killed, and whose outputs DVC's cache then had."""
    why = "half of an output, of a stage that was killed"
    for name in ("data", "models", "reports", "metrics"):
        for path in sorted((project / name).rglob(".*.partial")):
            yield Leftover(path.relative_to(project), why, total_size(path))


def _partial_work(project: Path, up_to_date: set[str], stages: set[str]) -> Iterator[Leftover]:
    for kind in _RESUMED:
        here = {name for name in stages if name.split("@")[0] == kind}
        for folder in sorted((project / WORK_DIR / kind).glob("*")):
            why = f"partial work of {kind}, which is up to date"
            if kind == "train":
                name = f"train@{folder.name}"
                yield from _seeds(project, folder, name in stages, name in up_to_date)
            elif here <= up_to_date:
                yield Leftover(folder.relative_to(project), why, total_size(folder))
    if {name for name in stages if name.split("@")[0] == "train"} <= up_to_date:
        shared = {FRAMES_FOLDER: "vectors of frames", PICTURES_FOLDER: "decoded pictures"}
        for place, what in shared.items():
            for path in sorted((project / place).glob("*")):
                why = f"{what}, of experiments that are up to date"
                yield Leftover(path.relative_to(project), why, total_size(path))


def _seeds(project: Path, folder: Path, exists: bool, is_up_to_date: bool) -> Iterator[Leftover]:
    """What is left over of the work on an experiment: a folder for each seed and fingerprint."""
    if not exists:
        why = "work of an experiment that is gone"
        yield Leftover(folder.relative_to(project), why, total_size(folder))
        return
    for seed in sorted(folder.iterdir()):
        if is_up_to_date and not (seed / "finished.json").exists():
            why = "partial work of an experiment that is up to date"
            yield Leftover(seed.relative_to(project), why, total_size(seed))
