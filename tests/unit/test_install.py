"""`install.sh` on machines that lack something; `uv`, `uname` and `df` are stand-ins."""

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
FILES = ["install.sh", "requirements.lock", "requirements-uv.lock", "pyproject.toml"]

# Makes an environment as uv does, and says what else it was asked for.
UV = """
echo "uv $*" >> "{log}"
case "$1 $2" in
  --version*) echo "uv {version} (stand-in)" ;;
  "cache dir") echo "{folder}/cache" ;;
  "venv "*) {venv} ;;
  "pip install"*)
    case "$*" in
      *"-e ."*) mkdir -p .venv/lib && echo > "$(.venv/bin/python -c '{purelib}')/brewline.py" ;;
    esac ;;
esac
"""
PURELIB = 'import sysconfig; print(sysconfig.get_path("purelib"))'
MAKES_VENV = f'"{sys.executable}" -m venv --without-pip .venv'


class Machine:
    """A copy of what `install.sh` reads, and a path of stand-ins before the system's programs."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "my project"
        self.project.mkdir()
        for name in FILES:
            shutil.copy(PROJECT / name, self.project)
        self.bin, self._log = folder / "bin", folder / "log"
        self.bin.mkdir()
        self.give("uname", 'case "$1" in -s) echo Linux ;; -m) echo x86_64 ;; esac')
        self.give("getconf", "echo glibc 2.36")
        self.give_uv()

    def give(self, name: str, script: str) -> None:
        """Puts a program onto the path, before any other of its name."""
        path = self.bin / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def give_uv(self, version: str = "0.13.9", venv: str = MAKES_VENV) -> None:
        facts = {"log": self._log, "folder": self.bin.parent, "version": version, "venv": venv}
        self.give("uv", UV.format(**facts, purelib=PURELIB))

    def install(self, **environment: str) -> subprocess.CompletedProcess[str]:
        self._log.write_text("")
        path = f"{self.bin}:/usr/local/sbin:/usr/sbin:/usr/bin:/bin"
        return subprocess.run(
            ["bash", self.project / "install.sh"],
            env={"PATH": path, "HOME": str(self.bin), **environment},
            capture_output=True,
            text=True,
        )

    def refusal(self) -> str:
        """The sentence of an installation that must not go through."""
        done = self.install()
        assert done.returncode == 1
        assert not [call for call in self.calls if call.startswith(("venv", "pip"))]
        error, _, sentence = done.stderr.partition("error: ")
        assert not error
        return sentence

    @property
    def calls(self) -> list[str]:
        """What uv was asked for, without questions."""
        lines = [line.removeprefix("uv ") for line in self._log.read_text().splitlines()]
        return [line for line in lines if not line.startswith(("--version", "cache"))]

    @property
    def venv(self) -> Path:
        return self.project / ".venv"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_installs_once(machine: Machine) -> None:
    done = machine.install()
    assert done.returncode == 0, done.stderr
    assert [call.split()[0] for call in machine.calls] == ["venv", "pip", "pip"]
    assert "--require-hashes -r requirements.lock" in machine.calls[1]
    done = machine.install()
    assert (done.returncode, done.stderr, machine.calls) == (0, "", [])


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_goes_on_where_something_changed(machine: Machine, name: str) -> None:
    machine.install()
    with (machine.project / name).open("a") as file:
        file.write("# changed\n")
    assert machine.install().returncode == 0
    assert [call.split()[0] for call in machine.calls] == ["pip", "pip"]


def test_goes_on_after_an_interruption(machine: Machine) -> None:
    machine.install()
    (machine.venv / ".installed").unlink()
    kept = machine.venv / "kept"
    kept.touch()
    assert machine.install().returncode == 0
    assert kept.exists()
    assert [call.split()[0] for call in machine.calls] == ["pip", "pip"]


def _cut(machine: Machine) -> None:
    shutil.rmtree(machine.venv / "lib")


def _lose_python(machine: Machine) -> None:
    for name in ("python", "python3"):
        (machine.venv / "bin" / name).unlink()
    (machine.venv / "bin/python").symlink_to("/usr/bin/python3.9-that-was-removed")


def _move(machine: Machine) -> None:
    machine.project = machine.project.rename(machine.project.with_name("moved"))


def _half_made(machine: Machine) -> None:
    shutil.rmtree(machine.venv)
    (machine.venv / "bin").mkdir(parents=True)


@pytest.mark.parametrize("damage", [_cut, _lose_python, _move, _half_made])
def test_makes_an_environment_anew_that_cannot_be_used(machine: Machine, damage: object) -> None:
    machine.install()
    assert callable(damage)
    damage(machine)
    done = machine.install()
    assert done.returncode == 0, done.stderr
    assert [call.split()[0] for call in machine.calls] == ["venv", "pip", "pip"]


@pytest.mark.parametrize(
    ("system", "processor", "seen"),
    [
        ("Linux", "armv7l", "Linux armv7l"),
        ("Darwin", "x86_64", "Darwin x86_64"),
        ("MINGW64_NT-10.0", "x86_64", "MINGW64_NT-10.0 x86_64"),
    ],
)
def test_another_platform_is_one_sentence(
    machine: Machine, system: str, processor: str, seen: str
) -> None:
    machine.give("uname", f'case "$1" in -s) echo {system} ;; -m) echo {processor} ;; esac')
    assert machine.refusal() == (
        "Brewline runs on Linux (glibc 2.28 or later) on x86-64 and aarch64, and macOS 14 or later "
        f"on arm64; this is {seen}\n"
    )


@pytest.mark.parametrize(
    ("script", "seen"), [("echo glibc 2.17", "has glibc 2.17"), ("exit 1", "has another C library")]
)
def test_an_old_or_another_c_library_is_named(machine: Machine, script: str, seen: str) -> None:
    machine.give("getconf", script)
    assert machine.refusal().endswith(f"this Linux {seen}\n")


def test_an_old_macos_is_named_and_a_current_one_is_not(machine: Machine) -> None:
    machine.give("uname", 'case "$1" in -s) echo Darwin ;; -m) echo arm64 ;; esac')
    machine.give("sw_vers", "echo 13.6.1")
    assert machine.refusal().endswith("this is macOS 13.6.1\n")
    machine.give("sw_vers", "echo 14.2")
    assert machine.install().returncode == 0


def test_a_full_disk_is_seen_first(machine: Machine) -> None:
    machine.give("df", 'echo "Filesystem 1024-blocks Used Available Use% Mounted"\n'
                       'echo "/dev/disk 9000000 8000000 1000000 88% /"')  # fmt: skip
    assert machine.refusal() == (
        f"the installation needs about 6.5 GB more in {machine.project}, where 1.0 GB are free; "
        "make room, or move Brewline to a larger disk\n"
    )


def test_the_disk_of_the_cache_is_looked_at_too(machine: Machine) -> None:
    cache = machine.bin.parent / "cache"
    machine.give("df", f'free=90000000; [ "$2" = "{cache}" ] && free=1000000\n'
                       'echo "Filesystem 1024-blocks Used Available Use% Mounted"\n'
                       'echo "$2 900000000 1 $free 1% $2"')  # fmt: skip
    sentence = machine.refusal()
    assert f"more in {cache}, where 1.0 GB are free" in sentence
    assert "set UV_CACHE_DIR" in sentence


def test_no_python_that_fits_is_one_sentence(machine: Machine) -> None:
    machine.give_uv(venv="echo 'error: No interpreter found' >&2; exit 2")
    done = machine.install()
    assert done.returncode == 1
    assert "Brewline needs Python 3.11 to 3.14; there is none" in done.stderr
    assert "error: No interpreter found" in done.stderr
    assert "sudo apt install python3; Fedora: sudo dnf install python3; macOS: brew" in done.stderr


def test_a_python_that_was_asked_for_is_used_or_refused(machine: Machine) -> None:
    machine.install(UV_PYTHON="3.12")
    assert machine.calls[0] == "venv --quiet --python 3.12 .venv"
    shutil.rmtree(machine.venv)
    machine.give_uv(venv=f"{MAKES_VENV} && rm -r .venv/lib")
    done = machine.install(UV_PYTHON="3.9")
    assert done.returncode == 1
    assert "Brewline needs Python 3.11 to 3.14; Python" in done.stderr


# A Python that can do nothing but what is said here.
PYTHON = """
case "$*" in
  "-c ") exit 0 ;;
  "-m pip --version") {pip} ;;
  "-m venv "*) {venv} ;;
  "-m pip install "*)
    while [ $# -gt 0 ]; do [ "$1" = --target ] && target="$2"; shift; done
    mkdir -p "$target/bin" && cp "{uv}" "$target/bin/uv" ;;
  *) exit 1 ;;
esac
"""


def hide_uv(machine: Machine, pip: str, venv: str) -> None:
    """Leaves uv to be fetched by a Python with these abilities."""
    hidden = machine.bin.parent / "hidden-uv"
    (machine.bin / "uv").rename(hidden)
    for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11", "python"):
        machine.give(name, PYTHON.format(pip=pip, venv=venv, uv=hidden))
    # The system's own apt is not asked.
    machine.give("apt-get", "exit 1")


def test_fetches_uv_with_pip(machine: Machine) -> None:
    hide_uv(machine, pip="exit 0", venv="exit 1")
    done = machine.install()
    assert done.returncode == 0, done.stderr
    assert (machine.venv / "bin/uv").readlink() == machine.project / ".uv/bin/uv"


def test_fetches_uv_with_the_pip_of_an_environment(machine: Machine) -> None:
    hide_uv(machine, pip="exit 1", venv='mkdir -p "$3/bin" && cp "$0" "$3/bin/python"')
    done = machine.install()
    assert done.returncode == 0, done.stderr
    assert not (machine.project / ".uv/pip").exists()


def test_fetches_uv_with_the_pip_of_debian(machine: Machine) -> None:
    """Debian has neither pip nor ensurepip in its Python."""
    hide_uv(machine, pip="exit 1", venv="exit 1")
    machine.give("apt-get", 'case "$*" in *download*) touch python3-pip-whl_1_all.deb ;; esac')
    machine.give("dpkg", 'mkdir -p usr/share && touch "usr/share/pip-25.1-py3-none-any.whl"')
    done = machine.install()
    assert done.returncode == 0, done.stderr
    assert not (machine.project / ".uv/apt").exists()


def test_neither_uv_nor_pip_is_one_sentence(machine: Machine) -> None:
    hide_uv(machine, pip="exit 1", venv="exit 1")
    done = machine.install()
    assert done.returncode == 1
    assert "uv, which installs Brewline, is not here and could not be fetched" in done.stderr
    assert "sudo apt install python3-venv" in done.stderr


def test_an_old_uv_is_not_used(machine: Machine) -> None:
    hide_uv(machine, pip="exit 0", venv="exit 1")
    machine.give_uv(version="0.4.30")
    assert machine.install().returncode == 0
    assert (machine.project / ".uv/bin/uv").exists()
