"""The study end to end, as small as it can be: a corpus and a model, by DVC, and the page."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_project import PROJECT

SIZES = {
    "captions": {
        "layout": "flickr8k",
        "pictures": {"train": 2, "dev": 2, "test": 3},
        "speakers": 3,
        "unused_pictures": 0,
    }
}


def run(*command: str | Path) -> str:
    environment = os.environ | {"PYTHONPATH": f"{PROJECT / 'src'}{os.pathsep}{PROJECT}"}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped study, with one corpus of seven pictures and the model that is not trained."""
    study = PROJECT / "study"
    shutil.copy(study / "claims.yaml", tmp_path)
    values = yaml.safe_load((study / "params.yaml").read_text())
    values["generate"] = SIZES
    pipeline = values["pipeline"]
    for name in ("corpora", "watched"):
        pipeline[name] = ["captions"]
    one = pipeline["experiments"]["captions-zero-shot"]
    pipeline |= {"experiments": {"captions-zero-shot": one}, "probed_corpora": [], "probes": {}}
    pipeline["sound_tables"] = {}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return tmp_path


@pytest.mark.slow
def test_parts_are_made_once_and_the_page_is_drawn_from_their_files(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    where = ("--folder", folder)
    assert "2 of 2 parts are to be made, in about " in run("study.parts", "--list", *where)
    said = run("study.parts", *where)
    assert re.search(
        r"\[1/2\] corpora/captions: \d+\.\d minutes, .* so far, about \d+ are left", said
    )
    assert "captions: 35 listed = 35 good + 0 quarantined" in said
    # Nothing is left to do, and without the work folder it is the same.
    shutil.rmtree(folder / "work")
    assert "0 of 2 parts are to be made" in run("study.parts", *where)
    page = tmp_path_factory.mktemp("docs") / "study.md"
    said = run("study.page", *where, "--page", page)
    assert "not yet measured: Prompts improve on zero-shot" in said
    text = page.read_text()
    assert "### captions: 3 pictures, 15 utterances of test" in text
    assert "| captions-zero-shot | " in text
    assert (page.parent / "study/captions-recall.svg").exists()
