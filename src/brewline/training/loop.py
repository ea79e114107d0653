"""The training loop, one for every variant (BrewCLIP, section 4; schedule from the authors' code).

A run is a function of its data, parameters and seed. It writes its state into a work folder, so
that a run that is killed at any moment and started again ends in the same bytes on a processor
(with the same number of threads) as one that is left alone.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from brewline.config.params import AcousticParams, RuntimeParams, TrainParams, VariantParams
from brewline.core.devices import autocast, choose_device, choose_dtype
from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path
from brewline.evaluation.embedding import SELECTION_METRIC, embed_split, measure
from brewline.models.backbones import ClipBackbone
from brewline.models.brewclip import BrewClip
from brewline.models.folder import Row, Trained
from brewline.models.losses import Losses, brewclip_loss
from brewline.samples.collator import (
    Batch,
    Collator,
    FrozenFeatures,
    chunks,
    image_id_of,
    in_background,
)
from brewline.samples.shards import Position, Utterance, read_split, read_training

CHECKPOINT_FILE = "checkpoint.pt"
# Selection on dev reads recall@1; the other two are the paper's.
DEV_RECALL_AT = (1, 5, 10)
# The schedule ends at this fraction of its peak: 1e-8 after 1e-4 in the authors' code.
_FINAL_FRACTION = 1e-4
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


@dataclass
class _Progress:
    """What a run has reached; `step` counts finished updates."""

    step: int = 0
    position: Position = field(default_factory=Position)
    best_step: int = 0
    best_score: float = -1.0
    best_dev: dict[str, float] = field(default_factory=dict)
    best_tensors: dict[str, Tensor] = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)


def learning_rate(step: int, settings: TrainParams) -> float:
    """The learning rate of update number `step`, from 0: up linearly, then down to almost 0."""
    peak = settings.learning_rate
    if step < settings.warmup_steps:
        return peak * (step + 1) / settings.warmup_steps
    done = (step + 1 - settings.warmup_steps) / (settings.steps - settings.warmup_steps)
    return peak * (1 - done * (1 - _FINAL_FRACTION))


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
    batches = in_background(run.make_batch)
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
        self._device = choose_device()
        self._dtype = choose_dtype(job.settings.precision, self._device)
        saved = _load_checkpoint(checkpoint)
        self.progress: _Progress = saved["progress"] if saved else _Progress()
        stream = data.read_training(job.seed, self.progress.position)
        first = next(stream)
        self._stream = itertools.chain([first], stream)
        self._model = _make_model(job, backbone, first[0]).to(self._device)
        self._collator = Collator(backbone, job.switches, job.acoustic, runtime.image_cache_mb)
        self._train_collator = self._collator
        if not job.switches.prompts:
            frozen = frozen_features(
                self._model, self._collator, data.read_split("train"), job.settings.batch_size
            )
            self._train_collator = Collator(backbone, job.switches, job.acoustic, 0, frozen)
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
        _seed(self._job.seed, step)
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
        metrics = measure(embeddings, "dev", DEV_RECALL_AT).metrics
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
        progress = self.progress
        content = {
            "progress": {**vars(progress), "position": vars(progress.position)},
            "tensors": self._model.trained_tensors(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
        }
        with atomic_path(self._checkpoint) as partial:
            torch.save(content, partial)


def _load_checkpoint(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    facts = saved["progress"]
    saved["progress"] = _Progress(**{**facts, "position": Position(**facts["position"])})
    return saved


def _make_model(job: TrainingJob, backbone: ClipBackbone, sample: Utterance) -> BrewClip:
    """A new model with the parameters that `job.seed` gives."""
    state_width = None
    if job.switches.acoustic:
        if sample.states is None:
            raise BrewlineError("a variant with an acoustic channel needs encoder states")
        state_width = sample.states.shape[1]
    _seed(job.seed, job.settings.steps)
    return BrewClip(
        backbone,
        job.switches,
        job.acoustic,
        state_width,
        job.settings.temperature,
        job.settings.learn_temperature,
    )


def _seed(seed: int, step: int) -> None:
    """Seeds torch for one step, so that dropout needs no state to be resumed.

    The initial parameters take the number after the last step.
    """
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))


@torch.no_grad()
def frozen_features(
    model: BrewClip, collator: Collator, utterances: Iterable[Utterance], batch_size: int
) -> FrozenFeatures:
    """Runs the towers that have no prompts over a split, once.

    The batches are those of the split's fixed order, so that a restart gets the same bits.

    Args:
        model: Without prompts.
        collator: Made for the same variant.
        utterances: The training split.
        batch_size: Utterances at a time.
    """
    device = model.log_logit_scale.device
    texts: dict[str, Tensor] = {}
    images: dict[str, Tensor] = {}
    for batch in chunks(iter(utterances), batch_size):
        if model.switches.text:
            token_ids = collator.utterance_inputs(batch).token_ids
            assert token_ids is not None
            features = model.encode_text(token_ids.to(device)).cpu()
            texts |= zip((u.utterance_id for u in batch), features.unbind(), strict=True)
        new = {image_id_of(u): u for u in batch if u.image_id not in images}
        if new:
            embeddings = model.encode_images(collator.pixels(list(new.values())).to(device)).cpu()
            images |= zip(new, embeddings.unbind(), strict=True)
    return FrozenFeatures(texts, images)


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
