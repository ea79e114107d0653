"""Sections `runtime` and `tracking`, which make no result stale."""

from typing import Annotated, Literal

from pydantic import Field

from brewline.config.types import Fraction, PositiveFloat, PositiveInt, Section
from brewline.core.compute import DeviceName, EngineName
from brewline.core.system import has_gpu


class RuntimeParams(Section):
    """How the machine is used, and what a run may cost.

    Nothing here changes what is computed, and no stage that computes depends on it. `train_workers`
    changes how many threads compute it, and so, on a processor, the last digits of a sum;
    `train_processes` and `train_part_size` change which numbers dropout draws, and `train_compile`
    and `evaluate_tf32` how numbers are rounded.
    """

    # Stages of flows that use the machine at the same time; auto: one on a machine with a GPU,
    # which some fill, and two elsewhere.
    parallel_stages: PositiveInt | Literal["auto"]
    # What does the units of inspect, transcribe and shard: this machine, or a Ray cluster.
    engine: EngineName
    # Of the cluster, as head:6379; auto: that which this machine is part of; local: one is started
    # here.
    ray_address: str
    # Where models run; auto: a CUDA device where there is one, else the processor.
    device: DeviceName
    # Files that are downloaded at a time.
    download_workers: PositiveInt
    inspect_workers: PositiveInt
    # A file that takes a decoder longer than this is given up.
    inspect_decode_limit_s: PositiveFloat
    # Processes that recognise speech, where there is no GPU.
    transcribe_workers: PositiveInt
    # Processes that pack shards.
    shard_workers: PositiveInt
    # A batch of recordings that takes longer is split; a recording alone is given up.
    transcribe_batch_limit_s: PositiveFloat
    # Above this share of recordings that could not be recognised, transcription stops.
    max_transcription_failure_rate: Fraction
    # Processes that train a seed each, where there is no GPU.
    train_workers: PositiveInt
    # Processes that share each batch of a training; auto: one for each GPU, and one elsewhere.
    train_processes: PositiveInt | Literal["auto"]
    # Utterances that a process takes through a model at a time, which bounds the memory of a batch
    # of any size; null: its whole share. Gradients are the same, for a second forward pass.
    train_part_size: PositiveInt | None
    # Whether the layers of frozen towers keep for gradients what they take alone, and are computed
    # again on the way back: a fraction of the memory, for a part of a second forward pass.
    train_recompute: bool
    # Whether torch.compile compiles these layers: minutes at the start, for shorter steps on a GPU.
    train_compile: bool
    # Whether a GPU may round what fp32 products take to 10 bits where stage embed makes vectors.
    evaluate_tf32: bool
    # How many samples a training leaves out that it cannot read; with more it ends.
    max_skipped_samples: Annotated[int, Field(ge=0)]
    # Seconds between checkpoints of a training: what a killed run has to do again at most.
    checkpoint_every_s: Annotated[float, Field(ge=0)]
    # Utterances, and images, that are embedded at a time.
    embed_batch_size: PositiveInt
    # Decoded pictures that are kept of a corpus, in a file under `work/` which all processes of a
    # machine share; the system has in memory what it has room for.
    image_cache_mb: Annotated[int, Field(ge=0)]

    @property
    def num_recognisers(self) -> int:
        """Processes that run an encoder: one on Apple's GPU, which they would share."""
        return 1 if self.device == "mps" else self.transcribe_workers

    @property
    def num_parallel_stages(self) -> int:
        """`parallel_stages` on this machine."""
        if self.parallel_stages != "auto":
            return self.parallel_stages
        return 1 if self.device != "cpu" and has_gpu() else 2


class TrackingParams(Section):
    """MLflow."""

    experiment: str
    system_metrics: bool
    # Whether the best model of a run with overrides, or of `dvc exp run --temp`, becomes a version
    # too, which may become the challenger.
    register_experiments: bool
