"""Localized Narratives, COCO part (Pont-Tuset et al., 2020): spontaneous spoken descriptions.

    coco_train_localized_narratives-0000?-of-0000?.jsonl, coco_val_localized_narratives.jsonl
    coco_train/coco_train_<image>_<annotator>.ogg, coco_val/...
    train2017/<image, 12 digits>.jpg, val2017/...

One JSON object a line (google.github.io/localized-narratives): dataset_id, image_id, annotator_id,
caption (what was said, transcribed by hand), timed_caption, traces, voice_recording. Annotations
are CC BY 4.0. The published val part is our test split, as in BrewCLIP; there is no published dev
split, so part of the training images is held out.
"""

import json
from collections.abc import Iterator
from typing import Any

from brewline.archives import MediaStore
from brewline.corpora.listing import Listing, held_out, stem
from brewline.errors import BrewlineError
from brewline.params import SourceParams


def read(store: MediaStore, source: SourceParams) -> list[Listing]:
    """Lists every narrative of the train and val parts.

    Raises:
        BrewlineError: there are no annotations, a line is not JSON, or it lacks a field that is
            needed (`traces` is not: one published line has none).
    """
    if source.dev_fraction is None:
        raise BrewlineError(
            "Localized Narratives publishes no dev split: set dev_fraction for this source",
            "settings",
        )
    train = list(_narratives(store, "coco_train_localized_narratives"))
    test = list(_narratives(store, "coco_val_localized_narratives"))
    if not train and not test:
        raise BrewlineError(f"{store.root} has no coco_*_localized_narratives*.jsonl")
    dev_images = held_out((row["image_id"] for row in train), source.dev_fraction)
    return [
        *(_listing(row, "dev" if row["image_id"] in dev_images else "train") for row in train),
        *(_listing(row, "test") for row in test),
    ]


def _narratives(store: MediaStore, prefix: str) -> Iterator[dict[str, Any]]:
    for name in store.names():
        if not (name.startswith(prefix) and name.endswith(".jsonl")):
            continue
        for number, line in enumerate(store.read_text(name).splitlines(), start=1):
            try:
                row = json.loads(line)
                wanted = ("dataset_id", "image_id", "annotator_id", "caption", "voice_recording")
                yield {key: row[key] for key in wanted}
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise BrewlineError(f"{name}, line {number} is no narrative: {error!r}") from None


def _listing(row: dict[str, Any], split: str) -> Listing:
    folder = row["dataset_id"].removeprefix("mscoco_")
    image_id = str(row["image_id"])
    return Listing(
        # An annotator may describe an image once only, so the recording's name is unique.
        utterance_id=stem(row["voice_recording"]),
        split=split,
        audio_path=row["voice_recording"],
        speaker_id=str(row["annotator_id"]),
        image_id=image_id,
        image_path=f"{folder}/{int(image_id):012d}.jpg",
        caption=row["caption"],
    )
