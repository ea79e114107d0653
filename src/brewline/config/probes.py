"""Sections `probes` and `probed_corpora`: what a linear classifier hears in the vectors."""

from typing import Annotated, Literal

from pydantic import Field

from brewline.config.types import Name, Section, Seed

# Both are explained, with their sources, in `brewline.probing.ravdess`.
LabelSetName = Literal["paper4", "strict4", "all8"]
ProtocolName = Literal["paper", "emobox", "serab", "by_speaker"]


class ProbeParams(Section):
    """A linear classifier of emotions on the vectors of experiments, and on Whisper's layers."""

    # The corpus, which is among `probed_corpora`.
    data: Name
    # Experiments of task `emotion`, by the names that the results give them.
    rows: Annotated[dict[Name, Name], Field(min_length=1)]
    labels: Annotated[list[LabelSetName], Field(min_length=1)]
    # Which speakers are held out together; the first one is what the report shows first.
    protocols: Annotated[list[ProtocolName], Field(min_length=1)]
    # How many parts `by_speaker` cuts the speakers into.
    speaker_folds: Annotated[int, Field(ge=2)]
    # Each draws other speakers of training, on whom the strength of the penalty is chosen.
    seeds: Annotated[list[Seed], Field(min_length=1)]
