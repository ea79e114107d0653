"""Who may import what, and whether `dvc.yaml` says what the code does."""

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

# Read by the project, but unable to change any result.
WITHOUT_RESULT = {"runtime", "tracking"}
# What drives the graph by templates: adding a corpus adds stages, and makes none stale.
LISTS = {"corpora", "models", "retrieval_corpora"}


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


def module_file(name: str) -> Path | None:
    """Our file behind a module's name, or none."""
    base = SOURCE / name.replace(".", "/")
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return path
    return None


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
            waiting += [file for name in imports(current) if (file := module_file(name))]
    return found - tracking


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_depends_on_every_module_that_it_imports(stage: str) -> None:
    declared = [PROJECT / dep for dep in body(stage)["deps"] if dep.startswith("src/")]
    assert all(path.exists() for path in declared)
    inert = {path for path in SOURCE.rglob("__init__.py") if len(path.read_text()) < 400}
    needed = reachable(program(stage)) - inert
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
    return {"validate" if name == "validation" else name for name in names}


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_declares_every_section_that_it_reads(stage: str) -> None:
    # Stages that share a program differ in what they use of it.
    same = [other for other in PIPELINE if program(other) == program(stage)]
    declared = {entry.split(".")[0] for other in same for entry in body(other).get("params", [])}
    assert sections_read(program(stage)) - declared <= WITHOUT_RESULT | LISTS


@pytest.mark.parametrize("stage", PIPELINE)
def test_every_declared_parameter_exists(stage: str) -> None:
    for entry in body(stage).get("params", []):
        value: Any = PARAMS
        for part in entry.split("."):
            if part.startswith("${"):
                break
            assert part in value, f"{stage}: {entry}"
            value = value[part]


def test_every_parameter_can_make_some_stage_stale() -> None:
    declared = {entry for stage in PIPELINE for entry in body(stage).get("params", [])}
    for section, keys in PARAMS.items():
        if section in WITHOUT_RESULT or section in declared:
            continue
        mentioned = {e.split(".")[1] for e in declared if e.startswith(f"{section}.")}
        if any(name.startswith("${") for name in mentioned):
            continue
        assert section in LISTS or mentioned == set(keys), section


def test_stage_files_are_thin() -> None:
    for path in STAGES:
        code = [line for line in path.read_text().splitlines() if line.strip()]
        assert len(code) <= 65, path.name


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        (
            "mlflow",
            {
                f"brewline/tracking/{name}.py"
                for name in ("live_run", "recording", "registry", "runs", "store")
            },
        ),
        ("prefect", set()),
        ("great_expectations", {"brewline/quality/suite.py"}),
        ("webdataset", {"brewline/samples/shards.py"}),
    ],
)
def test_one_module_talks_to_each_service(library: str, allowed: set[str]) -> None:
    users = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if any(name == library or name.startswith(f"{library}.") for name in imports(path))
    }
    assert users == allowed


def test_the_library_does_not_import_the_stages() -> None:
    for path in (SOURCE / "brewline").rglob("*.py"):
        if "stages" not in path.parts:
            assert not any(name.startswith("brewline.stages") for name in imports(path)), path


def test_retrieval_is_pure_arrays() -> None:
    ours = {name for name in imports(SOURCE / "brewline/evaluation/ranks.py") if "brewline" in name}
    assert not ours
    assert "torch" not in imports(SOURCE / "brewline/evaluation/ranks.py")


def test_mlflow_folder_never_becomes_a_package() -> None:
    assert not (PROJECT / "mlflow/__init__.py").exists()


def test_compiled_python_is_no_input_of_a_stage() -> None:
    """Folders of code are dependencies; what Python caches in them must not make them stale."""
    assert "__pycache__" in (PROJECT / ".dvcignore").read_text().splitlines()


def test_a_served_model_pins_every_package_that_it_imports() -> None:
    from brewline.tracking.registry import SERVED_PACKAGES

    ours = reachable(SOURCE / "brewline/registry/serving.py") | {
        PROJECT / "mlflow/serving_model.py"
    }
    tops = {name.split(".")[0] for path in ours for name in imports(path)}
    known = importlib.metadata.packages_distributions()
    needed = {
        top: {canonicalize_name(name) for name in known[top]}
        # CTranslate2 is an extra; what is served runs openai-whisper's modules.
        for top in tops - set(sys.stdlib_module_names) - {"brewline", "ctranslate2"}
    }
    pinned = set(SERVED_PACKAGES)
    assert not {top: names for top, names in needed.items() if not names & pinned}
    # open_clip imports torchvision, which has to be the one that belongs to torch.
    assert pinned - set().union(*needed.values()) == {"torchvision"}
