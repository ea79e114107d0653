"""Sections `runtime` and `tracking`, on which no stage depends."""

from typing import Annotated

from pydantic import Field

from brewline.config.types import PositiveInt, Section
from brewline.core.compute import DeviceName


class RuntimeParams(Section):
    """How the machine is used; no stage depends on it.

    Nothing here changes what is computed. `train_workers` changes how many threads compute it, and
    so, on a processor, the last digits of a sum.
    """

    # Where models run; auto: a CUDA device where there is one, else the processor.
    device: DeviceName
    # Files that are downloaded at a time.
    download_workers: PositiveInt
    validate_workers: PositiveInt
    # Processes that recognise speech, where there is no GPU.
    transcribe_workers: PositiveInt
    # Processes that train a seed each, where there is no GPU.
    train_workers: PositiveInt
    # Training steps between checkpoints: what a killed run has to do again at most.
    checkpoint_every: PositiveInt
    # Memory for decoded images during training and evaluation.
    image_cache_mb: Annotated[int, Field(ge=0)]


class TrackingParams(Section):
    """MLflow."""

    experiment: str
    system_metrics: bool
