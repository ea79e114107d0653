"""The project as a git repository, which it need not be: a ZIP of it runs too."""

import os
import subprocess
import sys
from pathlib import Path

from brewline.core.errors import BrewlineError
from brewline.core.files import write_text

# Beside what a run leaves behind; never in `.dvc/`, where it would outlive the lack of git.
_DVC_SETTINGS = Path("work/without-git")


def git_trouble(project: Path) -> str | None:
    """Why git cannot name a commit of the project, as half a sentence; None where it can."""
    command = ["git", "rev-parse", "--quiet", "--verify", "HEAD"]
    # In English, whatever the user's language is.
    english = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=english)
    except FileNotFoundError:
        return "git is not installed"
    if done.returncode == 0:
        return None
    if "not a git repository" in done.stderr:
        return "this folder is no git repository"
    words = done.stderr.strip().splitlines()
    return f"git says {words[0]!r}" if words else "this git repository has no commit yet"


def need_git(project: Path, what: str) -> None:
    """Raises a sentence where there is no commit.

    Args:
        project: The project's folder.
        what: What needs one: "a run with overrides works in a clone of the last commit".

    Raises:
        BrewlineError: git cannot name a commit.
    """
    trouble = git_trouble(project)
    if trouble:
        raise BrewlineError(
            f"{what}, and {trouble}: install git, then `git init`, `git add .` and `git commit`",
            "settings",
        )


def let_dvc_run_without_git(project: Path) -> None:
    """Tells DVC, for this process and its children, to do without git where there is none.

    DVC has no switch for it on its command line. Its system-wide settings are read from another
    folder instead, so that the project's and the user's own hold as they are.
    """
    trouble = git_trouble(project)
    if trouble is None or "DVC_SYSTEM_CONFIG_DIR" in os.environ:
        return
    print(f"{trouble}: runs will say `no commit`; overrides and sweeps need git", file=sys.stderr)
    folder = (project / _DVC_SETTINGS).absolute()
    write_text(folder / "config", "[core]\n    no_scm = true\n")
    os.environ["DVC_SYSTEM_CONFIG_DIR"] = str(folder)
