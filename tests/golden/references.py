"""What the expensive stages put out on the golden worlds: compared with a reference in git.

A reference is `references/<stage>.json`, with the version that it belongs to and what is compared
exactly, and `references/<stage>.safetensors`, with what is compared within a tolerance.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from brewline.core.files import read_json, write_json

FOLDER = Path(__file__).parent / "references"
COMMAND = "python tests/golden/make_references.py {}"

# By how much numbers may differ on another processor: (absolute, relative), by how their names
# begin; tests/golden/test_golden.py says how they were found.
TOLERANCES: dict[str, tuple[float, float]] = {
    "facts/": (1e-6, 1e-6),
    # 16-bit numbers: a few of their last digits.
    "states/": (4e-3, 4e-3),
    # Sums of numbers of the size of states, before they become 16-bit ones.
    "layers/": (1e-4, 1e-4),
    "table/avg_logprob": (1e-4, 0.0),
    "table/no_speech_prob": (1e-6, 1e-2),
    # How well zlib compresses depends on its version.
    "table/compression_ratio": (0.1, 0.0),
    # Levels of 255: what decoders and encoders of JPEG round differently.
    "pixels/": (4.0, 0.0),
    "history/": (1e-4, 1e-4),
    "tensors/": (1e-4, 1e-4),
    "embeddings/": (1e-4, 0.0),
}


@dataclass(frozen=True)
class Outputs:
    """What a stage put out: JSON that is compared exactly, and arrays that are not."""

    exact: Mapping[str, Any]
    numbers: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Reference:
    """Outputs, and the version of the stage that they belong to."""

    version: int
    outputs: Outputs


def load_reference(stage: str) -> Reference | None:
    """Reads a reference; None where there is none yet."""
    path = FOLDER / f"{stage}.json"
    if not path.exists():
        return None
    facts = read_json(path)
    return Reference(
        facts["version"], Outputs(facts["exact"], load_file(path.with_suffix(".safetensors")))
    )


def save_reference(stage: str, version: int, outputs: Outputs) -> None:
    """Writes a reference."""
    FOLDER.mkdir(exist_ok=True)
    write_json(FOLDER / f"{stage}.json", {"version": version, "exact": outputs.exact})
    save_file(
        {name: np.ascontiguousarray(value) for name, value in outputs.numbers.items()},
        FOLDER / f"{stage}.safetensors",
    )


def differences(found: Outputs, expected: Outputs) -> Iterator[str]:
    """What differs more than it may, in a few words each."""
    # As it comes back from a file: tuples are lists, keys are texts.
    exact = json.loads(json.dumps(found.exact))
    yield from _exact_differences("", exact, expected.exact)
    for name in sorted({*found.numbers, *expected.numbers}):
        one, other = found.numbers.get(name), expected.numbers.get(name)
        if one is None or other is None or one.shape != other.shape:
            yield f"{name}: it is missing, new, or of another shape"
            continue
        absolute, relative = next(t for key, t in TOLERANCES.items() if name.startswith(key))
        one, other = one.astype(np.float64), other.astype(np.float64)
        off = np.abs(one - other)
        if not np.array_equal(np.isnan(one), np.isnan(other)):
            yield f"{name}: a number is missing or new"
        elif (off > absolute + relative * np.abs(other)).any():
            yield f"{name}: off by up to {np.nanmax(off):.2g}"


def _exact_differences(place: str, found: Any, expected: Any) -> Iterator[str]:
    """Where values differ, down to single ones: a whole card fills a screen."""
    if found == expected:
        return
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in sorted({*found, *expected}):
            nothing = "nothing"
            one, other = found.get(name, nothing), expected.get(name, nothing)
            yield from _exact_differences(f"{place}/{name}".lstrip("/"), one, other)
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from _exact_differences(f"{place}[{number}]", one, other)
    else:
        yield f"{place}: {found!r} instead of {expected!r}"


def check(stage: str, version: int, found: Outputs, reference: Reference | None) -> None:
    """Compares what a stage puts out now with its reference.

    Args:
        stage: Its name in `versions.yaml`.
        version: Its version there.
        found: What it puts out.
        reference: Of the stage.

    Raises:
        AssertionError: says what to do.
    """
    command = COMMAND.format(stage)
    assert reference, f"{stage} has no reference: make it ({command})"
    assert reference.version == version, (
        f"the reference of {stage} belongs to its version {reference.version}, and versions.yaml "
        f"says {version}: make the reference anew ({command})"
    )
    changes = list(differences(found, reference.outputs))
    assert not changes, "\n  ".join([changed(stage), *changes])


def renew(stage: str, version: int, found: Outputs) -> str:
    """Makes the reference of a stage anew, where it is missing or of another version.

    Returns:
        What was done.

    Raises:
        AssertionError: outputs changed and the version did not.
    """
    reference = load_reference(stage)
    if reference is None or reference.version != version:
        save_reference(stage, version, found)
        return f"{stage}: the reference is that of version {version}"
    check(stage, version, found, reference)
    return f"{stage}: the reference holds"


def changed(stage: str) -> str:
    """What to do about outputs that are not those of the reference."""
    return (
        f"outputs of {stage} changed: raise its version in versions.yaml and make the reference "
        f"anew ({COMMAND.format(stage)})"
    )
