"""What every model that training changes has in common."""

from typing import Self

import torch
from torch import Tensor, nn

# Modules whose parameters autocast takes in half precision, and no others of theirs.
_WITH_PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.MultiheadAttention)


class TrainedModule(nn.Module):
    """A module of which only the parameters that require gradients are trained and kept.

    So are the buffers that a part of it names in `kept_buffers`, such as the words that it may say.
    """

    def __init__(self) -> None:
        super().__init__()
        # Frozen weights in both precisions: (parameter, fp32, half).
        self._frozen: list[tuple[nn.Parameter, Tensor, Tensor]] = []

    def keep_frozen_in(self, dtype: torch.dtype) -> None:
        """Keeps the weights that products of frozen towers are made with in `dtype` too.

        They are used while it is trained. Autocast would make them anew in every pass, and keeps
        only those of weights that are trained. To be called on the device, in evaluation mode.
        """
        modules = [m for m in self.modules() if isinstance(m, _WITH_PRODUCTS)]
        weights = {id(p): p for m in modules for p in m.parameters(recurse=False)}
        self._frozen = [
            (p, p.data, p.data.to(dtype)) for p in weights.values() if not p.requires_grad
        ]

    def train(self, mode: bool = True) -> Self:
        """Switches to training or evaluation, and frozen weights to their precision."""
        for parameter, full, half in self._frozen:
            parameter.data = half if mode else full
        return super().train(mode)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What training changes, by name; never a part of a frozen tower."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def trained_tensors(self) -> dict[str, Tensor]:
        """Copies of the trained parameters, and of what is kept, on the processor, to be saved."""
        kept = {name: getattr(part, buffer) for name, (part, buffer) in self._kept().items()}
        return {
            name: tensor.detach().cpu().clone().contiguous()
            for name, tensor in {**self.trained_parameters(), **kept}.items()
        }

    def _kept(self) -> dict[str, tuple[nn.Module, str]]:
        """The buffers that are kept, by name: the part that has each, and what it calls it."""
        return {
            f"{name}.{buffer}": (part, buffer)
            for name, part in self.named_modules()
            for buffer in getattr(part, "kept_buffers", ())
        }

    @torch.no_grad()
    def load_trained_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Sets the trained parameters, and what is kept.

        Raises:
            ValueError: the names or shapes are not those of this model.
        """
        parameters, kept = self.trained_parameters(), self._kept()
        shapes = {name: tensor.shape for name, tensor in tensors.items() if name not in kept}
        expected = {name: parameter.shape for name, parameter in parameters.items()}
        if shapes != expected or not kept.keys() <= tensors.keys():
            raise ValueError(f"expected {sorted([*parameters, *kept])}, found {sorted(tensors)}")
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
        for name, (part, buffer) in kept.items():
            setattr(part, buffer, tensors[name].to(getattr(part, buffer).device))

    def rate_of(self, name: str) -> float:
        """The learning rate of a trained parameter, as a multiple of the recipe's."""
        return 1.0

    def start_from(self, tensors: dict[str, Tensor]) -> None:
        """Takes over what another model learned, before training.

        Raises:
            ValueError: the names or shapes are not those of this model.
        """
        self.load_trained_tensors(tensors)

    @property
    def num_trained_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.trained_parameters().values())

    def after_update(self) -> None:
        """Called after every step of the optimiser, to bring parameters back within bounds."""
