"""Localized Narratives (Pont-Tuset et al., 2020): spontaneous spoken descriptions of pictures.

    <subset>_<part>_localized_narratives[-0000?-of-0000?].jsonl
    <subset>_<part>/<subset>_<part>_<image>_<annotator>.ogg

`subset` is one of coco, open_images, flickr30k and ade20k; each comes with the pictures of the
corpus that was described. One JSON object a line (google.github.io/localized-narratives):
dataset_id, image_id, annotator_id, caption (what was said, transcribed by hand), timed_caption,
traces, voice_recording. Annotations are CC BY 4.0. Of COCO and ADE20k only train and val are
published: val is our test split, as in BrewCLIP, and part of the training images is held out.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.corpora.dev_split import with_dev
from brewline.corpora.reading import (
    find_folder,
    json_lines,
    no_record,
    safe_id,
    stem,
    text_of,
    with_records,
)
from brewline.media.archives import AUDIO_SUFFIXES, MediaStore
from brewline.tables.listing import Listing


@dataclass(frozen=True)
class _Part:
    """A published part: our split, and how its pictures are called where they are published."""

    split: str
    image_folders: tuple[str, ...]
    image_name: str = "{}.jpg"


_FLICKR30K = ("flickr30k-images", "flickr30k_images")
_PARTS = {
    "coco": {
        "coco_train": _Part("train", ("train2017",), "{:0>12}.jpg"),
        "coco_val": _Part("test", ("val2017",), "{:0>12}.jpg"),
    },
    "open_images": {
        "open_images_train": _Part("train", ("train",)),
        "open_images_validation": _Part("dev", ("validation",)),
        "open_images_test": _Part("test", ("test",)),
    },
    "flickr30k": {
        "flickr30k_train": _Part("train", _FLICKR30K),
        "flickr30k_val": _Part("dev", _FLICKR30K),
        "flickr30k_test": _Part("test", _FLICKR30K),
    },
    # As in the archive of the scene parsing challenge, ADEChallengeData2016.zip.
    "ade20k": {
        "ade20k_train": _Part("train", ("training",)),
        "ade20k_validation": _Part("test", ("validation",)),
    },
}
# The field names another file than there is; the loader of the authors mends it in the same way
# (github.com/google/localized-narratives, localized_narratives.py, voice_recording_url).
_MENDED = ("flickr30k", "ade20k")
_VOICE = re.compile(r"(?P<folder>\w+)/\w+_(?P<image>[0-9]+)_[0-9]+\.\w+")


def read(store: MediaStore, source: SourceParams) -> list[Listing]:
    """Lists every narrative of a subset; without `subset`, of COCO.

    Raises:
        BrewlineError: there are no annotations, or no line has the fields that are needed
            (`traces` is not: one published line has none).
    """
    subset = source.subset or "coco"
    tables = [name for name in store.names() if name.endswith(".jsonl")]
    # Open Images also comes in train_0 to train_f, the whole of ADE20K in a folder for each scene.
    pictures = {path.rpartition("/")[2]: path for path in store.names() if path.endswith(".jpg")}
    listings = [
        row
        for prefix, part in _PARTS[subset].items()
        for name in tables
        # Beside them, `<prefix>_captions.jsonl` is published: the captions without recordings.
        if re.fullmatch(rf"(.*/)?{prefix}(_v6)?_localized_narratives[^/]*\.jsonl", name)
        for row in _listings(store, name, part, pictures, mended=subset in _MENDED)
    ]
    if not listings:
        raise BrewlineError(f"{store.root} has no {subset}_*_localized_narratives*.jsonl")
    return with_dev(with_records(listings), source)


def _listings(
    store: MediaStore, name: str, part: _Part, pictures: Mapping[str, str], mended: bool
) -> Iterator[Listing]:
    """The narratives of a table.

    Args:
        store: The corpus' files.
        name: The table.
        part: What it is a part of.
        pictures: By their names, whatever folder they are in.
        mended: See `_voice_recording`.
    """
    images = find_folder(store, *part.image_folders)
    folder_of = functools.cache(lambda name: find_folder(store, name, suffixes=AUDIO_SUFFIXES))
    for number, row in json_lines(store, name):
        if isinstance(row, BrewlineError):
            yield no_record(name, number, row, part.split)
            continue
        try:
            folder, voice = _voice_recording(row, mended)
            image_id = text_of(row, "image_id")
            image = part.image_name.format(image_id)
            path = f"{images}/{image}"
            yield Listing(
                # An annotator may describe an image more than once; a recording has one name.
                utterance_id=safe_id(stem(voice)),
                split=part.split,
                audio_path=f"{folder_of(folder)}/{voice}",
                speaker_id=str(row["annotator_id"]),
                image_id=image_id,
                image_path=path if path in store else pictures.get(image, path),
                caption=text_of(row, "caption"),
            )
        except (KeyError, ValueError, TypeError) as error:
            told = BrewlineError(f"{name}, line {number} is no narrative: {error!r}")
            yield no_record(name, number, told, part.split)


def _voice_recording(row: dict[str, Any], mended: bool) -> tuple[str, str]:
    """The folder and the name of the recording.

    Raises:
        KeyError: a field is missing.
        TypeError: it is no text.
        ValueError: the path is not of the form that is to be mended.
    """
    published = text_of(row, "voice_recording")
    if not mended:
        folder, _, file = published.rpartition("/")
        return folder, file
    match = _VOICE.fullmatch(published)
    if not match:
        raise ValueError(f"voice_recording {published!r}")
    folder = match["folder"]
    return folder, f"{folder}_{match['image']:0>16}_{row['annotator_id']}.ogg"
