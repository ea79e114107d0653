"""Where a run works: in the project's tree, one at a time, or in a workspace of its own.

A workspace is a clone at the current commit that borrows git's objects and DVC's cache, so it costs
little. (A git worktree would do too, but one that is left behind by a killed run needs a person.)
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from brewline.config import parse_params
from brewline.core.errors import BrewlineError
from brewline.core.files import write_text
from brewline.core.locks import PIPELINE_LOCK, is_held, locked
from flows.repository import need_git

WORKSPACES = Path("work/workspaces")
# Of the folder above: held while a workspace is looked for, made or thrown away.
_WORKSPACES_LOCK = Path("work/workspaces.lock")
KEEP_DAYS = 7
# What a run itself writes in the tree; every other change would be missing in a workspace.
_RESULTS = ("dvc.lock", "metrics/")


@contextmanager
def held(folder: Path, on_wait: Callable[[str], None]) -> Iterator[Path]:
    """Holds a tree or workspace; waits while another run works in it.

    The lock is the kernel's: whoever is killed has freed it.

    Args:
        folder: The tree or workspace.
        on_wait: Is told, once, who is waited for.
    """

    def wait(holder: str) -> None:
        on_wait(f"another run works in {folder} (process {holder}): waiting")

    with locked(folder / PIPELINE_LOCK, wait):
        yield folder


def workspace_of(project: Path, overrides: Mapping[str, Any]) -> Path:
    """The workspace of the current commit with these overrides, there or not."""
    facts = [_git(project, "rev-parse", "HEAD"), sorted(overrides.items())]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return (project / WORKSPACES / name).absolute()


def make_workspace(project: Path, overrides: Mapping[str, Any]) -> Path:
    """Makes a workspace of the current commit with other parameters, or finds the one there is.

    The project's `params.yaml` and tree stay as they are. The workspace holds the outputs that
    the tree's `dvc.lock` names, as far as the cache has them, and is kept for `KEEP_DAYS` days.

    Args:
        project: The project's folder, a git repository.
        overrides: Values by their dotted names (`variants.full.alpha`).

    Raises:
        BrewlineError: uncommitted changes, which the workspace would lack, bad overrides, or
            vectors of others that it cannot reach.
    """
    need_git(project, "a run with overrides works in a clone of the last commit")
    _refuse_uncommitted(project)
    values = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    for key, value in overrides.items():
        override(values, key, value)
    parse_params(values, "params.yaml with the overrides")
    folder = workspace_of(project, overrides)
    with locked(project / _WORKSPACES_LOCK):
        _remove_old(project / WORKSPACES)
        if not folder.exists():
            _make(project, folder)
        link_external(project, folder, values)
        text = yaml.safe_dump(values, sort_keys=False)
        if (folder / "params.yaml").read_text(encoding="utf-8") != text:
            write_text(folder / "params.yaml", text)
        os.utime(folder)
    return folder


def link_external(project: Path, folder: Path, values: Mapping[str, Any]) -> None:
    """Brings vectors of others that neither git nor DVC has into a workspace, by links.

    Their paths stay as they are: another one would make their stage stale, and stand among what a
    run was started with.

    Args:
        project: The project's folder, where relative paths begin.
        folder: The workspace.
        values: As in `params.yaml`.

    Raises:
        BrewlineError: a relative path leaves the project.
    """
    for name, one in values["external"].items():
        for key in ("utterances", "images"):
            given = Path(one[key])
            if not given.is_absolute() and ".." in given.parts:
                raise BrewlineError(
                    f"external.{name}.{key}: a run with overrides works in a folder of its own, "
                    f"where {given} leads elsewhere; give the absolute path, or one without `..`",
                    "settings",
                )
            here, there = folder / given, project / given
            if not here.exists() and there.exists():
                here.parent.mkdir(parents=True, exist_ok=True)
                here.unlink(missing_ok=True)
                here.symlink_to(there.absolute())


def narrow_to(folder: Path, experiments: Collection[str]) -> None:
    """Takes other experiments out of a workspace, and their rows out of its tables and probes.

    A table is measured only if all of its rows are up to date, and an override makes rows stale
    that nobody chose. Vectors of others stay beside the experiments that do.

    Args:
        folder: The workspace.
        experiments: Those that stay.
    """
    path = folder / "params.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    gone = {name for name in values["experiments"] if name not in experiments}
    for name in gone:
        del values["experiments"][name]
    tables = [(values[key], name) for key in ("tables", "sound_tables") for name in values[key]]
    for section, name in tables:
        table = section[name]
        rows = {row: one for row, one in table["rows"].items() if one not in gone}
        if not {*rows.values()} & {*experiments}:
            del section[name]
            continue
        table["rows"] = rows
        if table.get("baseline") not in rows:
            table["baseline"] = None
        table["compare"] = [pair for pair in table.get("compare") or [] if {*pair} <= {*rows}]
    for name, probe in [*values["probes"].items()]:
        probe["rows"] = {row: one for row, one in probe["rows"].items() if one in experiments}
        if not probe["rows"]:
            del values["probes"][name]
    write_text(path, yaml.safe_dump(values, sort_keys=False))


def override(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets one value by its dotted name; the sections above it must exist.

    Raises:
        BrewlineError: a section is not there.
    """
    *sections, last = key.split(".")
    here: Any = values
    for section in sections:
        if not isinstance(here, dict) or section not in here:
            known = ", ".join(map(str, here)) if isinstance(here, dict) else "none"
            raise BrewlineError(
                f"override {key!r}: no section {section!r}; known: {known}", "settings"
            )
        here = here[section]
    if not isinstance(here, dict):
        raise BrewlineError(f"override {key!r}: {'.'.join(sections)} holds no keys", "settings")
    here[last] = value


def _refuse_uncommitted(project: Path) -> None:
    changed = [
        line[3:]
        for line in _git(project, "status", "--porcelain", "--untracked-files=no").splitlines()
        if not line[3:].startswith(_RESULTS)
    ]
    if changed:
        raise BrewlineError(
            f"overrides run at the last commit, which lacks your changes of {', '.join(changed)}; "
            "commit them first",
            "settings",
        )


def _make(project: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _git(project, "clone", "--quiet", "--shared", str(project), str(partial))
    # The tree's last results, not those of the commit, say what the cache has.
    shutil.copy(project / "dvc.lock", partial)
    shutil.copytree(project / "metrics", partial / "metrics", dirs_exist_ok=True)
    # Seeds that are trained already are not trained again.
    for finished in (project / "work/train").glob("*/*/finished.json"):
        seed = finished.parent
        shutil.copytree(seed, partial / seed.relative_to(project))
    local = project / ".dvc/config.local"
    if local.exists():
        shutil.copy(local, partial / ".dvc")
    # Relative: DVC cannot write a path with letters beyond ASCII into its settings.
    cache = os.path.relpath(cache_dir(project), partial.resolve())
    _dvc(partial, "cache", "dir", "--local", cache)
    _dvc(partial, "checkout", "--quiet", "--allow-missing")
    partial.replace(folder)


def cache_dir(project: Path) -> Path:
    """The folder of DVC's cache, absolute."""
    return (project / _dvc(project, "cache", "dir").strip()).resolve()


def _remove_old(folder: Path) -> None:
    for one in folder.glob("*"):
        is_old = time.time() - one.stat().st_mtime > KEEP_DAYS * 86400
        if is_old and not is_held(one / PIPELINE_LOCK):
            shutil.rmtree(one, ignore_errors=True)


def _git(project: Path, *arguments: str) -> str:
    return _output(["git", *arguments], project)


def _dvc(project: Path, *arguments: str) -> str:
    return _output([sys.executable, "-m", "dvc", *arguments], project)


def _output(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        message = (done.stderr or done.stdout).strip().splitlines()
        raise BrewlineError(f"`{' '.join(command[-3:])}` failed: {message[-1] if message else ''}")
    return done.stdout
