r"""Flickr8k Audio Captions (Harwath & Glass, 2015) in the layouts that its users share.

As the authors of the recordings publish them, with the texts of Hodosh et al. (2013):

    Images/<image>.jpg                           or Flicker8k_Dataset/ (the archive is misspelt)
    flickr_audio/wavs/<image>_<k>.wav            k counts an image's captions from 0
    flickr_audio/wav2capt.txt                    <wav> <jpg> #<k>
    flickr_audio/wav2spk.txt                     <wav> <speaker>; some copies leave it out
    Flickr8k.token.txt                           <jpg>#<k>\t<caption>
    Flickr_8k.{train,dev,test}Images.txt         one jpg a line; 6,000 / 1,000 / 1,000

On Kaggle (warcoder/flickr-8k-audio-caption-corpus with adityajn105/flickr8k), the captions are
`captions.txt`, a CSV of image and caption, in the order of k. It has no splits: either the files
above (Flickr8k_text.zip) or Karpathy's `dataset_flickr8k.json` has to lie beside it.

On the Hugging Face hub (deep9539/flickr-audio-image), three configurations of Parquet tables:
`audio{id,audio}`, `images{id,image,text}` with the first caption, `qrels{image_id,audio_id}`. The
splits are missing there too; captions beyond the first need one of the files above.

Audio: groups.csail.mit.edu/sls/downloads/flickraudio (CC BY-SA). Images outside the three splits
have no audio and are left out.
"""

import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.corpora.reading import (
    csv_rows,
    find_file,
    find_folder,
    lines_of,
    no_record,
    one_file,
    parse_json,
    stem,
    with_records,
)
from brewline.media.archives import AUDIO_SUFFIXES, MediaStore
from brewline.tables.listing import Listing

_IMAGE_FOLDERS = ("Images", "Flicker8k_Dataset", "Flickr8k_Dataset")
_SPLIT_FILES = {split: f"Flickr_8k.{split}Images.txt" for split in ("train", "dev", "test")}
_KARPATHY_FILE = "dataset_flickr8k.json"
_KARPATHY_SPLITS = {"train": "train", "val": "dev", "test": "test"}
_TOKEN_FILES = ("Flickr8k.token.txt", "Flickr8k.lemma.token.txt")


@dataclass(frozen=True)
class _Recording:
    """Somebody reads caption `k` of the image `jpg`; the paths are those in the store."""

    audio_path: str
    image_path: str
    jpg: str
    k: int
    speaker_id: str = ""


def read(store: MediaStore, source: SourceParams) -> list[Listing]:
    """Lists every recording of the three splits.

    Raises:
        BrewlineError: an annotation file is missing or malformed.
    """
    del source  # all its splits are published
    recordings = list(_hub_recordings(store) if _tables(store, "qrels") else _recordings(store))
    captions, splits = _captions(store), _splits(store)
    return with_records(list(_listings(recordings, captions, splits)))


def _listings(
    recordings: Iterable[_Recording | Listing],
    captions: Mapping[tuple[str, int], str],
    splits: Mapping[str, str],
) -> Iterator[Listing]:
    for recording in recordings:
        if isinstance(recording, Listing):
            yield recording
        elif recording.jpg in splits:
            yield Listing(
                utterance_id=stem(recording.audio_path),
                split=splits[recording.jpg],
                audio_path=recording.audio_path,
                speaker_id=recording.speaker_id,
                image_id=stem(recording.jpg),
                image_path=recording.image_path,
                caption=captions.get((recording.jpg, recording.k)),
            )


def _recordings(store: MediaStore) -> Iterator[_Recording | Listing]:
    """The recordings, and the lines that name none."""
    name = one_file(store, "wav2capt.txt")
    audio = find_folder(store, "wavs", suffixes=AUDIO_SUFFIXES)
    images = find_folder(store, *_IMAGE_FOLDERS)
    speakers = _speakers(store)
    for number, line in lines_of(store, name):
        parts = line.split()
        if len(parts) != 3 or not parts[2].startswith("#") or not _is_number(parts[2][1:]):
            told = f"{name}, line {number}: expected `<wav> <jpg> #<k>`, not {reprlib.repr(line)}"
            yield no_record(name, number, BrewlineError(told))
            continue
        wav, jpg, k = parts
        yield _Recording(
            f"{audio}/{wav}", f"{images}/{jpg}", jpg, int(k[1:]), speakers.get(wav, "")
        )


def _speakers(store: MediaStore) -> dict[str, str]:
    name = find_file(store, "wav2spk.txt")
    if name is None:
        return {}
    pairs = (line.partition(" ") for _, line in lines_of(store, name))
    return {wav: speaker.strip() for wav, _, speaker in pairs}


def _tables(store: MediaStore, config: str) -> list[str]:
    """The Parquet tables of one of the hub's configurations, which is their folder."""
    return [name for name in store.tables() if PurePosixPath(name).parent.name == config]


def _hub_recordings(store: MediaStore) -> Iterator[_Recording | Listing]:
    """The recordings, and the rows that name none."""
    for table in _tables(store, "qrels"):
        for number, row in enumerate(store.rows(table, ["image_id", "audio_id"]), start=1):
            image, audio = row["image_id"], str(row["audio_id"])
            k = audio.rpartition("_")[2]
            if image is None or not _is_number(k):
                told = BrewlineError(
                    f"{table}, row {number}: expected an image_id and an audio_id `<image>_<k>`, "
                    f"not {reprlib.repr(image)} and {reprlib.repr(row['audio_id'])}"
                )
                yield no_record(table, number, told)
                continue
            yield _Recording(f"audio/{audio}", f"image/{image}", f"{image}.jpg", int(k))


def _is_number(text: str) -> bool:
    # `isdigit` alone is true of signs that `int` does not read, and of more digits than it reads.
    return text.isascii() and text.isdigit() and len(text) < 10


def _captions(store: MediaStore) -> dict[tuple[str, int], str]:
    """The captions by image and number; of several files, the first that is there."""
    tokens = find_file(store, _TOKEN_FILES[0])
    if tokens is None and (table := find_file(store, "captions.txt")):
        return _csv_captions(store, table)
    tokens = tokens or find_file(store, _TOKEN_FILES[1])
    if tokens:
        return _token_captions(store, tokens)
    hub = _tables(store, "images")
    if not hub:
        raise BrewlineError(f"{store.root} has no {' or '.join((*_TOKEN_FILES, 'captions.txt'))}")
    return {
        (f"{row['id']}.jpg", 0): str(row["text"])
        for table in hub
        for row in store.rows(table, ["id", "text"])
        if row["text"] is not None
    }


def _token_captions(store: MediaStore, name: str) -> dict[tuple[str, int], str]:
    captions = {}
    for number, line in lines_of(store, name):
        # Captions may contain `#` and tabs may not, so the key ends at the first tab.
        key, tab, caption = line.partition("\t")
        jpg, _, index = key.rpartition("#")
        if not tab or not _is_number(index):
            raise BrewlineError(
                f"{name}, line {number}: expected `<jpg>#<k>`, a tab and a caption, not {line!r}"
            )
        # One published key, 2258277193_586949ec62.jpg.1, names no image; no split has it.
        captions[jpg, int(index)] = caption.strip()
    return captions


def _csv_captions(store: MediaStore, name: str) -> dict[tuple[str, int], str]:
    captions: dict[tuple[str, int], str] = {}
    seen: Counter[str] = Counter()
    rows = csv_rows(store, name)
    if next(rows, None) != (1, ["image", "caption"]):
        raise BrewlineError(f"{name}, line 1: expected the header `image,caption`")
    for number, row in rows:
        if isinstance(row, BrewlineError):
            raise row
        if len(row) != 2:
            raise BrewlineError(
                f"{name}, line {number}: expected an image and a caption, not {reprlib.repr(row)}"
            )
        jpg, caption = row
        captions[jpg, seen[jpg]] = caption.strip()
        seen[jpg] += 1
    return captions


def _splits(store: MediaStore) -> dict[str, str]:
    """The split of every image (its file name) that is in one."""
    files = {split: find_file(store, name) for split, name in _SPLIT_FILES.items()}
    if all(files.values()):
        return _listed_splits(store, files)
    karpathy = find_file(store, _KARPATHY_FILE)
    if karpathy is None:
        missing = [_SPLIT_FILES[split] for split, name in files.items() if name is None]
        raise BrewlineError(f"{store.root} has no {', '.join(missing)}, nor {_KARPATHY_FILE}")
    content = parse_json(karpathy, store.read_text(karpathy))
    try:
        return {image["filename"]: _KARPATHY_SPLITS[image["split"]] for image in content["images"]}
    except (KeyError, TypeError) as error:
        raise BrewlineError(
            f"{karpathy}: expected images with filename and split; {error!r}"
        ) from None


def _listed_splits(store: MediaStore, files: dict[str, str | None]) -> dict[str, str]:
    splits: dict[str, str] = {}
    for split, name in files.items():
        for _, line in lines_of(store, name or ""):
            jpg = line.strip()
            if splits.setdefault(jpg, split) != split:
                raise BrewlineError(f"image {jpg!r} is in {splits[jpg]} and {split}")
    return splits
