"""In which processes models are trained: one each, several at a time, or several for each."""

from collections.abc import Callable, Sequence
from pathlib import Path

from brewline.config.runtime import RuntimeParams
from brewline.core.devices import choose_device, count_processes, in_processes
from brewline.core.ranks import in_ranks
from brewline.models.card import ModelCard
from brewline.training.start import finished_model

# A model's card, and its work folder.
ToTrain = tuple[ModelCard, Path]


def train_each(
    train_one: Callable[..., None], models: Sequence[ToTrain], runtime: RuntimeParams
) -> None:
    """Trains the models that are not finished.

    On GPUs one after another, each by all of them; on processors a few at a time, a process each.

    Args:
        train_one: Of a module, so that another process can import it; called with a model, and with
            the `Ranks` of its process where several share the batches of each.
        models: Those of an experiment.
        runtime: How many processes.

    Raises:
        BrewlineError: see `train_one`; there are fewer GPUs than processes.
    """
    waiting = [model for model in models if finished_model(model[1]) is None]
    device = choose_device(runtime.device)
    together = 1
    for card, _ in waiting[:1]:
        assert card.recipe is not None
        together = count_processes(runtime.train_processes, device, card.recipe["batch_size"])
    if together == 1:
        # A GPU is kept busy by one process.
        in_processes(train_one, waiting, runtime.train_workers if device.type == "cpu" else 1)
        return
    for model in waiting:
        in_ranks(train_one, (model,), together, device, model[1] / "failures")
