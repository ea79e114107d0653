"""What is special to one kind of learning problem, behind one interface.

The loop (`brewline.training.loop`) knows steps, batches, the optimiser, checkpoints and the choice
of the best model on dev. What a model learns, from which samples, by which loss, and how well, is a
task's: one module each in `brewline.training.tasks`.
"""

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from torch import Tensor

from brewline.core.ranks import Ranks
from brewline.models.inputs import OnDevice
from brewline.models.trained import TrainedModule
from brewline.samples.utterance import Utterance

# What a model makes of a batch: tensors by name, with a row for each utterance in its order. They
# may be computed in parts, and on several devices, before the loss sees all of them.
Rows = dict[str, Tensor]
# What a task makes of utterances.
BatchT = TypeVar("BatchT", bound=OnDevice)


@dataclass(frozen=True)
class StepLoss:
    """The loss of a step, and further numbers for its row in `history.jsonl`, by name."""

    total: Tensor
    row: Mapping[str, Tensor | float] = field(default_factory=dict)


class Task(Protocol[BatchT]):
    """What the loop asks of a task."""

    @property
    def selection_metric(self) -> str:
        """The metric, of those that `measure` gives for dev, by which a model is chosen."""

    @property
    def memory(self) -> MutableMapping[str, Tensor]:
        """What it keeps from one look at dev to the next; saved and put back with checkpoints."""

    def make_model(self, sample: Utterance) -> TrainedModule:
        """A new model, whose parameters are drawn from torch's generator.

        Args:
            sample: An utterance of the training split, which tells sizes.

        Raises:
            BrewlineError: it lacks what the task needs.
        """

    def begin(self, model: TrainedModule, read_train: Callable[[], Iterable[Utterance]]) -> None:
        """Called once, before the first batch, with the model on its device.

        Args:
            model: What `make_model` gave.
            read_train: Reads the training split, without encoder states, for what a task works
                out of it beforehand.
        """

    def collate(self, utterances: Sequence[Utterance]) -> BatchT:
        """Makes a batch of training; called in another thread."""

    def forward(self, model: TrainedModule, batch: BatchT) -> Rows:
        """What the model makes of a batch, or of a part of one; in the precision of the recipe.

        What the loss has to know of each utterance is among the rows.
        """

    def loss(self, model: TrainedModule, rows: Rows, ranks: Ranks, step: int) -> StepLoss:
        """The loss of what `forward` gave, a mean over rows; runs in fp32.

        Args:
            model: What `make_model` gave.
            rows: This process's rows of the batch, as many as any other's.
            ranks: Gathers those of all processes.
            step: From 0.
        """

    def measure(
        self, model: TrainedModule, utterances: Iterable[Utterance], split: str
    ) -> dict[str, float]:
        """The metrics of a split, as `<split>/<metric>`; larger is better."""
