"""A second task, small, which has nothing in common with retrieval: the loop serves it as well."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import COLOURS, STATE_WIDTH, world_data
from torch import Tensor, nn

from brewline.config import load_params
from brewline.config.experiments import TaskName
from brewline.core.ranks import ALONE
from brewline.models.inputs import OnDevice
from brewline.models.trained import TrainedModule
from brewline.training import speed
from brewline.training.experiment import TASKS
from brewline.training.loop import TrainingJob, train
from brewline.training.step import count_flops
from brewline.training.task import StepLoss

METRIC = "dev/accuracy"


class Probe(TrainedModule):
    """Says which colour a recording is about, from the mean of its states."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(STATE_WIDTH, len(COLOURS))
        self.updates = 0

    def after_update(self) -> None:
        self.updates += 1


@dataclass(frozen=True)
class Sounds(OnDevice):
    """Mean states (B, S), and the number of the colour (B,)."""

    states: Tensor
    labels: Tensor


class Colour:
    """Learns by cross-entropy, is chosen by accuracy, and looks at no picture."""

    selection_metric = METRIC

    def __init__(self) -> None:
        self.seen_before = 0
        self.memory = {}

    def make_model(self, sample):
        assert sample.states.shape[1] == STATE_WIDTH
        return Probe()

    def begin(self, model, read_train):
        self.seen_before = len(list(read_train()))

    def collate(self, utterances):
        states = np.stack([one.states.astype(np.float32).mean(axis=0) for one in utterances])
        names = [one.caption.removeprefix("something ") for one in utterances]
        return Sounds(torch.from_numpy(states), torch.tensor(list(map(COLOURS.index, names))))

    def forward(self, model, batch):
        return {"logits": model.linear(batch.states), "labels": batch.labels}

    def loss(self, model, rows, ranks, step):
        logits, labels = rows["logits"].float(), rows["labels"]
        hits = (logits.argmax(dim=1) == labels).float().mean()
        return StepLoss(F.cross_entropy(logits, labels), {"hits": hits})

    @torch.no_grad()
    def measure(self, model, utterances, split):
        batch = self.collate(list(utterances))
        hits = model.linear(batch.states).argmax(dim=1) == batch.labels
        return {f"{split}/accuracy": float(hits.float().mean())}


@pytest.fixture
def run(recipe, tmp_path):
    def train_one(folder="work", on_row=None):
        (tmp_path / folder).mkdir(exist_ok=True)
        runtime = load_params().runtime.model_copy(
            update={"checkpoint_every_s": 0, "device": "cpu"}
        )
        chosen = recipe.model_copy(update={"steps": 30, "learning_rate": 0.1})
        task = Colour()
        trained = train(
            TrainingJob(task, chosen, 0), world_data(), tmp_path / folder, runtime, on_row
        )
        assert task.seen_before == 16
        return trained

    return train_one


def test_another_task_is_learned_and_chosen_by_its_own_metric(run):
    trained = run()
    assert trained.dev == {METRIC: 1.0}
    assert trained.model.num_trained_parameters == STATE_WIDTH * len(COLOURS) + len(COLOURS)
    assert trained.model.updates == 30
    rows = [row for row in trained.history if "loss" in row]
    assert set(rows[0]) == {"step", "loss", "hits", "learning_rate", "grad_norm"}
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert not any("recall" in name for row in trained.history for name in row)


def test_another_task_goes_on_after_a_kill(run):
    undisturbed = run("undisturbed")

    def stop(row):
        if row["step"] == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("killed", stop)
    again = run("killed")
    assert again.history == undisturbed.history
    ours, theirs = again.model.trained_tensors(), undisturbed.model.trained_tensors()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_operations_are_counted_by_hand():
    """A product of (16, S) and (S, K) forward, and one for the weights' gradient."""
    task = Colour()
    utterances = world_data().read_training(0, 0, 16)
    model = task.make_model(utterances[0])
    found = count_flops(task, model, task.collate(utterances), ALONE)
    assert found == 2 * (2 * 16 * STATE_WIDTH * len(COLOURS))
    assert all(one.grad is None for one in model.parameters())


def test_how_well_a_card_is_used(monkeypatch):
    """The operations of a step, by its time and by what the card's maker says it can do."""
    monkeypatch.setattr(speed, "_peak_flops", lambda device: 1e12)
    # Two steps from 1 to 5 s; each waits half a second.
    seconds = iter([0.0, 1.0, 1.0, 1.5, 3.0, 3.5, 5.0])
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=seconds.__next__))
    meter = speed.SpeedMeter(torch.device("cpu"), 32)
    assert meter.wants_flops
    meter.set_flops(5e11)
    assert not meter.wants_flops
    for _ in range(2):
        with meter.waiting():
            pass
    row = meter.row()
    assert row.pop("peak_memory_mb") > 0
    assert row == {
        "samples_per_second": 16,
        "step_s": 2,
        "data_wait": 0.25,
        "model_flops_utilisation": 0.25,
    }


def test_every_task_that_parameters_name_is_there():
    assert set(TASKS) == set(get_args(TaskName))
