"""The transcripts: one row for each row of the manifest."""

import pyarrow

from brewline.tables.parquet import FLOAT, INT, TEXT, table_schema

# What became of a recording in stage `transcribe`: dropped ones are in no shard.
OK, FAILED, DROPPED = "ok", "failed", "dropped"

# When each word of a text was said, in seconds, and how likely it is.
WORDS = pyarrow.list_(
    pyarrow.struct([("word", TEXT), ("start_s", FLOAT), ("end_s", FLOAT), ("probability", FLOAT)])
)

TRANSCRIPTS = table_schema(
    utterance_id=TEXT,
    split=TEXT,
    text=TEXT,
    # A code of Whisper's, as `en`: what the recording is in, if anybody knows.
    language=[TEXT],
    avg_logprob=[FLOAT],
    no_speech_prob=[FLOAT],
    compression_ratio=[FLOAT],
    temperature=[FLOAT],
    num_windows=INT,
    num_frames=INT,
    status=TEXT,
    reason=[TEXT],
    asr_model=TEXT,
    # Null where they were not asked for, and of texts that were imported or lost.
    words=[WORDS],
)

# How each recording with a caption was heard, against it; see `speech.error_rates.Errors`.
WORD_ERRORS_FILE = "word_errors.parquet"
WORD_ERRORS = table_schema(
    utterance_id=TEXT,
    num_words=INT,
    word_errors=INT,
    num_characters=INT,
    character_errors=INT,
)
