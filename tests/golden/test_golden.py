"""The expensive stages put out what they did: their references, and that a change is noticed.

Tolerances: the worlds were run with the code of PyTorch, oneDNN, MKL and NumPy for older processors
(`ATEN_CPU_CAPABILITY=default`, `ONEDNN_MAX_CPU_ISA=SSE41`, `MKL_ENABLE_INSTRUCTIONS=SSE4_2`,
`NPY_DISABLE_CPU_FEATURES`). States differed by the last of their digits, everything else by 5e-6 at
most; what is allowed is more than ten times as much, and far less than a step of training changes.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import references
from golden_worlds import STAGES
from references import (
    FOLDER,
    TOLERANCES,
    Outputs,
    Reference,
    check,
    differences,
    load_reference,
    renew,
)
from tiny_project import PROJECT

from brewline.config import load_versions

VERSIONS = load_versions(PROJECT / "versions.yaml").model_dump()


@pytest.mark.slow
@pytest.mark.parametrize("stage", VERSIONS)
def test_a_stage_puts_out_what_its_reference_says(stage: str, tmp_path: Path) -> None:
    check(stage, VERSIONS[stage], STAGES[stage](tmp_path), load_reference(stage))


def test_every_expensive_stage_has_a_small_reference() -> None:
    assert set(STAGES) == set(VERSIONS)
    assert {path.stem for path in FOLDER.iterdir()} == set(VERSIONS)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 200_000


def reference(stage: str) -> Reference:
    found = load_reference(stage)
    assert found
    return found


def with_exact(outputs: Outputs, changes: Mapping[str, Any]) -> Outputs:
    return replace(outputs, exact={**outputs.exact, **changes})


def with_numbers(outputs: Outputs, name: str, by: float) -> Outputs:
    """One number of an array changed."""
    changed = outputs.numbers[name].astype(np.float64)
    changed.flat[0] += by
    return replace(outputs, numbers={**outputs.numbers, name: changed})


@pytest.mark.parametrize("stage", VERSIONS)
def test_changed_outputs_without_a_raised_version_fail(stage: str) -> None:
    before = reference(stage)
    key, *_ = before.outputs.exact
    name, *_ = (name for name, value in before.outputs.numbers.items() if value.size)
    sentence = (
        f"outputs of {stage} changed: raise its version in versions.yaml and make the reference "
        rf"anew \(python tests/golden/make_references.py {stage}\)"
    )
    for found in (
        with_exact(before.outputs, {key: "other"}),
        with_exact(before.outputs, {"one more": 1}),
        with_numbers(before.outputs, name, 20.0),
        replace(before.outputs, numbers={}),
    ):
        with pytest.raises(AssertionError, match=sentence):
            check(stage, before.version, found, before)
    check(stage, before.version, before.outputs, before)


@pytest.mark.parametrize("stage", VERSIONS)
def test_a_raised_version_wants_a_new_reference(stage: str) -> None:
    before = reference(stage)
    message = f"belongs to its version {before.version}, and versions.yaml says"
    with pytest.raises(AssertionError, match=message):
        check(stage, before.version + 1, before.outputs, before)
    with pytest.raises(AssertionError, match="has no reference: make it"):
        check(stage, 1, before.outputs, None)


def test_a_reference_is_made_anew_for_a_raised_version_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "FOLDER", tmp_path / "references")
    first = Outputs({"text": "a"}, {"states/a": np.zeros(2, np.float16)})
    other = Outputs({"text": "b"}, {"states/a": np.ones(2, np.float16)})
    assert renew("transcribe", 1, first) == "transcribe: the reference is that of version 1"
    assert renew("transcribe", 1, first) == "transcribe: the reference holds"
    with pytest.raises(AssertionError, match="outputs of transcribe changed: raise its version"):
        renew("transcribe", 1, other)
    assert renew("transcribe", 2, other) == "transcribe: the reference is that of version 2"
    check("transcribe", 2, other, load_reference("transcribe"))


def test_numbers_may_differ_by_their_tolerance_and_no_more() -> None:
    names = {name for stage in VERSIONS for name in reference(stage).outputs.numbers}
    assert all(any(name.startswith(key) for key in TOLERANCES) for name in names)
    for key, (absolute, relative) in TOLERANCES.items():
        outputs = Outputs({}, {f"{key}a": np.array([0.5, np.nan])})
        allowed = absolute + 0.5 * relative
        assert not list(differences(with_numbers(outputs, f"{key}a", 0.99 * allowed), outputs))
        assert list(differences(with_numbers(outputs, f"{key}a", -1.01 * allowed), outputs))
        assert list(differences(with_numbers(outputs, f"{key}a", np.nan), outputs))


def test_what_is_compared_says_something() -> None:
    """A world whose recordings sound alike, or whose training goes nowhere, would notice little."""
    heard = reference("transcribe").outputs.exact
    for run in ("stage", "beams", "sampled"):
        rows = heard[f"table/{run}"]
        assert len({row["text"] for row in rows}) >= len(rows) - 1
    assert {row["status"] for row in heard["table/stage"]} == {"ok", "failed"}
    assert {row["num_windows"] for row in heard["table/stage"]} >= {1, 2}
    history = reference("train").outputs.numbers
    vectors = reference("embed").outputs.numbers
    for variant in ("prompted", "e2e", "full"):
        loss = history[f"history/{variant}/loss"]
        assert np.nanmin(loss) < 0.9 * loss[0]
        for kind in ("utterances", "images"):
            assert np.ptp(vectors[f"embeddings/{variant}/test/{kind}"], axis=0).max() > 0.05
