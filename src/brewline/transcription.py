"""A manifest to a transcript table and encoder-state shards, one shard at a time.

A shard is the unit of work: finished ones lie whole in the work folder, so a run that was killed
goes on with the first unfinished one and ends in the same bytes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from brewline.archives import MediaStore
from brewline.asr import FRAMES_PER_SECOND, Recogniser
from brewline.audio import decode, to_mono_16k
from brewline.files import atomic_path
from brewline.manifest import TRANSCRIPTS, read_table, write_table
from brewline.shards import encode_states, plan_shards, shard_name, write_shard

STATES = "states"
_BYTES_PER_VALUE = 2  # float16


def estimated_states_mb(manifest: list[dict[str, Any]], width: int) -> float:
    """The disk that the encoder states of a corpus will take, in MB."""
    total_s: float = sum(row["duration_s"] for row in manifest)
    return total_s * FRAMES_PER_SECOND * width * _BYTES_PER_VALUE / 1e6


def transcribe_corpus(
    manifest: list[dict[str, Any]],
    store: MediaStore,
    recogniser: Recogniser,
    asr_model: str,
    utterances_per_shard: int,
    work: Path,
) -> list[dict[str, Any]]:
    """Recognises every utterance of a manifest.

    Args:
        manifest: Its rows, sorted by split and utterance id.
        store: The corpus' files.
        recogniser: The model.
        asr_model: Its name, for the table.
        utterances_per_shard: Size of a shard.
        work: Holds the finished shards: `states/<split>-000000.tar` and, beside it, a table of
            its transcripts.

    Returns:
        The rows of the transcript table, in the manifest's order.
    """
    (work / STATES).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    total_s = sum(row["duration_s"] for row in manifest)
    progress = tqdm(total=round(total_s / 3600, 3), unit="h", desc="audio recognised", disable=None)
    plan = plan_shards((row["split"] for row in manifest), utterances_per_shard)
    for split, number, part in plan:
        name = shard_name(split, number)
        table = work / f"{name}.parquet"
        if not (table.exists() and (work / STATES / name).exists()):
            _transcribe_shard(manifest[part], store, recogniser, asr_model, work / STATES / name)
        rows += read_table(table)
        progress.update(sum(row["duration_s"] for row in manifest[part]) / 3600)
    progress.close()
    return rows


def _transcribe_shard(
    manifest: list[dict[str, Any]],
    store: MediaStore,
    recogniser: Recogniser,
    asr_model: str,
    states_path: Path,
) -> None:
    waveforms = [to_mono_16k(decode(store.read(_path(store, row)))) for row in manifest]
    recognitions = recogniser.recognise(waveforms)
    table = []

    def samples() -> Iterator[dict[str, Any]]:
        for row, recognition in zip(manifest, recognitions, strict=True):
            table.append(
                {
                    "utterance_id": row["utterance_id"],
                    "split": row["split"],
                    "text": recognition.text,
                    "avg_logprob": recognition.avg_logprob,
                    "no_speech_prob": recognition.no_speech_prob,
                    "compression_ratio": recognition.compression_ratio,
                    "temperature": recognition.temperature,
                    "num_windows": recognition.num_windows,
                    "num_frames": len(recognition.states),
                    "status": "ok",
                    "reason": None,
                    "asr_model": asr_model,
                }
            )
            yield {"__key__": row["utterance_id"], "npy": encode_states(recognition.states)}

    with atomic_path(states_path) as partial:
        write_shard(partial, samples())
    # The table comes last: where it is, the shard beside it is whole.
    write_table(states_path.parent.parent / f"{states_path.name}.parquet", TRANSCRIPTS, table)


def _path(store: MediaStore, row: dict[str, Any]) -> str:
    path = store.find(row["audio_path"])
    assert path is not None, "a row of the manifest has its recording"
    return path
