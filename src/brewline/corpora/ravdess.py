"""RAVDESS, speech part (Livingstone & Russo, 2018): emotional speech of 24 actors, no images.

    Actor_<actor>/<modality>-<channel>-<emotion>-<intensity>-<statement>-<repetition>-<actor>.wav

Zenodo record 1188976 (CC BY-NC-SA 4.0). The labels are in the file name; some copies hold the
folders of the actors twice, one level apart, and then the outer one counts. Two of the 1,440
recordings are equal to the byte, and both are listed. BrewCLIP trains on the first three quarters
of the actors (1-18 of 24) and tests on the rest; a dev split by speaker is held out of the
training part when `dev_fraction` is set.
"""

import re

from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.corpora.dev_split import with_dev
from brewline.corpora.reading import stem
from brewline.media.archives import AUDIO_SUFFIXES, MediaStore
from brewline.tables.listing import Listing

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
INTENSITIES = {"01": "normal", "02": "strong"}
STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}

_TRAIN_SHARE = 0.75
_NAME = re.compile(
    r"03-01-(?P<emotion>0[1-8])-(?P<intensity>0[12])-(?P<statement>0[12])-0[12]-(?P<actor>\d\d)"
)


def read(store: MediaStore, source: SourceParams) -> list[Listing]:
    """Lists every audio-only speech recording.

    Raises:
        BrewlineError: there is none.
    """
    names = [name for name in store.names() if name.endswith(AUDIO_SUFFIXES)]
    found: dict[str, tuple[str, re.Match[str]]] = {}
    # Of copies, the outermost.
    for name in sorted(names, key=lambda name: name.count("/")):
        match = _NAME.fullmatch(stem(name))
        if match:
            found.setdefault(match[0], (name, match))
    if not found:
        raise BrewlineError(f"{store.root} has no recordings named like 03-01-06-01-02-01-12.wav")
    splits = _splits({match["actor"] for _, match in found.values()})
    listings = [
        Listing(
            utterance_id=utterance_id,
            split=splits[match["actor"]],
            audio_path=name,
            speaker_id=match["actor"],
            caption=STATEMENTS[match["statement"]],
            emotion=EMOTIONS[match["emotion"]],
            intensity=INTENSITIES[match["intensity"]],
        )
        for utterance_id, (name, match) in found.items()
    ]
    return listings if source.dev_fraction is None else with_dev(listings, source)


def _splits(actors: set[str]) -> dict[str, str]:
    ordered = sorted(actors)
    num_train = round(_TRAIN_SHARE * len(ordered))
    return {actor: "train" if index < num_train else "test" for index, actor in enumerate(ordered)}
