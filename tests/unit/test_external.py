"""Vectors that others computed: read from files of foreign hands, checked, and scored like ours."""

import json
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
import report_world
import yaml

from brewline.config import Params
from brewline.config.loading import parse_params
from brewline.core.errors import BrewlineError
from brewline.evaluation.external import read_external
from brewline.evaluation.vectors import SplitEmbeddings
from brewline.models.card import describe
from brewline.models.names import model_names
from brewline.report.page import write_report
from brewline.tables.manifest import MANIFEST
from brewline.tables.parquet import write_table

# id, split, image: the images of dev and test in another order than their names.
ROWS = [
    ("u0", "train", "i0"),
    ("u1", "dev", "i2"),
    ("u2", "dev", "i1"),
    ("u3", "dev", "i2"),
    ("u4", "test", "i4"),
    ("u5", "test", "i3"),
]
VECTORS = {f"u{n}": [3.0 * n + 1, 4.0, 0.5] for n in range(6)}
IMAGES = {f"i{n}": [1.0, float(n), -2.0] for n in range(5)}


def manifest(folder: Path, rows: Sequence[tuple[str, str, str | None]] = ROWS) -> Path:
    path = folder / "manifest.parquet"
    empty = dict.fromkeys(MANIFEST.names)
    filled = {"corpus": "c", "audio_path": "a", "speaker_id": "s", "audio_sha256": "0"}
    numbers = {"duration_s": 1.0, "sample_rate_hz": 16_000, "num_channels": 1}
    made = [
        {**empty, **filled, **numbers, "utterance_id": one, "split": split, "image_id": image}
        for one, split, image in rows
    ]
    write_table(path, MANIFEST, made)
    return path


def as_parquet(path: Path, vectors: dict[str, list[float]]) -> Path:
    """As somebody with pandas would do it."""
    ids, values = [*vectors], [np.array(one, np.float32) for one in vectors.values()]
    pandas.DataFrame({"id": ids, "vector": values}).to_parquet(path)
    return path


def as_safetensors(path: Path, vectors: dict[str, list[float]]) -> Path:
    """By hand: the length of a header in JSON, the header, and the numbers."""
    values = np.array([*vectors.values()], "<f2")
    header = json.dumps(
        {
            "__metadata__": {"ids": json.dumps([*vectors])},
            "vectors": {
                "dtype": "F16",
                "shape": list(values.shape),
                "data_offsets": [0, values.nbytes],
            },
        }
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + values.tobytes())
    return path


def as_fixed_lists(path: Path, vectors: dict[str, list[float]]) -> Path:
    """With Arrow, lists of one length, doubles, and columns that nobody asked for."""
    width = len(next(iter(vectors.values())))
    kind = pyarrow.list_(pyarrow.float64(), width)
    columns = {
        "text": ["x"] * len(vectors),
        "vector": pyarrow.array([*vectors.values()], kind),
        "id": [*vectors],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


WRITERS: dict[str, tuple[str, Callable[[Path, dict[str, list[float]]], Path]]] = {
    "pandas": (".parquet", as_parquet),
    "by hand": (".safetensors", as_safetensors),
    "fixed lists": (".parquet", as_fixed_lists),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_vectors_are_joined_by_id_and_have_length_one(tmp_path: Path, writer: str) -> None:
    suffix, write = WRITERS[writer]
    # In another order than the manifest's, with one more id than it has.
    given = {"stranger": [9.0, 9.0, 9.0], **dict(reversed(VECTORS.items()))}
    utterances = write(tmp_path / f"utterances{suffix}", given)
    images = write(tmp_path / f"images{suffix}", IMAGES)
    found = read_external(utterances, images, manifest(tmp_path))
    assert list(found) == ["dev", "test"]
    assert found["dev"].utterance_ids == ["u1", "u2", "u3"]
    assert found["dev"].utterance_image_ids == ["i2", "i1", "i2"]
    assert found["dev"].image_ids == ["i2", "i1"]
    assert found["test"].image_ids == ["i4", "i3"]
    for split in found.values():
        for ids, vectors, all_ in (
            (split.utterance_ids, split.utterance_embeddings, VECTORS),
            (split.image_ids, split.image_embeddings, IMAGES),
        ):
            assert vectors.dtype == np.float32
            for name, vector in zip(ids, vectors, strict=True):
                wanted = np.array(all_[name]) / np.sqrt(sum(x * x for x in all_[name]))
                assert vector == pytest.approx(wanted, abs=1e-3)


def lacking(name: str) -> dict[str, list[float]]:
    return {key: one for key, one in VECTORS.items() if key != name}


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (lacking("u5"), "lacks 1 of the 5 utterance_ids of"),
        (lacking("u1"), "in dev and test, as 'u1'"),
        (VECTORS | {"u2": [0.0, 0.0, 0.0]}, "the vector of 'u2' is zero"),
        (VECTORS | {"u2": [1.0, float("nan"), 0.0]}, "the vector of 'u2' has a number that is not"),
        (VECTORS | {"u4": [1.0, float("inf"), 0.0]}, "'u4' has a number that is not finite"),
        (VECTORS | {"u2": [1.0, 2.0]}, "vector of 'u0' has 3 numbers, that of 'u2' 2"),
        ({key: one[:2] for key, one in VECTORS.items()}, "have 2 numbers and those of"),
        ({}, "is no whole file of vectors with ids"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    tmp_path: Path, vectors: dict[str, list[float]], words: str
) -> None:
    utterances = as_parquet(tmp_path / "u.parquet", vectors)
    images = as_parquet(tmp_path / "i.parquet", IMAGES)
    with pytest.raises(BrewlineError) as found:
        read_external(utterances, images, manifest(tmp_path))
    assert words in str(found.value)
    assert "\n" not in str(found.value)


def raw_table(path: Path, **columns: Any) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def raw_tensors(path: Path, metadata: dict[str, str] | None, **tensors: Any) -> None:
    from safetensors.numpy import save_file

    save_file(tensors, path, metadata=metadata)


ONE = pyarrow.array([[1.0, 2.0]])


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("u.parquet", lambda path: None, "is missing; `external` of params.yaml names it"),
        ("u.safetensors", lambda path: None, "is missing; `external` of params.yaml names it"),
        ("u.parquet", lambda path: path.write_bytes(b"PAR1 and more"), "no whole file of vectors"),
        ("u.safetensors", lambda path: path.write_bytes(b"x" * 40), "no whole file of vectors"),
        ("u.parquet", lambda path: raw_table(path, name=["u1"], vector=ONE), "columns id and vec"),
        ("u.parquet", lambda path: raw_table(path, id=[1], vector=ONE), "ids are no list of texts"),
        ("u.parquet", lambda path: raw_table(path, id=["u1"], vector=["a"]), "no whole file of"),
        (
            "u.parquet",
            lambda path: raw_table(path, id=["u1", "u1"], vector=pyarrow.array([[1.0], [2.0]])),
            "has the id 'u1' twice",
        ),
        (
            "u.parquet",
            lambda path: raw_table(path, id=["u1", "u2"], vector=pyarrow.array([[1.0], None])),
            "'u1' has 1 numbers, that of 'u2' None",
        ),
        (
            "u.safetensors",
            lambda path: raw_tensors(path, None, vectors=np.eye(2, dtype=np.float32)),
            "needs a tensor `vectors`, and `ids` among its metadata",
        ),
        (
            "u.safetensors",
            lambda path: raw_tensors(path, {"ids": '["a"]'}, vectors=np.eye(2, dtype=np.float32)),
            "it has 1 ids for 2 vectors",
        ),
        (
            "u.safetensors",
            lambda path: raw_tensors(path, {"ids": '["a", "b"]'}, vectors=np.eye(2, dtype=int)),
            "its vectors are int64 of the shape (2, 2)",
        ),
        (
            "u.safetensors",
            lambda path: raw_tensors(path, {"ids": '"ab"'}, vectors=np.eye(2, dtype=np.float32)),
            "its ids are no list of texts",
        ),
    ],
)
def test_a_file_of_another_kind_is_named(
    tmp_path: Path, name: str, write: Callable[[Path], Any], words: str
) -> None:
    write(tmp_path / name)
    images = as_parquet(tmp_path / "i.parquet", IMAGES)
    with pytest.raises(BrewlineError) as found:
        read_external(tmp_path / name, images, manifest(tmp_path))
    assert words in str(found.value)
    assert str(tmp_path / name) in str(found.value)
    assert "\n" not in str(found.value)


def test_a_corpus_without_pictures_has_nothing_to_compare(tmp_path: Path) -> None:
    files = [as_parquet(tmp_path / f"{n}.parquet", one) for n, one in enumerate((VECTORS, IMAGES))]
    for rows in ([("u0", "train", "i0")], [("u1", "dev", None), ("u4", "test", None)]):
        with pytest.raises(BrewlineError, match="no pictures of dev and test"):
            read_external(*files, manifest(tmp_path, rows))


def with_peer(**changes: Any) -> Any:
    """The shipped parameters with a peer in the first table."""
    values = yaml.safe_load((report_world.PROJECT / "params.yaml").read_text())
    peer = {"data": "mini-flickr8k", "utterances": "u.parquet", "images": "i.safetensors"}
    values["external"] = {"peer": peer | changes}
    values["tables"]["mini-flickr8k"]["rows"]["speechclip"] = "peer"
    return values


def test_a_row_may_name_vectors_of_others() -> None:
    params = parse_params(with_peer())
    assert model_names(params, "peer") == ["external"]
    assert describe(params, "peer") == "computed by others, from speech"
    assert params.hears("peer")
    assert not params.is_trained("peer")
    # Whoever is registered or searched with is trained here.
    assert "peer" not in params.trained_rows("mini-flickr8k")
    assert params.contenders("mini-flickr8k")[-1] == "speechclip"
    ceiling = parse_params(with_peer(reads="captions"))
    assert not ceiling.hears("peer")
    assert "speechclip" not in ceiling.contenders("mini-flickr8k")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": "mini-flickr"}, "external.peer.data: unknown corpus 'mini-flickr'; did you mean"),
        ({"data": "mini-lncoco"}, "'peer' has vectors of mini-lncoco, not mini-flickr8k"),
        ({"images": "i.npy"}, "external.peer.images: 'i.npy': string should match pattern"),
        ({"image": "i.npy"}, "external.peer.image: unknown key; did you mean 'images'?"),
    ],
)
def test_a_bad_set_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BrewlineError) as found:
        parse_params(with_peer(**change))
    assert words in str(found.value)


def test_a_set_has_a_name_of_its_own() -> None:
    values = with_peer()
    values["external"]["Mini-lncoco-full"] = values["external"]["peer"]
    with pytest.raises(BrewlineError, match="an experiment has that name"):
        parse_params(values)
    values = with_peer()
    values["tables"]["mini-flickr8k"]["rows"]["other"] = "pear"
    with pytest.raises(BrewlineError, match="unknown experiment 'pear'; did you mean 'peer'"):
        parse_params(values)


@pytest.fixture(scope="module")
def params() -> Params:
    return parse_params(with_peer())


def test_the_report_says_that_others_computed_it(tmp_path: Path, params: Params) -> None:
    world = report_world.make_world(tmp_path, params)
    write_report(params, world, tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    assert "speechclip<small>computed by others, from speech</small>" in page
    line = next(
        one
        for one in (tmp_path / "out/papers/table-1.md").read_text().splitlines()
        if one.startswith("| speechclip |")
    )
    assert line.endswith("| computed by others, from speech, not known how it was chosen |")
    assert "- speechclip: computed by others, from speech\n" in (
        (tmp_path / "out/results.md").read_text()
    )
    # Measured here, though not computed here.
    assert (
        "speechclip,test/speech_to_image/recall_at_1" in (tmp_path / "out/results.csv").read_text()
    )
    assert "speechclip" not in (tmp_path / "out/papers/table-2.md").read_text()
    assert "speechclip" not in (tmp_path / "out/papers/table-5.md").read_text()


def test_the_example_of_the_guide_makes_files_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (report_world.PROJECT / "docs/guide.md").read_text()
    section = text.partition("### Vectors of others\n")[2].partition("\n### ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    (shown,) = re.findall(r"```yaml\n(.*?)```", section, re.S)
    changes = yaml.safe_load(shown)
    values = yaml.safe_load((report_world.PROJECT / "params.yaml").read_text())
    values["external"] = changes["external"]
    (table,) = changes["tables"]
    values["tables"][table]["rows"] |= changes["tables"][table]["rows"]
    params = parse_params(values)
    peer = params.external[params.tables[table].rows["speechclip"]]
    monkeypatch.chdir(tmp_path)
    exec(code, {"of_utterances": VECTORS, "of_images": IMAGES})
    found = read_external(Path(peer.utterances), Path(peer.images), manifest(tmp_path))
    assert found["test"].utterance_ids == ["u4", "u5"]


def test_splits_have_the_form_that_ours_have(tmp_path: Path) -> None:
    files = [as_parquet(tmp_path / f"{n}.parquet", one) for n, one in enumerate((VECTORS, IMAGES))]
    for split in read_external(*files, manifest(tmp_path)).values():
        assert isinstance(split, SplitEmbeddings)
        norms = np.linalg.norm(split.utterance_embeddings, axis=1)
        assert norms == pytest.approx(np.ones(len(norms)), abs=1e-6)
