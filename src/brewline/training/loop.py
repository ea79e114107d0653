"""The training loop, one for every variant (BrewCLIP, section 4).

A run is a function of its data, parameters and seed. It writes its state into a work folder, so
that a run that is killed at any moment and started again ends in the same bytes on a processor
(with the same number of threads) as one that is left alone.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from brewline.config.models import AcousticParams, VariantParams
from brewline.config.runtime import RuntimeParams
from brewline.config.train import TrainParams
from brewline.core.devices import autocast, choose_device, choose_dtype
from brewline.core.errors import BrewlineError
from brewline.evaluation.embedding import embed_split
from brewline.evaluation.scores import SELECTION_METRIC, score_retrieval
from brewline.models.backbones import ClipBackbone
from brewline.models.brewclip import BrewClip
from brewline.models.folder import Row, Trained
from brewline.models.inputs import Batch
from brewline.models.losses import Losses, brewclip_loss
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator
from brewline.samples.iteration import prefetch
from brewline.samples.shards import Position, Utterance, read_split, read_training
from brewline.training.checkpoint import CHECKPOINT_FILE, Progress, load_checkpoint, save_checkpoint
from brewline.training.frozen import frozen_features
from brewline.training.schedule import INITIAL, learning_rate, seed_step

# Selection on dev reads recall@1; the other two are the paper's.
DEV_RECALL_AT = (1, 5, 10)

# A row for every step of a long run would only slow down whoever reads it.
_MAX_TRAINING_ROWS = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Where utterances come from; see `shards.read_training` and `shards.read_split`."""

    read_training: Callable[[int, Position], Iterator[tuple[Utterance, Position]]]
    read_split: Callable[[str], Iterable[Utterance]]

    @classmethod
    def from_shards(cls, shards_dir: Path, states_dir: Path | None) -> "TrainingData":
        """Reads the shards of a corpus; `states_dir` is for variants with an acoustic channel."""
        return cls(
            lambda seed, start: read_training(shards_dir, states_dir, seed, start),
            lambda split: read_split(shards_dir, split, states_dir),
        )


@dataclass(frozen=True)
class TrainingJob:
    """What is to be trained: a variant, how, and from which seed."""

    switches: VariantParams
    acoustic: AcousticParams | None
    settings: TrainParams
    seed: int


def train(
    job: TrainingJob,
    backbone: ClipBackbone,
    data: TrainingData,
    work_dir: Path,
    runtime: RuntimeParams,
    on_row: Callable[[Row], None] | None = None,
    progress_bar: bool | None = None,
) -> Trained:
    """Trains one variant from one seed, or goes on with what `work_dir` holds.

    It draws from torch's global generator, which it seeds anew for every step.

    Args:
        job: What to train.
        backbone: The frozen CLIP; moved to the GPU if there is one.
        data: Where utterances come from.
        work_dir: Holds the checkpoint; named by whatever determines the result.
        runtime: How often to save a checkpoint, and the memory for images.
        on_row: Called with every training and dev row as it is made. After a restart, rows since
            the last checkpoint come again.
        progress_bar: Whether to show one on stderr; None shows it on a terminal alone.

    Raises:
        BrewlineError: the data lack what the variant needs, or the loss is no longer a number.
    """
    run = _Run(job, backbone, data, work_dir / CHECKPOINT_FILE, runtime, on_row)
    steps = job.settings.steps
    batches = prefetch(run.make_batch)
    hidden = None if progress_bar is None else not progress_bar
    with tqdm(total=steps, initial=run.progress.step, disable=hidden, unit="step") as bar:
        while run.progress.step < steps:
            batch, position = next(batches)
            run.advance(batch, position)
            bar.update()
    batches.close()  # type: ignore[attr-defined]
    return run.result()


class _Run:
    """A model in training with everything that goes with it."""

    def __init__(
        self,
        job: TrainingJob,
        backbone: ClipBackbone,
        data: TrainingData,
        checkpoint: Path,
        runtime: RuntimeParams,
        on_row: Callable[[Row], None] | None,
    ) -> None:
        self._job = job
        self._settings = job.settings
        self._checkpoint_every = runtime.checkpoint_every
        self._data = data
        self._checkpoint = checkpoint
        self._on_row = on_row
        self._device = choose_device(runtime.device)
        self._dtype = choose_dtype(job.settings.precision, self._device)
        saved = load_checkpoint(checkpoint)
        self.progress: Progress = saved["progress"] if saved else Progress()
        stream = data.read_training(job.seed, self.progress.position)
        first = next(stream)
        # A corpus without a dev split is told before the first step, not when dev is looked at.
        next(iter(data.read_split("dev")))
        self._stream = itertools.chain([first], stream)
        self._model = _make_model(job, backbone, first[0]).to(self._device)
        transforms = input_transforms(backbone, job.switches, job.acoustic)
        self._collator = Collator(transforms, job.switches, runtime.image_cache_mb)
        self._train_collator = self._collator
        if not job.switches.prompts:
            frozen = frozen_features(
                self._model, self._collator, data.read_split("train"), job.settings.batch_size
            )
            self._train_collator = Collator(transforms, job.switches, 0, frozen)
        self._parameters = list(self._model.trained_parameters().values())
        self._optimiser = torch.optim.Adam(
            self._parameters, weight_decay=job.settings.weight_decay, fused=True
        )
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._dtype == torch.float16)
        if saved:
            self._model.load_trained_tensors(saved["tensors"])
            self._optimiser.load_state_dict(saved["optimiser"])
            self._scaler.load_state_dict(saved["scaler"])
        _log.info(
            "training on %s in %s with %d threads, from step %d",
            self._device,
            self._dtype,
            torch.get_num_threads(),
            self.progress.step,
        )

    def make_batch(self) -> tuple[Batch, Position]:
        """The next batch, and where the reader stands after it; runs in another thread."""
        pairs = list(itertools.islice(self._stream, self._settings.batch_size))
        return self._train_collator.collate([utterance for utterance, _ in pairs]), pairs[-1][1]

    def advance(self, batch: Batch, position: Position) -> None:
        """Does one update, and what is due after it: a row, a look at dev, a checkpoint."""
        settings, progress = self._settings, self.progress
        row = self._update(batch.to(self._device), progress.step)
        progress.step += 1
        progress.position = position
        at_end = progress.step == settings.steps
        row_every = max(1, settings.steps // _MAX_TRAINING_ROWS)
        if progress.step % row_every == 0 or at_end:
            self._record(_numbers(row, progress.step))
        if progress.step % settings.evaluate_every == 0 or at_end:
            self._look_at_dev()
        if progress.step % self._checkpoint_every == 0 or at_end:
            self._save_checkpoint()

    def result(self) -> Trained:
        """The model as it was at its best on dev."""
        progress = self.progress
        model = self._model.to("cpu").eval()
        model.load_trained_tensors(progress.best_tensors)
        return Trained(model, progress.best_step, progress.best_dev, progress.history)

    def _update(self, batch: Batch, step: int) -> Row:
        settings = self._settings
        seed_step(self._job.seed, step)
        rate = learning_rate(step, settings)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._model.train()
        with autocast(self._dtype, self._device):
            features = self._model.encode_utterances(batch.utterances)
            images = batch.image_embeddings
            if images is None:
                assert batch.pixels is not None
                images = self._model.encode_images(batch.pixels)
        both = None
        if features.acoustic is not None and features.text is not None:
            both = (features.acoustic, features.text)
        scale = self._model.logit_scale
        losses = brewclip_loss(
            features.embeddings,
            images[batch.image_index],
            both,
            scale,
            settings.alpha,
            batch.image_index if settings.mask_same_image else None,
        )
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(losses.total).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, settings.grad_clip)
        row = _training_row(losses, features.text, features.acoustic)
        row |= {"learning_rate": rate, "logit_scale": scale.detach().clone(), "grad_norm": norm}
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._model.clamp_logit_scale()
        return row

    def _look_at_dev(self) -> None:
        progress = self.progress
        self._model.eval()
        embeddings = embed_split(
            self._model, self._collator, self._data.read_split("dev"), self._settings.batch_size
        )
        metrics = score_retrieval(embeddings, "dev", DEV_RECALL_AT).metrics
        self._record({"step": progress.step, **metrics})
        # Of equals the earlier one stays.
        if metrics[SELECTION_METRIC] > progress.best_score:
            progress.best_score = metrics[SELECTION_METRIC]
            progress.best_step = progress.step
            progress.best_dev = metrics
            progress.best_tensors = self._model.trained_tensors()

    def _record(self, row: Row) -> None:
        self.progress.history.append(row)
        if self._on_row is not None:
            self._on_row(row)

    def _save_checkpoint(self) -> None:
        save_checkpoint(
            self._checkpoint,
            self.progress,
            tensors=self._model.trained_tensors(),
            optimiser=self._optimiser.state_dict(),
            scaler=self._scaler.state_dict(),
        )


def _make_model(job: TrainingJob, backbone: ClipBackbone, sample: Utterance) -> BrewClip:
    """A new model with the parameters that `job.seed` gives."""
    state_width = None
    if job.switches.acoustic:
        if sample.states is None:
            raise BrewlineError("a variant with an acoustic channel needs encoder states")
        state_width = sample.states.shape[1]
    seed_step(job.seed, INITIAL)
    return BrewClip(
        backbone,
        job.switches,
        job.acoustic,
        state_width,
        job.settings.temperature,
        job.settings.learn_temperature,
    )


def _training_row(losses: Losses, text: Tensor | None, acoustic: Tensor | None) -> Row:
    row: Row = {"loss": losses.total, "outer_loss": losses.outer}
    if losses.inner is not None:
        row["inner_loss"] = losses.inner
    for name, features in (("text_norm", text), ("acoustic_norm", acoustic)):
        if features is not None:
            row[name] = features.detach().norm(dim=-1).mean()
    return row


def _numbers(row: Row, step: int) -> Row:
    """Plain numbers for a row of tensors; waits for the device, so only for rows that are kept."""
    numbers = {
        name: value.item() if isinstance(value, Tensor) else value for name, value in row.items()
    }
    if not np.isfinite(numbers["loss"]):
        raise BrewlineError(
            f"the loss is {numbers['loss']} at step {step}; lower train.learning_rate", "settings"
        )
    return {"step": step, **numbers}
