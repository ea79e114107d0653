"""Vectors that others computed, of the utterances and images of a corpus: read, and checked.

Two files, one for utterances and one for images, each with ids of the manifest and a vector for
each: a Parquet table with the columns `id` and `vector`, or a safetensors file with a tensor
`vectors` (N, D) whose metadata have under `ids` a JSON list of N strings, in the same order. Of
other ids nothing is asked: whoever embedded the whole corpus need not cut it.
"""

import collections
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from safetensors import SafetensorError, safe_open

from brewline.core.errors import BrewlineError
from brewline.evaluation.vectors import Embeddings, SplitEmbeddings
from brewline.tables.parquet import read_table

_SPLITS = ("dev", "test")


@dataclass(frozen=True)
class VectorTable:
    """A file of vectors: (N, D), and the row of each id."""

    path: Path
    vectors: Embeddings
    row_of: Mapping[str, int]

    def of(self, ids: Sequence[str]) -> Embeddings:
        """The vectors of some ids, as unit vectors: cosines are what models are ranked by."""
        found = self.vectors[[self.row_of[one] for one in ids]]
        unit: Embeddings = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit


def read_external(utterances: Path, images: Path, manifest: Path) -> dict[str, SplitEmbeddings]:
    """Reads the vectors of dev and test, in the order of the manifest.

    Raises:
        BrewlineError: a file is missing or of another kind; an id of the manifest is not in it, or
            one stands in it twice; vectors are of several lengths, not finite, or zero.
    """
    columns = ["utterance_id", "split", "image_id"]
    rows = [row for row in read_table(manifest, columns) if row["split"] in _SPLITS]
    silent = next((row["utterance_id"] for row in rows if row["image_id"] is None), None)
    if silent is not None or not rows:
        raise BrewlineError(f"{manifest} has no pictures of dev and test to compare with")
    spoken, seen = read_vector_table(utterances), read_vector_table(images)
    for table, key in ((spoken, "utterance_id"), (seen, "image_id")):
        _require(table, list(dict.fromkeys(str(row[key]) for row in rows)), f"{key}s of {manifest}")
    if spoken.vectors.shape[1] != seen.vectors.shape[1]:
        raise BrewlineError(
            f"the vectors of {utterances} have {spoken.vectors.shape[1]} numbers and those of "
            f"{images} {seen.vectors.shape[1]}; they must be of one model"
        )
    return {split: _split(spoken, seen, rows, split) for split in _SPLITS}


def _split(
    spoken: VectorTable, seen: VectorTable, rows: Sequence[Mapping[str, Any]], split: str
) -> SplitEmbeddings:
    here = [row for row in rows if row["split"] == split]
    ids, image_of = ([str(row[key]) for row in here] for key in ("utterance_id", "image_id"))
    images = list(dict.fromkeys(image_of))
    return SplitEmbeddings(ids, image_of, spoken.of(ids), images, seen.of(images))


def _require(table: VectorTable, ids: Sequence[str], what: str) -> None:
    missing = [one for one in ids if one not in table.row_of]
    if missing:
        raise BrewlineError(
            f"{table.path} lacks {len(missing)} of the {len(ids)} {what} in dev and test, as "
            f"{missing[0]!r}"
        )
    bad = next((one for one in ids if not table.vectors[table.row_of[one]].any()), None)
    if bad is not None:
        raise BrewlineError(f"{table.path}: the vector of {bad!r} is zero, which is like nothing")


def read_vector_table(path: Path) -> VectorTable:
    """Reads a file of vectors, whatever ids it has.

    Raises:
        BrewlineError: see `read_external`.
    """
    read = {".parquet": _read_parquet, ".safetensors": _read_safetensors}[path.suffix]
    try:
        ids, vectors = read(path)
    except FileNotFoundError:
        raise BrewlineError(f"{path} is missing; `external` of params.yaml names it") from None
    # What is damaged ends in errors of the decompressors too, or in text that is none.
    except (pyarrow.ArrowException, SafetensorError, OSError, ValueError, TypeError) as error:
        what = next(iter(str(error).splitlines()), type(error).__name__)
        raise BrewlineError(f"{path} is no whole file of vectors with ids: {what}") from None
    twice = next((one for one, count in collections.Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise BrewlineError(f"{path} has the id {twice!r} twice")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        bad = ids[int(np.argmin(finite))]
        raise BrewlineError(f"{path}: the vector of {bad!r} has a number that is not finite")
    return VectorTable(path, vectors, {one: row for row, one in enumerate(ids)})


def _read_parquet(path: Path) -> tuple[list[str], Embeddings]:
    with path.open("rb") as file, pyarrow.parquet.ParquetFile(file) as parquet:
        if not {"id", "vector"} <= {*parquet.schema_arrow.names}:
            raise ValueError("it needs the columns id and vector")
        table = parquet.read(columns=["id", "vector"])
    ids, column = _texts(table["id"].to_pylist()), table["vector"].combine_chunks()
    lengths = pyarrow.compute.list_value_length(column).to_pylist()
    odd = next(_odd_ones(ids, lengths), None)
    if odd is not None:
        raise ValueError(odd)
    values = pyarrow.compute.list_flatten(column).cast(pyarrow.float32()).to_numpy(False)
    return ids, _matrix(values.reshape(len(ids), -1) if ids else values)


def _odd_ones(ids: Sequence[str], lengths: Sequence[int | None]) -> Iterator[str]:
    for name, length in zip(ids, lengths, strict=True):
        if length != lengths[0]:
            yield f"the vector of {ids[0]!r} has {lengths[0]} numbers, that of {name!r} {length}"


def _read_safetensors(path: Path) -> tuple[list[str], Embeddings]:
    with safe_open(path, "np") as file:
        metadata = file.metadata() or {}
        if "vectors" not in file.keys() or "ids" not in metadata:  # noqa: SIM118 - no mapping
            raise ValueError("it needs a tensor `vectors`, and `ids` among its metadata")
        ids, vectors = _texts(json.loads(metadata["ids"])), file.get_tensor("vectors")
    vectors = _matrix(vectors)
    if len(ids) != len(vectors):
        raise ValueError(f"it has {len(ids)} ids for {len(vectors)} vectors")
    return ids, vectors


def _texts(ids: Any) -> list[str]:
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise ValueError("its ids are no list of texts")
    return ids


def _matrix(values: Any) -> Embeddings:
    if values.ndim != 2 or not values.size or values.dtype.kind != "f":
        raise ValueError(f"its vectors are {values.dtype} of the shape {values.shape}")
    matrix: Embeddings = np.ascontiguousarray(values, np.float32)
    return matrix
