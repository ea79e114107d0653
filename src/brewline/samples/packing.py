"""Manifest, transcripts and pictures to WebDataset shards."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from brewline.config.shard import ShardParams
from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path
from brewline.media.archives import MediaStore
from brewline.media.pictures import PictureError, shrink_jpeg
from brewline.samples.shards import plan_shards, shard_name, write_index, write_shard
from brewline.tables.transcripts import DROPPED

_MANIFEST_FACTS = ("image_id", "speaker_id", "caption", "duration_s", "emotion", "intensity")
_TRANSCRIPT_FACTS = ("avg_logprob", "no_speech_prob", "num_frames", "status")


def pack_corpus(
    manifest: list[dict[str, Any]],
    transcripts: list[dict[str, Any]],
    store: MediaStore,
    settings: ShardParams,
    folder: Path,
) -> None:
    """Writes the shards of a corpus and their index.

    Args:
        manifest: Its rows, in its order.
        transcripts: One row per row of the manifest; joined by utterance id.
        store: The corpus' files, for the pictures.
        settings: Size of a shard and of the pictures.
        folder: Filled with `<split>-000000.tar` and `index.json`; shards that lie there already
            are whole and are kept.

    Raises:
        BrewlineError: an utterance of the manifest has no transcript, or a picture cannot be
            packed.
    """
    by_id = {row["utterance_id"]: row for row in transcripts}
    counts = {}
    plan = plan_shards((row["split"] for row in manifest), settings.utterances_per_shard)
    with tqdm(total=len(manifest), desc="utterances packed", unit=" utt", disable=None) as progress:
        for split, number, part in plan:
            name = shard_name(split, number)
            kept = [row for row in manifest[part] if not _is_dropped(row, by_id)]
            if not (folder / name).exists():
                with atomic_path(folder / name) as partial:
                    write_shard(partial, _samples(kept, by_id, store, settings))
            counts[name] = len(kept)
            progress.update(part.stop - part.start)
    write_index(folder, counts)


def _is_dropped(row: dict[str, Any], transcripts: dict[str, dict[str, Any]]) -> bool:
    key = row["utterance_id"]
    if key not in transcripts:
        raise BrewlineError(f"utterance {key!r} has no transcript; run `dvc repro transcribe`")
    return bool(transcripts[key]["status"] == DROPPED)


def _samples(
    manifest: list[dict[str, Any]],
    transcripts: dict[str, dict[str, Any]],
    store: MediaStore,
    settings: ShardParams,
) -> Iterator[dict[str, Any]]:
    for row in manifest:
        key = row["utterance_id"]
        transcript = transcripts[key]
        facts = {name: row[name] for name in _MANIFEST_FACTS}
        facts |= {name: transcript[name] for name in _TRANSCRIPT_FACTS}
        facts |= {"transcript": transcript["text"]}
        sample = {"__key__": key, "json": json.dumps(facts, sort_keys=True).encode()}
        if row["image_path"]:
            sample["jpg"] = _picture(row["image_path"], store, settings)
        yield sample


def _picture(path: str, store: MediaStore, settings: ShardParams) -> bytes:
    try:
        return shrink_jpeg(store.read(path), settings)
    except PictureError as error:
        raise BrewlineError(f"picture {path!r} cannot be packed: {error.detail}") from None
