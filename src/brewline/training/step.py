"""The gradients of one batch: whole or in parts, in one process or in several.

A contrastive loss needs all rows of a batch at once, which takes the memory of all their passes. In
parts it does not: the rows are computed without gradient first, the loss gives each row's gradient,
and then each part is computed again and sends its rows' gradients back (Gao et al., 2021,
"Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", section 3).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from brewline.core.devices import autocast
from brewline.core.ranks import Ranks
from brewline.models.trained import TrainedModule
from brewline.training.schedule import seed_step
from brewline.training.task import Rows, StepLoss, Task


class Step:
    """Computes the gradients of a model's trained parameters.

    Args:
        task: What is learned.
        model: On its device.
        dtype: Of matrix products.
        scaler: Of the loss; it does nothing but in fp16.
        ranks: The processes that share a batch.
        running: How layers are run meanwhile: a context, made anew for each pass.
    """

    def __init__(
        self,
        task: Task[Any],
        model: TrainedModule,
        dtype: torch.dtype,
        scaler: torch.amp.GradScaler,
        ranks: Ranks,
        running: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._running = running
        self._task, self._model, self._scaler, self._ranks = task, model, scaler, ranks
        self._dtype = dtype
        self._parameters = list(model.trained_parameters().values())
        self._device = self._parameters[0].device

    def __call__(self, parts: Sequence[Any], seed: int, step: int) -> StepLoss:
        """Leaves the gradients in the parameters, scaled, the mean over all processes.

        Args:
            parts: This process's rows of the batch.
            seed: Of the training.
            step: From 0.

        Returns:
            The loss of this process's rows; the mean over processes is that of the batch.
        """
        for parameter in self._parameters:
            parameter.grad = None
        first = self._ranks.rank * len(parts)
        seeds = [(seed, step, first + number) for number in range(len(parts))]
        if len(parts) == 1:
            rows = self._forward(parts[0], seeds[0])
            loss = self._backward(rows, step)
        else:
            loss = self._in_parts(parts, seeds, step)
        self._ranks.average_gradients(self._parameters)
        return loss

    def _in_parts(
        self, parts: Sequence[Any], seeds: Sequence[tuple[int, int, int]], step: int
    ) -> StepLoss:
        with torch.no_grad():
            cached = [self._forward(*each) for each in zip(parts, seeds, strict=True)]
        rows = {name: torch.cat([one[name] for one in cached]) for name in cached[0]}
        for row in rows.values():
            row.requires_grad_(row.is_floating_point())
        loss = self._backward(rows, step)
        start = 0
        for part, each in zip(parts, seeds, strict=True):
            again = self._forward(part, each)
            end = start + len(next(iter(again.values())))
            sent = [
                (row, gradient[start:end])
                for name, row in again.items()
                if row.requires_grad and (gradient := rows[name].grad) is not None
            ]
            torch.autograd.backward([row for row, _ in sent], [gradient for _, gradient in sent])
            start = end
        return loss

    def _forward(self, part: Any, seeds: tuple[int, int, int]) -> Rows:
        seed_step(*seeds)
        with autocast(self._dtype, self._device), self._running():
            return self._task.forward(self._model, part)

    def _backward(self, rows: Rows, step: int) -> StepLoss:
        loss = self._task.loss(self._model, rows, self._ranks, step)
        self._scaler.scale(loss.total).backward()  # type: ignore[no-untyped-call]
        return loss


def count_flops(task: Task[Any], model: TrainedModule, part: Any, ranks: Ranks) -> int:
    """The floating-point operations of forward and backward pass for a part of a batch.

    A product of (m, k) and (k, n) counts 2 m k n; what is no product of matrices counts nothing.
    Nothing is left in the parameters.
    """
    parameters = list(model.trained_parameters().values())
    with FlopCounterMode(display=False) as counter:
        total = task.loss(model, task.forward(model, part), ranks, 0).total
        torch.autograd.grad(total, parameters, allow_unused=True)
    return int(counter.get_total_flops())


def as_numbers(values: dict[str, Tensor | float], ranks: Ranks) -> dict[str, float]:
    """Plain numbers, each the mean over processes; waits for the device."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    numbers = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
    if tensors:
        together = ranks.mean(torch.stack([value.detach().float() for value in tensors.values()]))
        numbers |= dict(zip(tensors, together.tolist(), strict=True))
    return {name: numbers[name] for name in values}
