"""SpokenCOCO (Hsu et al., 2021): the captions of MSCOCO 2014, read aloud.

    SpokenCOCO/SpokenCOCO_{train,val}.json
    SpokenCOCO/wavs/{train,val}/<n>/<uttid>.wav
    train2014/COCO_train2014_<id, 12 digits>.jpg, val2014/...          (from MSCOCO)

    {"data": [{"image": "val2014/COCO_val2014_000000325114.jpg",
               "captions": [{"text": "A URINAL ...", "speaker": "m07...",
                             "uttid": "m07...-<task>_325114_<caption>",
                             "wav": "wavs/val/0/....wav"}]}]}

Archive: data.csail.mit.edu/placesaudio/SpokenCOCO.tar.gz (CC BY-SA). Texts are in capitals and
stay so: CLIP's tokenizer and the word error rate look at no case.

`split: own` takes the archive's parts: val is our test split, and of train a part is held out.
`split: karpathy` is that of the papers, 113,287 / 5,000 / 5,000 images, either from
`SpokenCOCO_ksplit_{train,val,test}.json` (huggingface.co/speechclip/models, ksplit.tar.gz; the
format above) or by joining both parts with `dataset_coco.json` (Karpathy & Fei-Fei, 2015:
cs.stanford.edu/people/karpathy/deepimagesent, caption_datasets.zip) on the image. There, restval
belongs to train.
"""

from collections.abc import Iterator
from dataclasses import replace

from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.corpora.dev_split import with_dev
from brewline.corpora.reading import (
    find_file,
    find_folder,
    no_record,
    one_file,
    parse_json,
    safe_id,
    stem,
    text_of,
    with_records,
)
from brewline.media.archives import MediaStore
from brewline.tables.listing import Listing

_KARPATHY_FILE = "dataset_coco.json"
_KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "dev", "test": "test"}


def read(store: MediaStore, source: SourceParams) -> list[Listing]:
    """Lists every recording, in the chosen split.

    Raises:
        BrewlineError: no split is chosen, or an annotation file is missing or malformed.
    """
    if source.split == "own":
        rows = [
            *_rows(store, _part(store, "train"), "train"),
            *_rows(store, _part(store, "val"), "test"),
        ]
    elif source.split == "karpathy":
        rows = _karpathy(store)
    else:
        raise BrewlineError("spokencoco: set split for this source: own or karpathy", "settings")
    return with_dev(with_records(rows), source)


def _part(store: MediaStore, part: str) -> str:
    return one_file(store, f"SpokenCOCO_{part}.json")


def _karpathy(store: MediaStore) -> list[Listing]:
    ready = {
        split: find_file(store, f"SpokenCOCO_ksplit_{part}.json")
        for part, split in (("train", "train"), ("val", "dev"), ("test", "test"))
    }
    if all(ready.values()):
        return [row for split, name in ready.items() if name for row in _rows(store, name, split)]
    joined = find_file(store, _KARPATHY_FILE)
    if joined is None:
        raise BrewlineError(
            f"{store.root} has neither SpokenCOCO_ksplit_train.json, _val and _test, nor "
            f"{_KARPATHY_FILE}"
        )
    splits = _image_splits(store, joined)
    rows = []
    for part in ("train", "val"):
        for row in _rows(store, _part(store, part), part):
            told = row.fault
            if told is None and row.image_id not in splits:
                told = f"{joined} lists no image {row.image_id}, which {part} has"
            split = "" if told else splits[row.image_id]
            rows.append(replace(row, split=split, fault=told))
    return rows


def _image_splits(store: MediaStore, name: str) -> dict[str | None, str]:
    """The split of every image of COCO by its id."""
    # The file also holds every caption, in tokens; only what is needed is kept while it is read.
    wanted = ("images", "filename", "split")
    try:
        content = parse_json(
            name,
            store.read_text(name),
            lambda pairs: {key: each for key, each in pairs if key in wanted},
        )
        return {
            _coco_id(image["filename"]): _KARPATHY_SPLITS[image["split"]]
            for image in content["images"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise BrewlineError(f"{name}: expected images with filename and split; {error!r}") from None


def _coco_id(path: str) -> str:
    """`325114` of `val2014/COCO_val2014_000000325114.jpg`; COCO's ids are unique over its parts.

    Raises:
        ValueError: there is no number in it.
    """
    return str(int(stem(path).rpartition("_")[2]))


def _rows(store: MediaStore, name: str, split: str) -> Iterator[Listing]:
    """The utterances of one annotation file; recordings lie beside it."""
    content = parse_json(name, store.read_text(name))
    images = content.get("data") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise BrewlineError(f"{name}: expected JSON with a list `data`")
    folders = {part: find_folder(store, part) for part in ("train2014", "val2014")}
    home = name.rpartition("SpokenCOCO_")[0]
    for number, image in enumerate(images, start=1):
        try:
            part, _, jpg = text_of(image, "image").partition("/")
            image_id, spoken = _coco_id(jpg), list(image["captions"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            yield _no_image(name, number, error, split)
            continue
        for each in spoken:
            try:
                yield Listing(
                    utterance_id=safe_id(text_of(each, "uttid")),
                    split=split,
                    audio_path=home + text_of(each, "wav"),
                    speaker_id=text_of(each, "speaker"),
                    image_id=image_id,
                    image_path=f"{folders.get(part, part)}/{jpg}",
                    caption=text_of(each, "text"),
                )
            except (KeyError, TypeError) as error:
                yield _no_image(name, number, error, split)


def _no_image(name: str, number: int, error: Exception, split: str) -> Listing:
    told = BrewlineError(
        f"{name}, image {number}: expected image and captions with text, speaker, uttid and wav; "
        f"{error!r}"
    )
    return no_record(name, number, told, split)
