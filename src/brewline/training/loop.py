"""The training loop, one for every task and variant (BrewCLIP, section 4).

A run is a function of its data, parameters and seed. It writes its state into a work folder, so
that a run that is killed at any moment and started again ends in the same bytes on a processor
(with the same number of threads and processes) as one that is left alone.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from brewline.config.recipes import RecipeParams
from brewline.config.runtime import RuntimeParams
from brewline.core.devices import autocast, choose_device, choose_dtype
from brewline.core.errors import BrewlineError
from brewline.core.files import write_json
from brewline.core.ranks import ALONE, Ranks
from brewline.core.system import keep_freed_memory
from brewline.models.folder import Row, Trained
from brewline.models.layers import layers_run
from brewline.models.trained import TrainedModule
from brewline.samples.iteration import prefetch
from brewline.samples.shards import read_split
from brewline.samples.training_reader import TrainingReader
from brewline.samples.utterance import Utterance
from brewline.training.checkpoint import CHECKPOINT_FILE, Checkpoints, Progress, load_checkpoint
from brewline.training.good_samples import NOTES_FILE, GoodSamples, SkippedSamples
from brewline.training.schedule import INITIAL, learning_rate, seed_step
from brewline.training.speed import SpeedMeter
from brewline.training.step import Step, as_numbers, count_flops
from brewline.training.stopping import stopped_softly
from brewline.training.task import Task

# A row for every step of a long run would only slow down whoever reads it.
_MAX_TRAINING_ROWS = 1000
# What a batch held whose loss was no number.
NON_FINITE_FILE = "non_finite_batch.json"
_OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Where utterances come from.

    `read_training` gives, for a seed, those from one number (inclusive) to another (exclusive) of
    its endless order; `read_split` those of a split; `read_without_states` the same, without their
    encoder states, which may be a hundred times as large as all the rest, and without those that
    cannot be read: `read_training` says so of each.
    """

    read_training: Callable[[int, int, int], list[Utterance]]
    read_split: Callable[[str], Iterable[Utterance]]
    read_without_states: Callable[[str], Iterable[Utterance]]

    @classmethod
    def from_shards(cls, shards_dir: Path, states_dir: Path | None) -> "TrainingData":
        """Reads the shards of a corpus; `states_dir` is for variants with an acoustic channel."""
        return cls(
            TrainingReader(shards_dir, states_dir).read,
            lambda split: read_split(shards_dir, split, states_dir),
            lambda split: read_split(shards_dir, split, on_bad=lambda _: None),
        )


@dataclass(frozen=True)
class TrainingJob:
    """What is to be trained, how, and from which seed; `start` are tensors of another model."""

    task: Task[Any]
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
    ranks: Ranks = ALONE,
) -> Trained:
    """Trains one model from one seed, or goes on with what `work_dir` holds.

    It draws from torch's global generator, which it seeds anew for every step.

    Args:
        job: What to train.
        data: Where utterances come from.
        work_dir: Holds the checkpoint; named by whatever determines the result.
        runtime: How often to save a checkpoint, where to train, and in parts of which size.
        on_row: Called with every training and dev row as it is made, and with rows of speed, which
            the history does not keep. After a restart, rows since the last checkpoint come again:
            the same ones, or on a GPU or by another number of processes, other ones.
        progress_bar: Whether to show one on stderr; None shows it on a terminal alone.
        ranks: The processes that share each batch; the first one measures, writes and tells.

    Raises:
        BrewlineError: the data lack what the task needs, or the loss is no longer a number.
        KeyboardInterrupt: Ctrl-C, after a checkpoint.
        ValueError: the batch cannot be shared equally.
    """
    # Every step and every batch asks for the same large tensors again.
    keep_freed_memory()
    run = _Run(job, data, work_dir, runtime, on_row, ranks)
    steps = job.recipe.steps
    batches = prefetch(run.make_parts)
    hidden = True if not ranks.is_first else None if progress_bar is None else not progress_bar
    try:
        with (
            stopped_softly(patient=not ranks.is_first) as request,
            tqdm(total=steps, initial=run.progress.step, disable=hidden, unit="step") as bar,
        ):
            while run.progress.step < steps:
                with run.speed.waiting():
                    parts = next(batches)
                run.advance(parts)
                bar.update()
                if request.number is not None:
                    run.keep()
                    request.follow()
    finally:
        batches.close()  # type: ignore[attr-defined]
    run.keep()
    return run.result()


class _Run:
    """A model in training with everything that goes with it."""

    def __init__(
        self,
        job: TrainingJob,
        data: TrainingData,
        work_dir: Path,
        runtime: RuntimeParams,
        on_row: Callable[[Row], None] | None,
        ranks: Ranks,
    ) -> None:
        self._job, self._data, self._on_row, self._ranks = job, data, on_row, ranks
        self._task, self._recipe = job.task, job.recipe
        self._work_dir = work_dir
        self._share = ranks.share(job.recipe.batch_size)
        self._part_size = runtime.train_part_size or job.recipe.batch_size
        self._checkpoints = Checkpoints(work_dir / CHECKPOINT_FILE, runtime.checkpoint_every_s)
        self._device = choose_device(runtime.device)
        self._dtype = choose_dtype(job.recipe.precision, self._device)
        saved = load_checkpoint(work_dir / CHECKPOINT_FILE)
        self.progress: Progress = saved["progress"] if saved else Progress()
        self._next_batch = self.progress.step
        self.skipped = SkippedSamples(work_dir / NOTES_FILE, runtime.max_skipped_samples)
        self._samples = GoodSamples(data.read_training, job.seed, self.skipped)
        (sample,) = self._samples.batch(0, 1, list)
        # A corpus without a dev split is told before the first step, not when dev is looked at.
        next(iter(data.read_split("dev")))
        self._model = self._make_model(sample)
        trained = self._model.trained_parameters()
        self._parameters = list(trained.values())
        by_rate: dict[float, list[Tensor]] = {}
        for name, parameter in trained.items():
            by_rate.setdefault(self._model.rate_of(name), []).append(parameter)
        self._rates = list(by_rate)
        self._optimiser = _OPTIMISERS[job.recipe.optimiser](
            [{"params": parameters} for parameters in by_rate.values()],
            weight_decay=job.recipe.weight_decay,
            fused=True,
        )
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._dtype == torch.float16)
        if saved:
            self._model.load_trained_tensors(saved["tensors"])
            self._optimiser.load_state_dict(saved["optimiser"])
            self._scaler.load_state_dict(saved["scaler"])
            self._task.memory.update(saved["memory"])
        running = partial(layers_run, runtime.train_recompute, runtime.train_compile)
        self._step = Step(self._task, self._model, self._dtype, self._scaler, ranks, running)
        # On the device, so that no step waits for it.
        self._bad_step = torch.full((), job.recipe.steps, device=self._device)
        self.speed = SpeedMeter(self._device, job.recipe.batch_size)
        _log.info(
            "training on %s in %s with %d processes of %d threads, from step %d",
            self._device,
            self._dtype,
            ranks.count,
            torch.get_num_threads(),
            self.progress.step,
        )

    def _make_model(self, sample: Utterance) -> TrainedModule:
        seed_step(self._job.seed, INITIAL)
        model = self._task.make_model(sample).to(self._device)
        if self._job.start is not None:
            model.start_from(dict(self._job.start))
        self._task.begin(model, lambda: self._data.read_without_states("train"))
        if self._dtype != torch.float32:
            model.keep_frozen_in(self._dtype)
        return model

    def make_parts(self) -> list[Any]:
        """This process's rows of the next batch, in parts; runs in another thread."""
        if self._next_batch == self._recipe.steps:
            # What is made ahead of the end is never asked for, and would be counted if it is bad.
            return []
        first = self._next_batch * self._recipe.batch_size
        stop = first + self._share.stop
        self._next_batch += 1
        parts = [
            self._samples.batch(start, min(start + self._part_size, stop), self._task.collate)
            for start in range(first + self._share.start, stop, self._part_size)
        ]
        return [part.pin() for part in parts] if self._device.type == "cuda" else parts

    def _ids(self, utterances: Sequence[Utterance]) -> list[str]:
        """Of those that make a batch."""
        self._task.collate(utterances)
        return [utterance.utterance_id for utterance in utterances]

    def advance(self, parts: Sequence[Any]) -> None:
        """Does one update, and what is due after it: a row, a look at dev, a checkpoint."""
        recipe, progress = self._recipe, self.progress
        parts = [part.to(self._device) for part in parts]
        if self.speed.wants_flops:
            with autocast(self._dtype, self._device):
                flops = count_flops(self._task, self._model, parts[0], self._ranks)
            self.speed.set_flops(flops * len(parts))
        row = self._update(parts)
        progress.step += 1
        at_end = progress.step == recipe.steps
        row_every = max(1, recipe.steps // _MAX_TRAINING_ROWS)
        if progress.step % row_every == 0 or at_end:
            self._record({"step": progress.step, **as_numbers(row, self._ranks)})
            self._require_finite()
        if (progress.step % recipe.evaluate_every == 0 or at_end) and self._ranks.is_first:
            skipped = {"skipped_samples": len(self.skipped.read())}
            self._tell({"step": progress.step, **self.speed.row(), **skipped})
            self._look_at_dev()
            self.speed.start()
        if self._checkpoints.is_due:
            self._save_checkpoint()

    def keep(self) -> None:
        """Saves what was reached, and returns once it is written."""
        self._save_checkpoint()
        self._checkpoints.wait()

    def result(self) -> Trained:
        """The model as it was at its best on dev; without meaning but in the first process."""
        progress = self.progress
        model = self._model.eval().to("cpu")
        if progress.best_tensors:
            model.load_trained_tensors(progress.best_tensors)
        skipped = self.skipped.read()
        if skipped:
            _log.warning("%d samples were skipped: %s", len(skipped), ", ".join(sorted(skipped)))
        return Trained(model, progress.best_step, progress.best_dev, progress.history, skipped)

    def _update(self, parts: Sequence[Any]) -> dict[str, Tensor | float]:
        step = self.progress.step
        rate = learning_rate(step, self._recipe)
        for group, part in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = part * rate
        self._model.train()
        loss = self._step(parts, self._job.seed, step)
        self._scaler.unscale_(self._optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._recipe.grad_clip)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._model.after_update()
        total, so_far = loss.total.detach(), self._bad_step
        is_finite = total.isfinite()
        if not self._scaler.is_enabled():
            # The same in all processes. In fp16 some overflow, and their step is left out.
            is_finite &= norm.isfinite()
        self._bad_step = torch.where(is_finite, so_far, so_far.clamp(max=step))
        return {"loss": total, **loss.row, "learning_rate": rate, "grad_norm": norm}

    def _require_finite(self) -> None:
        """Looks whether loss and gradient were numbers in all steps so far.

        Raises:
            BrewlineError: it was not; what the batch held stands in a file.
        """
        step = int(self._bad_step)
        if step == self._recipe.steps:
            return
        size = self._recipe.batch_size
        ids = self._samples.batch(step * size, (step + 1) * size, self._ids)
        path = self._work_dir / NON_FINITE_FILE
        write_json(path, {"step": step + 1, "utterance_ids": ids})
        raise BrewlineError(
            f"the loss or its gradient is no number at step {step + 1}; lower the recipe's "
            f"learning_rate, or look at the utterances of that batch, which {path} names",
            "settings",
        )

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
        self._tell(row)

    def _tell(self, row: Row) -> None:
        if self._on_row is not None and self._ranks.is_first:
            self._on_row(row)

    def _save_checkpoint(self) -> None:
        if self._ranks.is_first:
            # Whoever went on from parameters that are no numbers would blame another batch.
            self._require_finite()
            self._checkpoints.save(
                self.progress,
                tensors=self._model.trained_tensors(),
                optimiser=self._optimiser.state_dict(),
                scaler=self._scaler.state_dict(),
                memory=dict(self._task.memory),
            )
