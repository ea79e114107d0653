"""What changed between commits, experiments and what lies here, in headlines."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from brewline.core.errors import BrewlineError
from brewline.report.changes import changes_text, find_changes, metrics_here, metrics_of

METRIC = "test/speech_to_image/recall_at_1"


def values(recall: float) -> dict[str, float]:
    return {METRIC: recall, f"{METRIC}_low": recall - 0.1, f"{METRIC}_high": recall + 0.1, "x": 1.0}


def test_headlines_that_differ_are_named_with_both_intervals() -> None:
    before = {"a": {"full": values(0.5), "same": values(0.3), "left": values(0.2), "asr": {}}}
    after = {"a": {"full": values(0.6), "same": values(0.3) | {"x": 2.0}, "asr": {"y": 1.0}}}
    lines = changes_text(find_changes(before, after)).splitlines()
    assert [" ".join(line.replace("–", " to ").split()) for line in lines[1:]] == [  # noqa: RUF001
        "a full test, speech to image R@1 50.0 (40.0 to 60.0) 60.0 (50.0 to 70.0) +10.0",
        "a left test, speech to image R@1 20.0 (10.0 to 30.0) - gone",
    ]
    assert changes_text(find_changes(before, before)) == "no headline differs\n"


def git(*arguments: str) -> None:
    who = {
        f"GIT_{role}_{what}": "a@b"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    subprocess.run(["git", *arguments], check=True, env=os.environ | who)


def commit(recall: float) -> None:
    Path("metrics").mkdir(exist_ok=True)
    Path("metrics/a.json").write_text(json.dumps({"full": values(recall)}))
    git("add", ".")
    git("commit", "--quiet", "--message", str(recall))


def test_commits_and_experiments_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BrewlineError, match="'HEAD' is no commit"):
        metrics_of("HEAD")
    git("init", "--quiet")
    commit(0.5)
    # As DVC keeps its experiments.
    git("update-ref", "refs/exps/12/3456/tables", "HEAD")
    commit(0.6)
    Path("metrics/a.json").write_text(json.dumps({"full": values(0.7)}))
    found = [metrics["a"]["full"][METRIC] for metrics in (metrics_of("tables"), metrics_of("HEAD"))]
    assert found == [0.5, 0.6]
    assert metrics_here()["a"]["full"][METRIC] == 0.7
    for name in ("--all", "nobody"):
        with pytest.raises(BrewlineError, match="is no commit, branch or experiment"):
            metrics_of(name)
