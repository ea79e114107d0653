"""The transcripts of a corpus of clips: nobody is understood in them, and nothing is recognised."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from brewline.core.files import atomic_path
from brewline.samples.shards import write_index
from brewline.tables.manifest import holds_clips
from brewline.tables.parquet import read_column, write_table
from brewline.tables.transcripts import OK, TRANSCRIPTS


def write_of_clips(manifest: Path, table: Path, states: Path) -> bool:
    """Writes an empty transcript for each row, and no states, so that later stages find both.

    Returns:
        Whether it is a corpus of clips; of another one nothing is written.
    """
    if not holds_clips(manifest):
        return False
    write_table(table, TRANSCRIPTS, _rows(manifest))
    with atomic_path(states) as partial:
        partial.mkdir(exist_ok=True)
        write_index(partial, {})
    return True


def _rows(manifest: Path) -> Iterator[dict[str, Any]]:
    columns = (read_column(manifest, name).to_pylist() for name in ("utterance_id", "split"))
    empty = dict.fromkeys(TRANSCRIPTS.names)
    empty |= {"text": "", "num_windows": 0, "num_frames": 0, "status": OK, "asr_model": "none"}
    for utterance_id, split in zip(*columns, strict=True):
        yield empty | {"utterance_id": utterance_id, "split": split}
