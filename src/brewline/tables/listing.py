"""What a corpus lists: one row per utterance, before anything of it is opened."""

from dataclasses import dataclass, fields
from operator import attrgetter

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class Listing:
    """One utterance as its corpus lists it; nothing of it has been opened yet.

    Paths are those in the store. `utterance_id` is unique in its corpus and becomes the shard key,
    so it consists of letters, digits, `_` and `-`. A line that is no record is listed too, with
    what is wrong with it as `fault`; what it does not say is empty then, its split also.
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
    fault: str | None = None

    def values(self) -> tuple[str | None, ...]:
        """What is listed, as `LISTED` names it."""
        values: tuple[str | None, ...] = _values(self)
        return values


LISTED = tuple(field.name for field in fields(Listing))
# Of hundreds of thousands, asking for each by its name takes several times as long.
_values = attrgetter(*LISTED)
