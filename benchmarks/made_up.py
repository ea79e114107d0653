"""A manifest and transcripts for the benchmarks of packing, of recordings that nobody made."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from brewline.tables.manifest import MANIFEST, sort_manifest
from brewline.tables.parquet import read_column, write_table
from brewline.tables.transcripts import OK, TRANSCRIPTS


def write_tables(
    folder: Path, rows: Iterable[Mapping[str, Any]], transcript: Mapping[str, Any]
) -> None:
    """Writes `manifest.parquet`, in its order, and `transcripts.parquet` into a folder.

    Args:
        folder: Where they lie then.
        rows: Of the manifest, as far as they differ from each other and from what is usual.
        transcript: The same of the transcripts, which are all alike.
    """
    usual = {"corpus": "bench", "split": "train", "speaker_id": "1"}
    usual |= {"sample_rate_hz": 16_000, "num_channels": 1, "audio_sha256": ""}
    manifest = dict.fromkeys(MANIFEST.names) | usual
    path = folder / "manifest.parquet"
    write_table(path, MANIFEST, ({**manifest, **row} for row in rows))
    sort_manifest(path)
    usual = {"split": "train", "status": OK, "asr_model": "bench"}
    heard = {**dict.fromkeys(TRANSCRIPTS.names), **usual, **transcript}
    keys = read_column(path, "utterance_id").to_pylist()
    rows = ({**heard, "utterance_id": key} for key in keys)
    write_table(folder / "transcripts.parquet", TRANSCRIPTS, rows)
