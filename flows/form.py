"""The form of a flow in the Prefect UI: what there is to choose from, and what a run is called."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from brewline.config import load_params
from brewline.core.errors import BrewlineError
from flows.graph import read_graph

# Prefect shows what fits into a line.
_LONGEST_NAME = 120


@dataclass(frozen=True)
class Choice:
    """Annotates an argument, or a list, with the names that the form offers for it.

    They are looked up where the form is made: what there is depends on the project. `others` come
    before them.
    """

    names: Callable[[], Iterable[str]]
    others: tuple[str, ...] = ()

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Is how pydantic asks an annotation for its part of a schema."""
        schema = handler(core)
        if found := _known(self.names):
            chosen = schema["items"] if schema.get("type") == "array" else schema
            chosen["enum"] = [*self.others, *found]
        return schema


def _known(names: Callable[[], Iterable[str]]) -> list[str]:
    """None where the parameters are wrong: whoever starts a run is told, not who serves it."""
    with contextlib.suppress(BrewlineError):
        return list(names())
    return []


def corpora() -> list[str]:
    """Those of params.yaml."""
    return list(load_params().corpora)


def measured_corpora() -> list[str]:
    """Those that a table measures on."""
    return list(load_params().measured_corpora)


def experiments() -> list[str]:
    """Those of params.yaml."""
    return list(load_params().experiments)


def stages() -> list[str]:
    """Kinds of stages, then the stages themselves."""
    graph = read_graph(Path.cwd())
    return list(dict.fromkeys([*(one.kind for one in graph), *(one.name for one in graph)]))


def run_name(arguments: Mapping[str, Any]) -> str:
    """What a run of the pipeline is called: what it works for, and how it differs.

    `everything`, `mini-lncoco-full: variants.full.alpha=0.2`, `mini-lncoco, again from train`.
    """
    subjects = [*(arguments.get("experiments") or []), *(arguments.get("corpora") or [])]
    name = " ".join(subjects) or "everything"
    if arguments.get("force"):
        name += ", forced"
    if arguments.get("from_stage"):
        name += f", again from {arguments['from_stage']}"
    overrides = arguments.get("overrides") or {}
    if overrides:
        name += ": " + " ".join(f"{key}={value}" for key, value in sorted(overrides.items()))
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
