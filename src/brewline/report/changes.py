"""What changed between two states of the metrics: commits, DVC's experiments, or what lies here."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from brewline.core.errors import BrewlineError
from brewline.evaluation.outputs import (
    ASR_KEY,
    DIRECTION_NAMES,
    IMAGE_TO_SPEECH,
    SPEECH_TO_IMAGE,
    Metrics,
)

METRICS = Path("metrics")
# What a table is judged by, of each split: its name, and where its interval stands.
_HEADLINES = {
    f"{split}, {DIRECTION_NAMES[direction]} R@1": f"{split}/{direction}/{metric}"
    for split in ("dev", "test")
    for direction, metric in (
        (SPEECH_TO_IMAGE, "recall_at_1"),
        (IMAGE_TO_SPEECH, "any_hit_recall_at_1"),
    )
}


@dataclass(frozen=True)
class Change:
    """A headline of a row before and after, in fractions; None where there is no such row."""

    table: str
    row: str
    headline: str
    before: float | None
    after: float | None
    interval_before: tuple[float, float] | None = None
    interval_after: tuple[float, float] | None = None


def find_changes(before: Metrics, after: Metrics) -> list[Change]:
    """The headlines that differ, in the order of tables and rows."""
    found = []
    for table in dict.fromkeys([*before, *after]):
        old_rows, new_rows = before.get(table, {}), after.get(table, {})
        for row in dict.fromkeys([*old_rows, *new_rows]):
            if row == ASR_KEY:
                continue
            old, new = old_rows.get(row, {}), new_rows.get(row, {})
            for headline, metric in _HEADLINES.items():
                if old.get(metric) != new.get(metric):
                    values = old.get(metric), new.get(metric)
                    intervals = _interval(old, metric), _interval(new, metric)
                    found.append(Change(table, row, headline, *values, *intervals))
    return found


def _interval(values: Mapping[str, float], metric: str) -> tuple[float, float] | None:
    low, high = values.get(f"{metric}_low"), values.get(f"{metric}_high")
    return None if low is None or high is None else (low, high)


def changes_text(found: list[Change]) -> str:
    """Changes as lines for a terminal, recall in per cent."""
    if not found:
        return "no headline differs\n"
    lines = [
        [
            one.table,
            one.row,
            one.headline,
            _cell(one.before, one.interval_before),
            _cell(one.after, one.interval_after),
            _difference(one),
        ]
        for one in found
    ]
    lines.insert(0, ["table", "row", "", "before", "after", "points"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(f"{_aligned(line, widths)}\n" for line in lines)


def _aligned(line: list[str], widths: list[int]) -> str:
    cells = [
        text.ljust(width) if number < 3 else text.rjust(width)
        for number, (text, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def changes_markdown(found: list[Change]) -> str:
    """Changes as a table in Markdown, recall in per cent."""
    lines = ["| table | row | | before | after | points |", "|---|---|---|--:|--:|--:|"]
    for one in found:
        before, after = _cell(one.before, one.interval_before), _cell(one.after, one.interval_after)
        cells = [one.table, one.row, one.headline, before, after, _difference(one)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    if interval is None:
        return f"{100 * value:.1f}"
    low, high = interval
    return f"{100 * value:.1f} ({100 * low:.1f}–{100 * high:.1f})"  # noqa: RUF001 - a range


def _difference(one: Change) -> str:
    if one.before is None:
        return "new"
    return "gone" if one.after is None else f"{100 * (one.after - one.before):+.1f}"


def metrics_here(folder: Path = METRICS) -> Metrics:
    """What lies in a folder of metrics, by table."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def metrics_of(name: str) -> Metrics:
    """What a commit, a branch or an experiment of DVC holds, by table.

    Raises:
        BrewlineError: there is no such name, or no git repository.
    """
    commit = _commit(name)
    files = _git("ls-tree", "--name-only", commit, f"{METRICS}/") or ""
    return {
        Path(path).stem: json.loads(_git("show", f"{commit}:{path}") or "{}")
        for path in files.split()
        if path.endswith(".json")
    }


def _commit(name: str) -> str:
    # DVC keeps an experiment under the commit that it started from: refs/exps/12/3456…/<name>.
    candidates = [name, *_experiments(name)]
    for one in candidates:
        found = _git("rev-parse", "--quiet", "--verify", "--end-of-options", f"{one}^{{commit}}")
        if found:
            return found.strip()
    raise BrewlineError(
        f"{name!r} is no commit, branch or experiment here; `git log` and `dvc exp show` list them",
        "settings",
    )


def _experiments(name: str) -> Iterator[str]:
    for ref in (_git("for-each-ref", "--format=%(refname)", "refs/exps") or "").split():
        if ref.rpartition("/")[2] == name:
            yield ref


def _git(*arguments: str) -> str | None:
    """What git says; None where it has nothing to say, or is not there."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
