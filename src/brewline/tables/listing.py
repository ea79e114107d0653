"""What a corpus lists: one row per utterance, before anything of it is opened."""

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, NamedTuple

SPLITS = ("train", "dev", "test")


class ListedEvent(NamedTuple):
    """What is heard and seen from one time to another, from the clip's beginning."""

    start_s: float
    end_s: float
    label: str


@dataclass(frozen=True, slots=True)
class Listing:
    """One utterance as its corpus lists it; nothing of it has been opened yet.

    Paths are those in the store. `utterance_id` is unique in its corpus and becomes the shard key,
    so it consists of letters, digits, `_` and `-`. A line that is no record is listed too, with
    what is wrong with it as `fault`; what it does not say is empty then, its split also. So is a
    record that is left out on purpose, with `excluded` as its `fault_reason` and without a path.

    A clip is a sound that is not recognised as speech, with or without pictures: its `audio_path`
    names a recording, or the video that `video_path` names too. It is the whole of that file, or
    what lies between `start_s` and `end_s`. `speaker_id` is the video that it was cut from: clips
    of one video do not fall into two splits.
    """

    utterance_id: str
    split: str
    audio_path: str
    speaker_id: str
    image_id: str | None = None
    image_path: str | None = None
    caption: str | None = None
    emotion: str | None = None
    intensity: str | None = None
    # That is spoken, by its code; None: the corpus does not say.
    language: str | None = None
    # Known already, and not to be recognised; see `corpora.transcripts`.
    transcript: str | None = None
    is_clip: bool = False
    video_path: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    captions: tuple[str, ...] = ()
    events: tuple[ListedEvent, ...] = ()
    fault: str | None = None
    fault_reason: str = "bad_record"

    def values(self) -> tuple[Any, ...]:
        """What is listed, as `LISTED` names it."""
        values: tuple[Any, ...] = _values(self)
        return values

    def texts(self) -> list[tuple[str, str]]:
        """Each text that is listed, after the name of what it says."""
        named = zip(LISTED, self.values(), strict=True)
        found = [(name, value) for name, value in named if isinstance(value, str)]
        found += [("captions", caption) for caption in self.captions]
        return found + [("events", event.label) for event in self.events]


LISTED = tuple(field.name for field in fields(Listing))
# Of hundreds of thousands, asking for each by its name takes several times as long.
_values = attrgetter(*LISTED)
