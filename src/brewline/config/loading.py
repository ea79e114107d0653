"""`params.yaml` read and checked."""

from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import ValidationError

from brewline.config.choices import suggest
from brewline.config.contradictions import contradictions
from brewline.config.schema import Params
from brewline.core.errors import BrewlineError

PARAMS_FILE = Path("params.yaml")


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Reads and checks `params.yaml`.

    Raises:
        BrewlineError: naming every bad key with its value and the choices.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BrewlineError(
            f"{path} is not here; run this from the project's folder", "settings"
        ) from None
    except UnicodeDecodeError as error:
        raise BrewlineError(f"{path} is no text in UTF-8: {error}", "settings") from None
    except yaml.YAMLError as error:
        raise BrewlineError(f"{path} is not valid YAML: {error}", "settings") from None
    return parse_params(values, str(path))


def parse_params(values: Any, where: str = "params.yaml") -> Params:
    """Checks values as read from YAML; see `load_params`."""
    if not isinstance(values, dict):
        what = "is empty" if values is None else f"is a {type(values).__name__}"
        raise BrewlineError(f"{where} {what}, not sections with their keys", "settings")
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise BrewlineError(
            "\n  ".join([f"{where} is not valid:", *_explain(error)]), "settings"
        ) from None
    problems = list(contradictions(params))
    if problems:
        raise BrewlineError("\n  ".join([f"{where} is not valid:", *problems]), "settings")
    return params


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """The keys that the section at `location` may have; follows the classes' annotations."""
    section: Any = Params
    for part in location:
        if get_origin(section) is dict:
            section = get_args(section)[1]
        else:
            section = _keys_of(section).get(part)
    return list(_keys_of(section))


def _keys_of(section: Any) -> dict[str, Any]:
    known = getattr(section, "model_fields", {})
    return {field.alias or name: field.annotation for name, field in known.items()}


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        location = problem["loc"]
        key = ".".join(str(part) for part in location)
        if problem["type"] == "extra_forbidden":
            hint = suggest(str(location[-1]), _known_keys(location[:-1]))
            lines.append(f"{key}: unknown key{hint}")
        elif problem["type"] == "missing":
            lines.append(f"{key}: is missing")
        else:
            message = problem["msg"]
            lines.append(f"{key}: {problem['input']!r}: {message[0].lower()}{message[1:]}")
    return lines
