"""The manifest and the quarantine: each utterance of a corpus has a row in one of them."""

from brewline.tables.parquet import FLOAT, INT, TEXT, table_schema

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
    # Imported instead of recognised.
    transcript=[TEXT],
)

QUARANTINE = table_schema(
    utterance_id=TEXT,
    split=TEXT,
    audio_path=TEXT,
    image_path=[TEXT],
    reason=TEXT,
    detail=TEXT,
)
