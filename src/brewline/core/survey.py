"""What lies at a place on this machine, known without reading a byte of it."""

import hashlib
import os
import stat
from pathlib import Path


def is_shadow(name: str) -> bool:
    """Whether a path is hidden, or in the tree of resource forks of macOS; no corpus means it."""
    return name.startswith((".", "__MACOSX/")) or "/." in name or "/__MACOSX/" in name


def files_at(path: Path) -> list[tuple[str, int, int]]:
    """Lists a file, or the files below a folder, without the shadows.

    Links to files are followed, links to folders are not. Neither pipes nor links that lead nowhere
    are files.

    Returns:
        Of each file, sorted, its path below `path` (of `path` itself: an empty one), its size in
        bytes and the time of its last change in ns. Empty where nothing is.
    """
    if not path.is_dir():
        return [("", *facts)] if (facts := _facts(path)) else []
    found = []
    root = os.fspath(path)
    for parent, folders, names in os.walk(root):
        below = os.path.relpath(parent, root)
        prefix = "" if below == os.curdir else f"{below}/"
        folders[:] = [name for name in folders if not is_shadow(f"{name}/")]
        for name in names:
            if not is_shadow(name) and (facts := _facts(f"{parent}/{name}")):
                found.append((prefix + name, *facts))
    return sorted(found)


def _facts(path: str | Path) -> tuple[int, int] | None:
    try:
        # Of hundreds of thousands, a Path for each would take as long again.
        facts = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return (facts.st_size, facts.st_mtime_ns) if stat.S_ISREG(facts.st_mode) else None


def survey(files: list[tuple[str, int, int]]) -> dict[str, int | str]:
    """Returns what tells one state of a place from another: `files`, their `size`, a `digest`.

    Who adds, removes, renames or writes a file changes the digest, which is over names, sizes and
    times. What only looks new (a copy with the times of today) changes it too.

    Args:
        files: See `files_at`.
    """
    digest = hashlib.sha256()
    for name, size, changed_ns in files:
        digest.update(f"{name}\0{size}\0{changed_ns}\n".encode(errors="surrogateescape"))
    return {
        "files": len(files),
        "size": sum(size for _, size, _ in files),
        "digest": digest.hexdigest(),
    }
