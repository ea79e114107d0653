"""What every model that training changes has in common."""

import torch
from torch import Tensor, nn


class TrainedModule(nn.Module):
    """A module of which only the parameters that require gradients are trained and kept."""

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What training changes, by name; never a part of a frozen tower."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def trained_tensors(self) -> dict[str, Tensor]:
        """Copies of the trained parameters on the processor, to be saved."""
        return {
            name: p.detach().cpu().clone().contiguous()
            for name, p in self.trained_parameters().items()
        }

    @torch.no_grad()
    def load_trained_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Sets the trained parameters.

        Raises:
            ValueError: the names or shapes are not those of this model.
        """
        parameters = self.trained_parameters()
        if {n: t.shape for n, t in tensors.items()} != {n: p.shape for n, p in parameters.items()}:
            raise ValueError(f"expected {sorted(parameters)}, found {sorted(tensors)}")
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)

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
