"""The rooms of the library: which others each one imports, and how long files and functions are."""

import ast
from functools import cache
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "src/brewline"

# In this order; a room imports from those before it only, and from these alone.
ROOMS: dict[str, set[str]] = {
    "core": set(),
    "config": {"core"},
    "tables": {"core"},
    "media": {"core", "config", "tables"},
    "pages": {"core", "media"},
    "corpora": {"core", "config", "tables", "media"},
    "download": {"core", "config", "media"},
    "quality": {"core", "config", "tables", "media", "pages"},
    "models": {"core", "config", "download"},
    "samples": {"core", "config", "tables", "media", "models"},
    "speech": {"core", "config", "tables", "media", "pages", "quality", "samples"},
    "evaluation": {"core", "config", "tables", "pages", "models", "samples", "speech"},
    "analysis": {
        "core",
        "config",
        "tables",
        "media",
        "pages",
        "models",
        "samples",
        "speech",
        "evaluation",
    },
    "probing": {"core", "config", "tables", "models", "samples", "evaluation"},
    "training": {"core", "config", "tables", "models", "samples", "evaluation", "probing"},
    "search": {
        "core",
        "config",
        "tables",
        "media",
        "pages",
        "quality",
        "models",
        "samples",
        "speech",
        "evaluation",
    },
    "registry": {
        "core",
        "config",
        "tables",
        "media",
        "pages",
        "quality",
        "models",
        "samples",
        "evaluation",
        "search",
    },
    "tracking": {"core", "config", "tables", "media", "models", "evaluation", "registry"},
    "report": {
        "core",
        "config",
        "tables",
        "media",
        "pages",
        "models",
        "evaluation",
        "analysis",
        "probing",
    },
    "export": {"core", "config", "tables", "media", "pages", "models", "evaluation"},
    "stages": {
        "core",
        "config",
        "tables",
        "media",
        "corpora",
        "download",
        "quality",
        "models",
        "samples",
        "speech",
        "evaluation",
        "analysis",
        "probing",
        "training",
        "registry",
        "tracking",
        "report",
    },
    "leftovers": {"core", "tracking"},
    "cli": {"core", "config", "search", "tracking", "report", "export", "leftovers"},
}

MAX_LINES_OF_A_FILE = 400
MAX_LINES_OF_A_FUNCTION = 60
# A longer file says at its head why it is one.
LONGER_FILES: set[str] = set()


def files() -> list[Path]:
    return sorted(LIBRARY.rglob("*.py"))


def room_of(path: Path) -> str:
    """The package that a file is in; a module beside the packages is a room of its own."""
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


@cache
def imported_rooms(path: Path) -> frozenset[str]:
    """The rooms that a file imports from, at its head or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "brewline":
            names |= {f"brewline.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add(node.module or "")
    ours = {name.split(".")[1] for name in names if name.startswith("brewline.")}
    return frozenset(ours - {room_of(path)})


def test_every_file_is_in_a_room() -> None:
    assert {room_of(path) for path in files()} == {*ROOMS, "__init__"}


def test_the_order_of_the_rooms_has_no_circle() -> None:
    order = list(ROOMS)
    for number, (room, allowed) in enumerate(ROOMS.items()):
        assert allowed <= set(order[:number]), room


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_is_listed_for_it(room: str) -> None:
    inside = [path for path in files() if room_of(path) == room]
    forbidden = {
        path.relative_to(LIBRARY).as_posix(): imported_rooms(path) - ROOMS[room]
        for path in inside
        if imported_rooms(path) - ROOMS[room]
    }
    assert not forbidden
    # Nothing is allowed that nobody needs.
    used = frozenset().union(*(imported_rooms(path) for path in inside))
    assert used == ROOMS[room]


def test_the_training_loop_knows_no_task() -> None:
    """What is special to retrieval lies behind `training/task.py`, in `training/tasks/`."""
    loop = [
        path
        for path in (LIBRARY / "training").glob("*.py")
        # It puts an experiment together, and chooses the task by its name.
        if path.name != "experiment.py"
    ]
    assert len(loop) >= 4
    for path in loop:
        assert "evaluation" not in imported_rooms(path), path.name
        text = path.read_text()
        assert not [word for word in ("recall", "retrieval", "BrewClip(") if word in text], (
            path.name
        )


def test_no_module_is_imported_in_a_circle() -> None:
    modules = {
        ".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts): path for path in files()
    }
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    needs: dict[str, set[str]] = {}
    for module, path in modules.items():
        needs[module] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                needs[module] |= {name if name in modules else node.module for name in names}
    # What needs nothing that is left is taken away, again and again; a circle stays.
    while free := {name for name, needed in needs.items() if not needed & needs.keys()}:
        needs = {name: needed for name, needed in needs.items() if name not in free}
    assert not needs


def test_no_file_is_long_without_a_reason() -> None:
    lengths = {
        path.relative_to(LIBRARY).as_posix(): len(path.read_text().splitlines()) for path in files()
    }
    long = {name for name, length in lengths.items() if length > MAX_LINES_OF_A_FILE}
    assert long == LONGER_FILES


def test_no_function_is_long() -> None:
    long = {
        f"{path.relative_to(LIBRARY).as_posix()}: {node.name}"
        for path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_LINES_OF_A_FUNCTION
    }
    assert not long


def test_a_package_is_imported_by_its_modules() -> None:
    """Facades hide where things are; that of `config` has what everybody reads.

    That of `stages` is no facade: it binds a stage to its DVC before the stage's own imports.
    """
    with_code = {
        room_of(path)
        for path in files()
        if path.name == "__init__.py"
        and not all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)
    }
    assert with_code == {"config", "stages"}
