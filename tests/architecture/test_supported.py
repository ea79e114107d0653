"""What we run on: one range of Pythons everywhere, and a lock with wheels for each platform."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
PLATFORMS = ["x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin"]
# Published as source alone; both are pure Python.
BUILT = ["antlr4-python3-runtime", "openai-whisper"]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())


def test_every_place_says_the_same_pythons() -> None:
    assert PYPROJECT["project"]["requires-python"] == ">=3.11,<3.15"
    classifiers = [c for c in PYPROJECT["project"]["classifiers"] if re.search(r"3\.\d+$", c)]
    assert [c.rpartition(" ")[2] for c in classifiers] == PYTHONS
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py311"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == "3.11"
    assert all("python_version < '3.15'" in one for one in PYPROJECT["tool"]["uv"]["environments"])
    assert "PYTHONS='cpython>=3.11,<3.15'" in (PROJECT / "install.sh").read_text()
    assert "Python 3.11 to 3.14" in (PROJECT / "README.md").read_text()


def test_no_warning_is_hidden() -> None:
    """What differs between Pythons shows as a warning first."""
    assert "filterwarnings" not in PYPROJECT["tool"]["pytest"]["ini_options"]
    assert "disable-warnings" not in PYPROJECT["tool"]["pytest"]["ini_options"]["addopts"]


def test_processes_are_started_one_way_on_all_pythons() -> None:
    """3.14 forks no more where 3.11 does: each place has to choose its way by name."""
    # Everything that starts a process by a default of its own.
    bare = re.compile(
        r"multiprocessing\.(Process|Pool|Queue|Event|Manager)\(|os\.fork\(|get_context\(\)"
        r"|get_context\(\"fork\"\)|num_workers=|set_start_method"
    )
    places = [
        p
        for name in ("src", "flows", "sample", "benchmarks", "tests", "mlflow")
        for p in (PROJECT / name).rglob("*.py")
    ]
    for path in places:
        if path == Path(__file__):
            continue
        text = path.read_text()
        assert not bare.search(text), path
        if "ProcessPoolExecutor(" in text:
            assert text.count("mp_context=") >= text.count("ProcessPoolExecutor("), path


def uv() -> str:
    program = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if program is None:
        pytest.skip("uv is neither in the environment nor on the path")
    return program


@pytest.fixture(scope="session")
def network() -> None:
    """Skips where the package registry cannot be reached."""
    probe = subprocess.run(
        [uv(), "pip", "compile", "--quiet", "--no-cache", "-"],
        input="wheel", capture_output=True, text=True, env=os.environ | {"UV_HTTP_RETRIES": "0"},
    )  # fmt: skip
    if probe.returncode:
        last = probe.stderr.strip().splitlines()[-1:] or [socket.gethostname()]
        pytest.skip(f"the package registry cannot be reached: {last[0]}")


def resolve(folder: Path, platform: str, python: str, built: list[str]) -> str:
    """Looks for wheels of the whole lock; returns uv's complaint, or nothing."""
    command = [uv(), "pip", "install", "--dry-run", "--no-deps", "--require-hashes"]
    command += ["--target", str(folder / "empty"), "--python-platform", platform]
    command += ["--python-version", python, "--only-binary", ":all:"]
    command += [word for name in built for word in ("--no-binary", name)]
    command += ["-r", str(PROJECT / "requirements.lock")]
    # Wheels for older systems than we support do not count.
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0", "UV_SYSTEM_CERTS": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode or re.search(r"Would install [23]\d\d packages", done.stderr)
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.usefixtures("network")
def test_the_lock_has_a_wheel_of_every_package(tmp_path: Path, platform: str, python: str) -> None:
    assert not resolve(tmp_path, platform, python, BUILT)


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.usefixtures("network")
def test_a_package_without_a_wheel_is_noticed(tmp_path: Path, name: str) -> None:
    others = [other for other in BUILT if other != name]
    assert f"{name}" in resolve(tmp_path, PLATFORMS[0], PYTHONS[0], others)
