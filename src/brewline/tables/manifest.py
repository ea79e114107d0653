"""The manifest and the quarantine: each utterance of a corpus has a row in one of them."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from brewline.core.files import atomic_path
from brewline.tables.listing import SPLITS
from brewline.tables.parquet import (
    BOOL,
    FLOAT,
    INT,
    ROWS_PER_GROUP,
    TEXT,
    read_column,
    table_schema,
)

# What happens in a clip: `ListedEvent`.
EVENTS = pyarrow.list_(pyarrow.struct([("start_s", FLOAT), ("end_s", FLOAT), ("label", TEXT)]))

MANIFEST = table_schema(
    utterance_id=TEXT,
    corpus=TEXT,
    split=TEXT,
    image_id=[TEXT],
    image_path=[TEXT],
    audio_path=TEXT,
    speaker_id=TEXT,
    caption=[TEXT],
    duration_s=FLOAT,
    sample_rate_hz=INT,
    num_channels=INT,
    audio_sha256=TEXT,
    emotion=[TEXT],
    intensity=[TEXT],
    language=[TEXT],
    # Imported instead of recognised.
    transcript=[TEXT],
    # Of clips: the video that has the frames, and which part of the file it is.
    is_clip=[BOOL],
    video_path=[TEXT],
    start_s=[FLOAT],
    end_s=[FLOAT],
    captions=[pyarrow.list_(TEXT)],
    events=[EVENTS],
)

QUARANTINE = table_schema(
    utterance_id=TEXT,
    split=TEXT,
    audio_path=TEXT,
    image_path=[TEXT],
    reason=TEXT,
    detail=TEXT,
)


def row_order(split: str, utterance_id: str) -> tuple[int, bytes]:
    """What the rows of a manifest are sorted by: the split, then a hash of the id.

    Ids begin with a speaker or a picture in most corpora. Sorted by them, a shard would hold few of
    either, and so would a batch, which is drawn from one shard. By the hash a shard is a random
    sample, the same one wherever the corpus is prepared. Transcripts, states and shards keep the
    order.
    """
    return SPLITS.index(split), hashlib.sha256(utterance_id.encode()).digest()


def holds_clips(path: Path) -> bool:
    """Whether a manifest is that of a corpus of clips, in which no speech is recognised."""
    return bool(pyarrow.compute.any(read_column(path, "is_clip")).as_py())


def sort_manifest(path: Path) -> None:
    """Brings the rows of a written manifest into their order."""
    splits, digests = [], bytearray()
    # Not all at once: the keys of a large corpus as Python's objects take more than its rows.
    keys = pyarrow.parquet.read_table(path, columns=["split", "utterance_id"])
    for batch in keys.to_batches():
        columns = (column.to_pylist() for column in batch.columns)
        for place, digest in itertools.starmap(row_order, zip(*columns, strict=True)):
            splits.append(place)
            digests += digest
    # The first byte counts most.
    words = np.frombuffer(bytes(digests), ">u8").reshape(len(splits), 4)
    order = pyarrow.array(np.lexsort((*words.T[::-1], np.array(splits, np.int64))), pyarrow.int64())
    # Column by column, as each is in memory twice meanwhile.
    in_order = [
        pyarrow.parquet.read_table(path, columns=[name]).column(0).take(order)
        for name in MANIFEST.names
    ]
    with atomic_path(path) as partial:
        table = pyarrow.table(in_order, schema=MANIFEST)
        pyarrow.parquet.write_table(table, partial, row_group_size=ROWS_PER_GROUP)
