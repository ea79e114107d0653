"""The manifest and its siblings: Parquet tables with one row per utterance, types stated once."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from brewline.errors import BrewlineError
from brewline.files import atomic_path

_TEXT, _FLOAT, _INT = pyarrow.string(), pyarrow.float64(), pyarrow.int64()


def _schema(**columns: Any) -> Any:
    """Columns by name; a type in brackets may be null."""
    return pyarrow.schema(
        [
            pyarrow.field(name, kind[0], nullable=True)
            if isinstance(kind, list)
            else pyarrow.field(name, kind, nullable=False)
            for name, kind in columns.items()
        ]
    )


MANIFEST = _schema(
    utterance_id=_TEXT,
    corpus=_TEXT,
    split=_TEXT,
    image_id=[_TEXT],
    image_path=[_TEXT],
    audio_path=_TEXT,
    speaker_id=_TEXT,
    caption=[_TEXT],
    duration_s=_FLOAT,
    sample_rate_hz=_INT,
    num_channels=_INT,
    audio_sha256=_TEXT,
    emotion=[_TEXT],
    intensity=[_TEXT],
)

QUARANTINE = _schema(
    utterance_id=_TEXT,
    split=_TEXT,
    audio_path=_TEXT,
    image_path=[_TEXT],
    reason=_TEXT,
    detail=_TEXT,
)

TRANSCRIPTS = _schema(
    utterance_id=_TEXT,
    split=_TEXT,
    text=_TEXT,
    avg_logprob=[_FLOAT],
    no_speech_prob=[_FLOAT],
    compression_ratio=[_FLOAT],
    temperature=[_FLOAT],
    num_windows=_INT,
    num_frames=_INT,
    status=_TEXT,
    reason=[_TEXT],
    asr_model=_TEXT,
)


def write_table(path: Path, schema: Any, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows as Parquet, atomically; equal rows give equal bytes.

    Raises:
        ValueError: a row lacks a column that may not be null, or has one of another type.
    """
    table = pyarrow.Table.from_pylist(list(rows), schema=schema)
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise ValueError(f"{path.name}: column {field.name} has empty cells")
    with atomic_path(path) as partial:
        pyarrow.parquet.write_table(table, partial)


def read_table(path: Path) -> list[dict[str, Any]]:
    """Reads a table as one dictionary per row.

    Raises:
        BrewlineError: the file is missing or damaged.
    """
    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except FileNotFoundError:
        raise BrewlineError(f"{path} is missing; run `dvc repro`") from None
    except pyarrow.ArrowInvalid as error:
        raise BrewlineError(f"{path} is not a whole Parquet file: {error}") from None
    return rows
