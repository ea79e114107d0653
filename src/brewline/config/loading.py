"""`params.yaml` read and checked; what reads any of the project's YAML files strictly."""

from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import ValidationError

from brewline.config.choices import suggest
from brewline.config.contradictions import contradictions
from brewline.config.schema import Params
from brewline.config.types import Section
from brewline.core.errors import BrewlineError

PARAMS_FILE = Path("params.yaml")

S = TypeVar("S", bound=Section)


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Reads and checks `params.yaml`.

    Raises:
        BrewlineError: naming every bad key with its value and the choices.
    """
    return parse_params(read_yaml(path), str(path))


def parse_params(values: Any, where: str = "params.yaml") -> Params:
    """Checks values as read from YAML; see `load_params`."""
    params = parse(Params, values, where)
    problems = list(contradictions(params))
    if problems:
        raise BrewlineError("\n  ".join([f"{where} is not valid:", *problems]), "settings")
    return params


def read_yaml(path: Path) -> Any:
    """Reads a YAML file of the project.

    Raises:
        BrewlineError: it is missing, or no YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BrewlineError(
            f"{path} is not here; run this from the project's folder", "settings"
        ) from None
    except UnicodeDecodeError as error:
        raise BrewlineError(f"{path} is no text in UTF-8: {error}", "settings") from None
    except yaml.YAMLError as error:
        raise BrewlineError(f"{path} is not valid YAML: {error}", "settings") from None


def parse(section: type[S], values: Any, where: str) -> S:
    """Checks values as read from YAML.

    Args:
        section: What they have to be.
        values: As read.
        where: What an error calls them.

    Raises:
        BrewlineError: naming every bad key with its value and the choices.
    """
    if not isinstance(values, dict):
        what = "is empty" if values is None else f"is a {type(values).__name__}"
        raise BrewlineError(f"{where} {what}, not keys with their values", "settings")
    try:
        return section.model_validate(values)
    except ValidationError as error:
        lines = [f"{where} is not valid:", *_explain(section, error)]
        raise BrewlineError("\n  ".join(lines), "settings") from None


def _known_keys(whole: type[Section], location: tuple[Any, ...]) -> list[str]:
    """The keys that the section at `location` may have; follows the classes' annotations."""
    section: Any = whole
    for part in location:
        if get_origin(section) in (dict, list):
            section = get_args(section)[-1]
        else:
            section = _keys_of(section).get(part)
        # Of what may be null, the part that is not.
        if isinstance(section, UnionType):
            section = next(one for one in get_args(section) if one is not type(None))
    return list(_keys_of(section))


def _keys_of(section: Any) -> dict[str, Any]:
    known = getattr(section, "model_fields", {})
    return {field.alias or name: field.annotation for name, field in known.items()}


def _explain(section: type[Section], error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        location = problem["loc"]
        key = ".".join(str(part) for part in location)
        if problem["type"] == "extra_forbidden":
            hint = suggest(str(location[-1]), _known_keys(section, location[:-1]))
            lines.append(f"{key}: unknown key{hint}")
        elif problem["type"] == "missing":
            lines.append(f"{key}: is missing")
        else:
            message = problem["msg"]
            lines.append(f"{key}: {problem['input']!r}: {message[0].lower()}{message[1:]}")
    return lines
