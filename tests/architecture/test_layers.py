"""Who may import which library, and whether `dvc.yaml` says what the code does.

Which room may import which other one: `test_rooms.py`.
"""

import ast
import importlib.metadata
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[2]
SOURCE = PROJECT / "src"
STAGES = sorted((SOURCE / "brewline/stages").glob("*.py"))
PIPELINE: dict[str, Any] = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
PARAMS: dict[str, Any] = yaml.safe_load((PROJECT / "params.yaml").read_text())
# Of the stages that take long; they name their version instead of their code.
VERSIONS: dict[str, int] = yaml.safe_load((PROJECT / "versions.yaml").read_text())

# Read by the project, but unable to change any result.
WITHOUT_RESULT = {"runtime", "tracking"}
# A guard of `transcribe`, of which `assess` says whether it is kept.
JUDGED = {"assess": {"runtime.max_transcription_failure_rate"}}
# What drives the graph by templates: adding a corpus adds stages, and makes none stale.
LISTS = {"corpora", "probed_corpora", "augmented_corpora"}
LISTS |= {"experiments", "external", "tables", "probes", "sound_tables"}
# What the methods of the parameters read.
METHODS = {
    # Variants too, but a row that hears no more has other vectors, and is scored anew.
    "contenders": {"tables"},
    "limits_of": {"validate", "validate_of"},
    "measured_corpora": {"tables"},
    "seeds_of_recipe": {"recipes"},
    "variant_of": {"experiments", "variants"},
}


def body(stage: str) -> dict[str, Any]:
    entry: dict[str, Any] = PIPELINE[stage]
    inner: dict[str, Any] = entry.get("do", entry)
    return inner


def program(stage: str) -> Path:
    """The stage file that a DVC stage runs."""
    name = body(stage)["cmd"].split()[0].removeprefix("${stages}.")
    return SOURCE / f"brewline/stages/{name}.py"


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, at its head or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def module_files(name: str) -> set[Path]:
    """Our files that importing a module runs: its own, and those of the packages around it."""
    parts = name.split(".")
    bases = [SOURCE.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)]
    paths = {path for base in bases for path in (base.with_suffix(".py"), base / "__init__.py")}
    return {path for path in paths if path.exists()}


def is_inert(path: Path) -> bool:
    """Whether a file holds nothing but its docstring."""
    return all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


def reachable(path: Path) -> set[Path]:
    """Every file of ours that running `path` may import.

    Tracking is left out: it only watches, and changes nothing of what a stage puts out.
    """
    tracking = set((SOURCE / "brewline/tracking").glob("*.py"))
    found = set(tracking)
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += [file for name in imports(current) for file in module_files(name)]
    return found - tracking


def parameters(stage: str) -> set[str]:
    """What a stage depends on in `params.yaml`, by its dotted name."""
    return {entry for entry in body(stage).get("params", []) if isinstance(entry, str)}


def version(stage: str) -> list[str]:
    """The keys of `versions.yaml` that a stage depends on."""
    others = [entry for entry in body(stage).get("params", []) if not isinstance(entry, str)]
    assert all(list(entry) == ["versions.yaml"] for entry in others)
    return [key for entry in others for key in entry["versions.yaml"]]


EXPENSIVE = [stage for stage in PIPELINE if program(stage).stem in VERSIONS]
CHEAP = [stage for stage in PIPELINE if stage not in EXPENSIVE]


@pytest.mark.parametrize("stage", EXPENSIVE)
def test_an_expensive_stage_depends_on_its_version_and_on_no_code(stage: str) -> None:
    name = program(stage).stem
    assert version(stage) == [name]
    assert not [dep for dep in body(stage)["deps"] if dep.startswith("src/")]
    # And its partial work is named by the same number.
    calls = [n for n in ast.walk(ast.parse(program(stage).read_text())) if isinstance(n, ast.Call)]
    named = [ast.unparse(n.args[0]) for n in calls if ast.unparse(n.func) == "fingerprint"]
    assert named == [f"load_versions().{name}"]


def test_what_is_left_of_every_expensive_stage_is_looked_for() -> None:
    from brewline.leftovers import _RESUMED

    assert set(_RESUMED) == set(VERSIONS)


def test_every_version_is_used_by_a_stage() -> None:
    assert {program(stage).stem for stage in EXPENSIVE} == set(VERSIONS)


@pytest.mark.parametrize("stage", CHEAP)
def test_a_cheap_stage_depends_on_every_module_that_it_imports(stage: str) -> None:
    assert version(stage) == []
    declared = [PROJECT / dep for dep in body(stage)["deps"] if dep.startswith("src/")]
    assert all(path.exists() for path in declared)
    needed = {path for path in reachable(program(stage)) if not is_inert(path)}
    missing = {p for p in needed if not any(p.is_relative_to(d) for d in declared)}
    assert not missing, sorted(str(p.relative_to(PROJECT)) for p in missing)
    code = [path for path in declared if list(path.rglob("*.py")) or path.suffix == ".py"]
    unused = {d for d in code if not any(p.is_relative_to(d) for p in needed)}
    assert not unused, sorted(str(p.relative_to(PROJECT)) for p in unused)


def sections_read(path: Path) -> set[str]:
    """The sections of `params` that a stage file mentions."""
    names = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "params"
    }
    read = set().union(*(METHODS.get(name, {name}) for name in names))
    return {"validate" if name == "validation" else name for name in read}


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_declares_every_section_that_it_reads(stage: str) -> None:
    # Stages that share a program differ in what they use of it.
    same = [other for other in PIPELINE if program(other) == program(stage)]
    declared = {entry.split(".")[0] for other in same for entry in parameters(other)}
    assert sections_read(program(stage)) - declared <= WITHOUT_RESULT | LISTS


@pytest.mark.parametrize("stage", PIPELINE)
def test_every_declared_parameter_exists(stage: str) -> None:
    for entry in parameters(stage):
        value: Any = PARAMS
        for part in entry.split("."):
            if part.startswith("${"):
                break
            assert part in value, f"{stage}: {entry}"
            value = value[part]


def test_every_parameter_can_make_some_stage_stale() -> None:
    declared = {entry for stage in PIPELINE for entry in parameters(stage)}
    for section, keys in PARAMS.items():
        if section in WITHOUT_RESULT or section in declared:
            continue
        mentioned = {e.split(".")[1] for e in declared if e.startswith(f"{section}.")}
        if any(name.startswith("${") for name in mentioned):
            continue
        assert section in LISTS or mentioned == set(keys), section


@pytest.mark.parametrize("stage", PIPELINE)
def test_how_the_machine_is_used_is_no_parameter_of_a_stage(stage: str) -> None:
    found = {entry for entry in parameters(stage) if entry.split(".")[0] in WITHOUT_RESULT}
    assert found == JUDGED.get(stage, set())


def test_stage_files_are_thin() -> None:
    for path in STAGES:
        code = [line for line in path.read_text().splitlines() if line.strip()]
        assert len(code) <= 65, path.name


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("mlflow", {"brewline/tracking"}),
        ("prefect", set()),
        ("great_expectations", {"brewline/quality"}),
        ("webdataset", {"brewline/samples"}),
    ],
)
def test_one_room_talks_to_each_service(library: str, allowed: set[str]) -> None:
    users = {
        path.relative_to(SOURCE).parent.as_posix()
        for path in SOURCE.rglob("*.py")
        if any(name == library or name.startswith(f"{library}.") for name in imports(path))
    }
    assert users == allowed


@pytest.mark.parametrize("module", ["ranks", "bootstrap"])
def test_ranks_and_intervals_are_pure_arrays(module: str) -> None:
    names = imports(SOURCE / f"brewline/evaluation/{module}.py")
    ours = {name for name in names if name.startswith("brewline")}
    assert all(name.startswith("brewline.evaluation.ranks") for name in ours)
    assert "torch" not in names


def test_mlflow_folder_never_becomes_a_package() -> None:
    assert not (PROJECT / "mlflow/__init__.py").exists()


def test_compiled_python_is_no_input_of_a_stage() -> None:
    """Folders of code are dependencies; what Python caches in them must not make them stale."""
    assert "__pycache__" in (PROJECT / ".dvcignore").read_text().splitlines()


def test_a_served_model_pins_every_package_that_it_imports() -> None:
    from brewline.tracking.model_files import SERVED_PACKAGES

    ours = reachable(SOURCE / "brewline/registry/serving.py") | {
        PROJECT / "mlflow/serving_model.py"
    }
    tops = {name.split(".")[0] for path in ours for name in imports(path)}
    known = importlib.metadata.packages_distributions()
    # What is served does not use them, but for transformers, which models that need it get.
    extras = {"brewline", "ctranslate2", "silero_vad", "transformers"}
    needed = {
        top: {canonicalize_name(name) for name in known[top]}
        for top in tops - set(sys.stdlib_module_names) - extras
    }
    pinned = set(SERVED_PACKAGES)
    assert not {top: names for top, names in needed.items() if not names & pinned}
    assert pinned <= set().union(*needed.values())
