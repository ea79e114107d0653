r"""Flickr8k Audio Captions (Harwath & Glass, 2015) in the layout that its users share.

    Images/<image>.jpg
    flickr_audio/wavs/<image>_<k>.wav            k counts an image's captions from 0
    flickr_audio/wav2capt.txt                    <wav> <jpg> #<k>
    flickr_audio/wav2spk.txt                     <wav> <speaker>
    Flickr8k.token.txt                           <jpg>#<k>\t<caption>
    Flickr_8k.{train,dev,test}Images.txt         one jpg a line; 6,000 / 1,000 / 1,000

Audio: groups.csail.mit.edu/sls/downloads/flickraudio (CC BY-SA). Captions and splits: Hodosh et
al., 2013. Images outside the three splits have no audio and are left out.
"""

from brewline.archives import MediaStore
from brewline.corpora.listing import Listing, one_file, stem
from brewline.errors import BrewlineError
from brewline.params import SourceParams

# The published image archive is misspelt; some copies mend it.
_IMAGE_FOLDERS = ("Images", "Flicker8k_Dataset", "Flickr8k_Dataset")


def read(store: MediaStore, source: SourceParams) -> list[Listing]:
    """Lists every recording of the three splits.

    Raises:
        BrewlineError: an annotation file is missing or malformed.
    """
    del source  # all its splits are published
    captions = _captions(store)
    speakers = _pairs(store, "flickr_audio/wav2spk.txt")
    splits = _splits(store)
    folder = next((name for name in _IMAGE_FOLDERS if _has_folder(store, name)), _IMAGE_FOLDERS[0])
    listings = []
    for wav, jpg, index in _recordings(store):
        if jpg not in splits:
            continue
        listings.append(
            Listing(
                utterance_id=stem(wav),
                split=splits[jpg],
                audio_path=f"flickr_audio/wavs/{wav}",
                speaker_id=speakers.get(wav, ""),
                image_id=stem(jpg),
                image_path=f"{folder}/{jpg}",
                caption=captions.get((jpg, index)),
            )
        )
    return listings


def _has_folder(store: MediaStore, folder: str) -> bool:
    return any(name.startswith(f"{folder}/") for name in store.names())


def _lines(store: MediaStore, name: str) -> list[str]:
    return [line for line in store.read_text(name).splitlines() if line.strip()]


def _pairs(store: MediaStore, name: str) -> dict[str, str]:
    pairs = {}
    for line in _lines(store, name):
        wav, _, value = line.partition(" ")
        pairs[wav] = value.strip()
    return pairs


def _recordings(store: MediaStore) -> list[tuple[str, str, int]]:
    name = one_file(store, "flickr_audio/wav2capt.txt", "wav2capt.txt")
    recordings = []
    for number, line in enumerate(_lines(store, name), start=1):
        parts = line.split()
        if len(parts) != 3 or not parts[2].startswith("#") or not parts[2][1:].isdigit():
            raise BrewlineError(f"{name}, line {number}: expected `<wav> <jpg> #<k>`, not {line!r}")
        recordings.append((parts[0], parts[1], int(parts[2][1:])))
    return recordings


def _captions(store: MediaStore) -> dict[tuple[str, int], str]:
    captions = {}
    for line in _lines(store, "Flickr8k.token.txt"):
        # Captions may contain `#` and tabs may not, so the key ends at the first tab.
        key, _, caption = line.partition("\t")
        jpg, _, index = key.rpartition("#")
        # One published key, 2258277193_586949ec62.jpg.1, names no image; no split has it.
        if jpg and index.isdigit():
            captions[jpg, int(index)] = caption.strip()
    return captions


def _splits(store: MediaStore) -> dict[str, str]:
    splits: dict[str, str] = {}
    for split in ("train", "dev", "test"):
        for jpg in _lines(store, f"Flickr_8k.{split}Images.txt"):
            if splits.setdefault(jpg.strip(), split) != split:
                raise BrewlineError(
                    f"image {jpg.strip()!r} is in {splits[jpg.strip()]} and {split}"
                )
    return splits
