"""The training loop, one for every task and variant (BrewCLIP, section 4).

A run is a function of its data, parameters and seed. It writes its state into a work folder, so
that a run that is killed at any moment and started again ends in the same bytes on a processor
(with the same number of threads) as one that is left alone.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from brewline.config.recipes import RecipeParams
from brewline.config.runtime import RuntimeParams
from brewline.core.devices import autocast, choose_device, choose_dtype
from brewline.core.errors import BrewlineError
from brewline.models.folder import Row, Trained
from brewline.samples.iteration import prefetch
from brewline.samples.shards import Position, Utterance, read_split, read_training
from brewline.training.checkpoint import CHECKPOINT_FILE, Progress, load_checkpoint, save_checkpoint
from brewline.training.schedule import INITIAL, learning_rate, seed_step
from brewline.training.task import Task

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
    """What is to be trained, how, and from which seed; `start` are tensors of another model."""

    task: Task[Any, Any]
    recipe: RecipeParams
    seed: int
    start: Mapping[str, Tensor] | None = None


def train(
    job: TrainingJob,
    data: TrainingData,
    work_dir: Path,
    runtime: RuntimeParams,
    on_row: Callable[[Row], None] | None = None,
    progress_bar: bool | None = None,
) -> Trained:
    """Trains one model from one seed, or goes on with what `work_dir` holds.

    It draws from torch's global generator, which it seeds anew for every step.

    Args:
        job: What to train.
        data: Where utterances come from.
        work_dir: Holds the checkpoint; named by whatever determines the result.
        runtime: How often to save a checkpoint, and where to train.
        on_row: Called with every training and dev row as it is made. After a restart, rows since
            the last checkpoint come again.
        progress_bar: Whether to show one on stderr; None shows it on a terminal alone.

    Raises:
        BrewlineError: the data lack what the task needs, or the loss is no longer a number.
    """
    run = _Run(job, data, work_dir / CHECKPOINT_FILE, runtime, on_row)
    steps = job.recipe.steps
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
        data: TrainingData,
        checkpoint: Path,
        runtime: RuntimeParams,
        on_row: Callable[[Row], None] | None,
    ) -> None:
        self._job = job
        self._task = job.task
        self._recipe = job.recipe
        self._checkpoint_every = runtime.checkpoint_every
        self._data = data
        self._checkpoint = checkpoint
        self._on_row = on_row
        self._device = choose_device(runtime.device)
        self._dtype = choose_dtype(job.recipe.precision, self._device)
        saved = load_checkpoint(checkpoint)
        self.progress: Progress = saved["progress"] if saved else Progress()
        stream = data.read_training(job.seed, self.progress.position)
        first = next(stream)
        # A corpus without a dev split is told before the first step, not when dev is looked at.
        next(iter(data.read_split("dev")))
        self._stream = itertools.chain([first], stream)
        seed_step(job.seed, INITIAL)
        self._model = self._task.make_model(first[0]).to(self._device)
        if job.start is not None:
            self._model.start_from(dict(job.start))
        self._task.begin(self._model, lambda: data.read_split("train"))
        self._parameters = list(self._model.trained_parameters().values())
        self._optimiser = torch.optim.Adam(
            self._parameters, weight_decay=job.recipe.weight_decay, fused=True
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

    def make_batch(self) -> tuple[Any, Position]:
        """The next batch, and where the reader stands after it; runs in another thread."""
        pairs = list(itertools.islice(self._stream, self._recipe.batch_size))
        return self._task.collate([utterance for utterance, _ in pairs]), pairs[-1][1]

    def advance(self, batch: Any, position: Position) -> None:
        """Does one update, and what is due after it: a row, a look at dev, a checkpoint."""
        recipe, progress = self._recipe, self.progress
        row = self._update(batch.to(self._device), progress.step)
        progress.step += 1
        progress.position = position
        at_end = progress.step == recipe.steps
        row_every = max(1, recipe.steps // _MAX_TRAINING_ROWS)
        if progress.step % row_every == 0 or at_end:
            self._record(_numbers(row, progress.step))
        if progress.step % recipe.evaluate_every == 0 or at_end:
            self._look_at_dev()
        if progress.step % self._checkpoint_every == 0 or at_end:
            self._save_checkpoint()

    def result(self) -> Trained:
        """The model as it was at its best on dev."""
        progress = self.progress
        model = self._model.to("cpu").eval()
        model.load_trained_tensors(progress.best_tensors)
        return Trained(model, progress.best_step, progress.best_dev, progress.history)

    def _update(self, batch: Any, step: int) -> Row:
        seed_step(self._job.seed, step)
        rate = learning_rate(step, self._recipe)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._model.train()
        with autocast(self._dtype, self._device):
            outputs = self._task.forward(self._model, batch)
        loss = self._task.loss(self._model, batch, outputs)
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss.total).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._recipe.grad_clip)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._model.after_update()
        return {"loss": loss.total, **loss.row, "learning_rate": rate, "grad_norm": norm}

    def _look_at_dev(self) -> None:
        progress, metric = self.progress, self._task.selection_metric
        self._model.eval()
        metrics = self._task.measure(self._model, self._data.read_split("dev"), "dev")
        self._record({"step": progress.step, **metrics})
        # Of equals the earlier one stays.
        if metrics[metric] > progress.best_score:
            progress.best_score = metrics[metric]
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


def _numbers(row: Row, step: int) -> Row:
    """Plain numbers for a row of tensors; waits for the device, so only for rows that are kept."""
    numbers = {
        name: value.item() if isinstance(value, Tensor) else value for name, value in row.items()
    }
    if not np.isfinite(numbers["loss"]):
        raise BrewlineError(
            f"the loss is {numbers['loss']} at step {step}; lower the recipe's learning_rate",
            "settings",
        )
    return {"step": step, **numbers}
