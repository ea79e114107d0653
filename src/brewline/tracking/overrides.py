"""What a run changes of the committed parameters, and how that is written down."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from brewline.config.loading import PARAMS_FILE

REMOVED = "removed"


def git(*arguments: str) -> str | None:
    """What git says in this folder, or None where it cannot."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


# Whose members a run may leave out.
_LISTS = ("experiments", "tables", "sound_tables", "probes")


def overrides() -> dict[str, str]:
    """The values of `params.yaml` here that the last commit has otherwise, by their dotted names.

    This is what a run with overrides, an experiment of DVC's and somebody who edits the file have
    in common. Experiments, tables, probes and rows that are left out are none: a run of some
    experiments leaves out the others. Without git there are none.
    """
    committed = git("show", f"HEAD:./{PARAMS_FILE}")
    if committed is None:
        return {}
    try:
        before, now = yaml.safe_load(committed), present_params()
    except (OSError, yaml.YAMLError):
        return {}
    if not isinstance(before, Mapping):
        return {}
    changed = dict(_changes(before, now, ""))
    left_out = {name for name, value in changed.items() if value == REMOVED and _is_list(name)}
    # What remains to be compared follows from the rows.
    tables = {name.split(".rows.")[0] for name in left_out}
    follows = {f"{table}.{key}" for table in tables for key in ("baseline", "compare")}
    return {
        name: _written(value) for name, value in changed.items() if name not in left_out | follows
    }


def _is_list(name: str) -> bool:
    """Whether it names an experiment, a table, a probe or a row of one."""
    parts = name.split(".")
    is_row = len(parts) == 4 and parts[2] == "rows"
    return (parts[0] in _LISTS and len(parts) == 2) or is_row


def present_params() -> dict[str, Any]:
    """The parameters here as they are written, unchecked."""
    values = yaml.safe_load(Path(PARAMS_FILE).read_text(encoding="utf-8"))
    return values if isinstance(values, dict) else {}


def _changes(
    before: Mapping[str, Any], now: Mapping[str, Any], start: str
) -> Iterator[tuple[str, Any]]:
    for name, value in now.items():
        old = before.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            yield from _changes(old, value, f"{start}{name}.")
        elif name not in before or value != old:
            yield f"{start}{name}", value
    for name in before:
        if name not in now:
            yield f"{start}{name}", REMOVED


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def overrides_text(changed: Mapping[str, str]) -> str:
    """All of them in a line: `recipes.mini.steps=80, variants.full.alpha=0.2`."""
    return ", ".join(f"{name}={value}" for name, value in changed.items())
