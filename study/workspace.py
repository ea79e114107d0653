"""The folder in which the ordinary pipeline runs over the corpora of the study.

It has the project's code, graph and versions, parameters of its own, and a DVC of its own, so that
nothing of the project's own results is touched.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml

from brewline.core.errors import BrewlineError
from brewline.core.files import remove, write_text
from study.definition import PROJECT, Study

_COPIED = ("dvc.yaml", "versions.yaml", "published.yaml", ".dvcignore")
# Folders that stand for nothing, or that have to be there before anything is in them.
_EMPTY = ("data/states/none", "models/none", "metrics", "reports/analysis", "reports/emotion")


def repro(study: Study, targets: Iterable[str]) -> None:
    """Brings stages of the workspace up to date, and all that they need.

    Raises:
        BrewlineError: one failed; what it said stands above.
    """
    _prepare(study)
    if _dvc(study.workspace, "repro", *targets):
        raise BrewlineError(
            f"`dvc repro` failed in {study.workspace} (above is why); mend it, and run this again: "
            "it goes on where it was"
        )


def _prepare(study: Study) -> None:
    folder = study.workspace
    folder.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        shutil.copy(PROJECT / name, folder)
    remove(folder / "src")
    shutil.copytree(PROJECT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    # The weights, which `backbones` names. Made anew each time: a project may have been moved.
    remove(folder / "sample")
    (folder / "sample").symlink_to(PROJECT / "sample", target_is_directory=True)
    for name in _EMPTY:
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_text(folder / "params.yaml", yaml.safe_dump(dict(study.values), sort_keys=False))
    if not (folder / ".dvc").is_dir():
        _dvc(folder, "init", "--quiet", "--no-scm")
    shutil.copy(PROJECT / ".dvc/config", folder / ".dvc/config")
    _dvc(folder, "config", "core.no_scm", "true")


def _dvc(folder: Path, *arguments: str) -> int:
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "true",
    }
    return subprocess.run([programs / "dvc", *arguments], cwd=folder, env=environment).returncode
