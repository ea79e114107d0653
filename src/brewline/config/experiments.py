"""Sections `experiments`, `encoded`, `external`, `tables`: which models, and how they compare."""

from typing import Annotated, Literal

from pydantic import Field

from brewline.config.probes import LabelSetName, ProtocolName
from brewline.config.types import Name, PositiveInt, Section
from brewline.config.variants import LayeredEncoderName

# What a model is for: what of it is embedded, and how that is measured. Those that can be learned
# are modules of `brewline.training.tasks`.
TaskName = Literal["retrieval", "emotion", "audio_image", "audio_text"]
VectorFile = Annotated[str, Field(pattern=r".\.(parquet|safetensors)$")]


class FineTuningParams(Section):
    """Which emotions an experiment of task `emotion` learns, and whom it is tested on.

    One model is trained for each fold of the protocol; see `ProbeParams`.
    """

    labels: LabelSetName
    protocol: ProtocolName
    speaker_folds: Annotated[int, Field(ge=2)]
    # Whether each recording of a batch is heard as it is, or with noise, slower or higher, each as
    # likely (BrewCLIP's code); its corpus is among `augmented_corpora`.
    augment: bool = False


def augmented_name(corpus: str) -> str:
    """What `states` of an experiment names whose recordings are changed in training."""
    return f"{corpus}-augmented"


class ExperimentParams(Section):
    """One model, of which `dvc repro` makes one per seed.

    What it is measured on is its `data`. Without a recipe nothing is trained: with `init` the
    models of another experiment are taken as they are, which is how a model is measured on data
    that it was not trained on; without, the towers are, which is zero-shot.
    """

    task: TaskName
    # The corpus.
    data: Name
    # Whose encoder states are read: those of `data`, or one of `encoded` where the variant hears
    # layers; `none` without an acoustic channel; with `fine_tuning.augment` `<data>-augmented`.
    states: Name
    variant: Name
    # One of `recipes`; `none` trains nothing.
    recipe: Name
    # The experiment whose models are the start, seed by seed; or `none`.
    init: Name
    # Of task `emotion` with a recipe.
    fine_tuning: FineTuningParams | None = None


# Those of clips of videos, whose variants have `sound`, and whose rows stand in `sound_tables`.
SOUND_TASKS = ("audio_image", "audio_text")


class EncodedParams(Section):
    """All layers of an encoder over the recordings of a corpus; stage `encode` keeps them."""

    # The corpus.
    data: Name
    encoder: LayeredEncoderName
    # Frames of the encoder, of which there are 50 a second, that are averaged into one.
    pool_frames: PositiveInt


class ExternalParams(Section):
    """Vectors that others computed of dev and test of a corpus; `brewline.evaluation.external`."""

    # The corpus, whose manifest has the ids.
    data: Name
    # Files, each with ids and a vector for each: Parquet or safetensors.
    utterances: VectorFile
    images: VectorFile
    # What stands for a recording: captions are no speech, and such a row is a ceiling.
    reads: Literal["speech", "captions"] = "speech"


class TableParams(Section):
    """Experiments that are measured together, on dev and test of one corpus."""

    data: Name
    # Experiments, or sets of `external`, by the names that the table gives them, in its order.
    rows: Annotated[dict[Name, Name], Field(min_length=1)]
    # The row that every other one is compared with.
    baseline: Name | None = None
    # Further pairs of rows: the first is compared with the second.
    compare: list[Annotated[list[Name], Field(min_length=2, max_length=2)]] = Field(
        default_factory=list
    )

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The comparisons: every row with the baseline, then the pairs of `compare`."""
        pairs = [(row, self.baseline) for row in self.rows if row != self.baseline]
        return [
            *((row, baseline) for row, baseline in pairs if baseline is not None),
            *((ours, theirs) for ours, theirs in self.compare),
        ]
