#!/usr/bin/env bash
# Makes .venv and installs the locked packages into it; `make` calls this before all that needs them.
#
# Where everything is in place it is silent and takes a moment. An installation that was interrupted
# goes on; a .venv that is half made, was moved, or lost its Python is made anew. Runs with the bash
# 3.2 and the BSD tools of macOS too.
set -euo pipefail
cd "$(dirname "$0")"
# `make` puts .venv/bin first; what lies there goes with .venv.
PATH="${PATH//"$PWD/.venv/bin:"/}"

PYTHONS='cpython>=3.11,<3.15' # as requires-python in pyproject.toml says
OLDEST_UV=0.8                 # of those tried, the oldest that reads requirements.lock
LINUX_KB=6500000              # with the CUDA libraries that torch needs
MACOS_KB=2500000
OURS=.uv # uv, where the machine has none

say() { echo "Brewline: $*" >&2; }
die() {
  echo "error: $*" >&2
  exit 1
}

# The lock has wheels for these, and pip's words about any other one help nobody.
check_platform() {
  local supported='Linux (glibc 2.28 or later) on x86-64 and aarch64, and macOS 14 or later on arm64'
  local here
  here="$(uname -s) $(uname -m)"
  case "$here" in
    'Linux x86_64' | 'Linux aarch64')
      needed_kb=$LINUX_KB
      local glibc
      glibc="$(getconf GNU_LIBC_VERSION 2>/dev/null || echo 'glibc 0.0')"
      is_at_least "${glibc#glibc }" 2.28 || die "Brewline runs on $supported; this Linux has $(
        [ "$glibc" = 'glibc 0.0' ] && echo 'another C library' || echo "$glibc")"
      ;;
    'Darwin arm64')
      needed_kb=$MACOS_KB
      is_at_least "$(sw_vers -productVersion)" 14.0 ||
        die "Brewline runs on $supported; this is macOS $(sw_vers -productVersion)"
      ;;
    *) die "Brewline runs on $supported; this is $here" ;;
  esac
}

# is_at_least 2.41 2.28: compares the first two numbers of a version.
is_at_least() {
  local major minor least_major least_minor
  IFS=. read -r major minor _ <<<"$1.0"
  IFS=. read -r least_major least_minor _ <<<"$2.0"
  [ "$major" -gt "$least_major" ] || { [ "$major" -eq "$least_major" ] && [ "$minor" -ge "$least_minor" ]; }
}

# Whether .venv is whole enough to install into: made here, for a Python that is there and fits.
is_usable() {
  [ "$(cat .venv/.folder 2>/dev/null)" = "$PWD" ] && .venv/bin/python - 2>/dev/null <<'END'
import os, sys, sysconfig
# The folder is missing where the system's Python was replaced by a newer one.
sys.exit(not ((3, 11) <= sys.version_info[:2] < (3, 15) and os.path.isdir(sysconfig.get_path("purelib"))))
END
}

# What an installation is of: unchanged, nothing has to be done.
fingerprint() {
  cksum requirements.lock requirements-uv.lock pyproject.toml install.sh
}

is_installed() {
  [ "$(cat .venv/.installed 2>/dev/null)" = "$(fingerprint)" ] && is_usable &&
    .venv/bin/python -c 'import brewline' 2>/dev/null
}

# Names of disks and folders may hold spaces; what stands before the percentage is free.
free_kb() { df -Pk "$1" | awk 'NR == 2 {for (i = 2; i <= NF; i++) if ($i ~ /^[0-9]+%$/) print $(i - 1)}'; }
disk_of() { df -Pk "$1" | sed -n '2s/ [0-9]* *[0-9]* *[0-9]* *[0-9]*%//p'; }
in_gb() { awk -v kb="$1" 'BEGIN {printf "%.1f GB", kb / 1e6}'; }

# check_room FOLDER ALREADY_KB ADVICE
check_room() {
  local free missing=$((needed_kb - $2))
  free="$(free_kb "$1")"
  [ "$free" -ge "$missing" ] || die "the installation needs about $(in_gb "$missing") more in $1, \
where $(in_gb "$free") are free; $3"
}

check_disk() {
  local cache
  check_room "$PWD" "$(du -sk .venv 2>/dev/null | awk '{print $1} END {if (!NR) print 0}')" \
    'make room, or move Brewline to a larger disk'
  # On one disk with .venv, packages are linked from uv's cache; from another one they are copied.
  cache="$("$uv" cache dir 2>/dev/null)"
  mkdir -p "$cache"
  if [ "$(disk_of "$cache")" != "$(disk_of .)" ]; then
    check_room "$cache" "$(du -sk "$cache" | awk '{print $1}')" \
      'make room, or set UV_CACHE_DIR to a folder on a larger disk'
  fi
}

# Sets `uv` to one from the path, or fetches one with pip, whichever way pip can be had.
find_uv() {
  local version
  for uv in "$(command -v uv)" "$PWD/$OURS/bin/uv"; do
    version="$("$uv" --version 2>/dev/null)" && version="${version#uv }" &&
      is_at_least "${version%% *}" "$OLDEST_UV" && return
  done
  say 'fetching uv, which installs the rest'
  rm -rf "$OURS" "$OURS.partial"
  fetch_uv || die 'uv, which installs Brewline, is not here and could not be fetched: install uv, or
a Python with pip (Debian, Ubuntu: sudo apt install python3-venv; Fedora: sudo dnf install python3-pip;
macOS: brew install python), see that there is a network, and run make again'
  rm -rf "$OURS.partial/apt" "$OURS.partial/pip"
  mv "$OURS.partial" "$OURS"
  uv="$PWD/$OURS/bin/uv"
}

fetch_uv() {
  local python wheel
  mkdir -p "$OURS.partial"
  for python in python3 python3.14 python3.13 python3.12 python3.11 python; do
    "$python" -c '' 2>/dev/null || continue
    if "$python" -m pip --version >/dev/null 2>&1; then
      pip_install_uv "$python" && return
    elif "$python" -m venv "$OURS.partial/pip" >/dev/null 2>&1; then
      pip_install_uv "$OURS.partial/pip/bin/python" && return
    elif wheel="$(debian_pip)"; then
      PYTHONPATH="$wheel" pip_install_uv "$python" && return
    fi
  done
  return 1
}

# Whatever the user's pip is told to do otherwise, the folder is ours.
pip_install_uv() {
  PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    "$1" -m pip install --quiet --require-hashes --only-binary :all: --target "$OURS.partial" \
    -r requirements-uv.lock >&2
}

# Debian and Ubuntu take pip and ensurepip out of Python. Their own package of pip's wheel can be
# fetched, checked by apt and unpacked without being root. Prints the path of the wheel.
debian_pip() {
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
  local apt="$PWD/$OURS.partial/apt"
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  (
    cd "$apt"
    options=(-qq -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache")
    apt-get "${options[@]}" update && apt-get "${options[@]}" download python3-pip-whl &&
      dpkg -x python3-pip-whl*.deb .
  ) >/dev/null 2>&1 || return 1
  find "$apt/usr" -name 'pip-*.whl'
}

make_environment() {
  local words
  say "making .venv"
  rm -rf .venv
  # The first Python on the path that fits, else one that uv brings. UV_PYTHON chooses another.
  words="$("$uv" venv --quiet --python "${UV_PYTHON:-$PYTHONS}" .venv 2>&1)" ||
    die "Brewline needs Python 3.11 to 3.14; there is none, and uv could not bring one ($(
      echo "$words" | grep -i . | tail -n 1)). Install one (Debian, Ubuntu: sudo apt install python3; \
Fedora: sudo dnf install python3; macOS: brew install python) and run make again"
  printf %s "$PWD" >.venv/.folder
  is_usable || die "Brewline needs Python 3.11 to 3.14; $(.venv/bin/python --version) was asked for"
  # For `uv pip install` in the activated environment, and `make lock`.
  ln -s "$uv" .venv/bin/uv
}

install_packages() {
  say "installing into .venv with $(.venv/bin/python --version): about $(in_gb "$needed_kb"), once"
  "$uv" pip install --python .venv/bin/python --require-hashes -r requirements.lock \
    --build-constraints requirements.lock
  "$uv" pip install --python .venv/bin/python --quiet --no-deps --no-build-isolation -e .
  fingerprint >.venv/.installed
}

is_installed && exit
check_platform
find_uv
check_disk
is_usable || make_environment
install_packages
