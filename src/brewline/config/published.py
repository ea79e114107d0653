"""What others report: `published.yaml`, read strictly. Nothing in it is measured here."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from brewline.config.choices import suggest
from brewline.config.loading import parse, read_yaml
from brewline.config.probes import LabelSetName, ProtocolName
from brewline.config.sources import READER_OPTIONS, SourceParams
from brewline.config.types import Name, PositiveInt, Section
from brewline.core.errors import BrewlineError

PUBLISHED_FILE = Path("published.yaml")

# As printed.
Percent = Annotated[float, Field(ge=0, le=100)]
Text = Annotated[str, Field(min_length=1)]


class OfCorpora(Section):
    """What numbers are published of: the corpora of a reader, with the options that are named."""

    # One of `READER_OPTIONS`.
    reader: str
    # The values that options of a source may have: another split, or release, is something else.
    options: dict[str, list[str | None]] = Field(default_factory=dict)

    def fits(self, source: SourceParams) -> bool:
        """Whether a corpus is the one that the numbers are of; a generated one never is."""
        same = all(getattr(source, key) in known for key, known in self.options.items())
        return source.reader == self.reader and not source.synthetic and same


class Gallery(OfCorpora):
    """What is searched in, and with what."""

    split: Text
    images: PositiveInt
    # Or captions, where captions are read.
    recordings: PositiveInt


class PublishedRetrieval(Section):
    """Recall of a system, in per cent by K; from image to speech any of a picture's recordings."""

    system: Text
    # One of `galleries`.
    gallery: Name
    # What stands for the recording.
    reads: Literal["speech", "transcripts", "speech and transcripts", "captions"]
    # One of `galleries`: what table 5 says that the models were trained on.
    trained_on: Name | None = None
    # By what the checkpoint was chosen: the test itself, or nothing, where nothing was trained.
    chosen: Literal["test", "nothing", "unknown"]
    source: Text
    # The tables across corpora (BrewCLIP's numbers) that show it.
    tables: Annotated[list[Literal[1, 2, 4, 5]], Field(min_length=1)]
    speech_to_image: dict[PositiveInt, Percent]
    image_to_speech: dict[PositiveInt, Percent] = Field(default_factory=dict)


class PublishedSound(OfCorpora):
    """Recall of a system between sounds and captions, in per cent by K; any caption of a clip."""

    system: Text
    # Which clips, where that is known: there are several copies of one test split.
    of: Text | None = None
    # What it learned from: pictures (and so zero-shot), language, or captions of sounds.
    saw: Literal["pictures", "language", "captions"]
    source: Text
    audio_to_text: dict[PositiveInt, Percent] = Field(default_factory=dict)
    text_to_audio: dict[PositiveInt, Percent] = Field(default_factory=dict)


class PublishedEmotion(Section):
    """Accuracy of a system on RAVDESS, in per cent."""

    system: Text
    protocol: ProtocolName
    labels: LabelSetName
    accuracy: Percent
    source: Text


class Published(Section):
    """Everything in `published.yaml`."""

    galleries: dict[Name, Gallery]
    retrieval: list[PublishedRetrieval]
    sounds: list[PublishedSound]
    emotion: list[PublishedEmotion]

    def galleries_of(self, source: SourceParams) -> list[str]:
        """The galleries that a corpus may be compared with; none of a generated one."""
        return [name for name, one in self.galleries.items() if one.fits(source)]

    def sounds_of(self, source: SourceParams) -> list[PublishedSound]:
        """What is published of a corpus of sounds; of a generated one nothing is."""
        return [one for one in self.sounds if one.fits(source)]

    def emotion_of(self, source: SourceParams) -> list[PublishedEmotion]:
        """What is published of a corpus; of anything but RAVDESS nothing is."""
        return self.emotion if source.reader == "ravdess" and not source.synthetic else []


def load_published(path: Path = PUBLISHED_FILE) -> Published:
    """Reads and checks `published.yaml`.

    Raises:
        BrewlineError: naming every bad key with its value and the choices.
    """
    return parse_published(read_yaml(path), str(path))


def parse_published(values: Any, where: str = "published.yaml") -> Published:
    """Checks values as read from YAML; see `load_published`."""
    found = parse(Published, values, where)
    known = ", ".join(found.galleries)
    for number, one in enumerate(found.retrieval):
        for key, name in (("gallery", one.gallery), ("trained_on", one.trained_on)):
            if name is not None and name not in found.galleries:
                raise BrewlineError(
                    f"{where}: retrieval.{number}.{key}: {name!r} is none of galleries: {known}",
                    "settings",
                )
    of_corpora: dict[str, OfCorpora] = {f"galleries.{k}": v for k, v in found.galleries.items()}
    of_corpora |= {f"sounds.{number}": one for number, one in enumerate(found.sounds)}
    for name, one_of in of_corpora.items():
        if one_of.reader not in READER_OPTIONS:
            hint = suggest(one_of.reader, list(READER_OPTIONS))
            raise BrewlineError(
                f"{where}: {name}.reader: unknown reader {one_of.reader!r}{hint}", "settings"
            )
        taken = READER_OPTIONS[one_of.reader]
        unknown = [key for key in one_of.options if key not in taken]
        if unknown:
            raise BrewlineError(
                f"{where}: {name}.options: reader {one_of.reader!r} has no option {unknown[0]!r}",
                "settings",
            )
    return found
