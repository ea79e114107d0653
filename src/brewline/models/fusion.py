"""How the features of two channels become one (BrewCLIP, section 3.2, and what it leaves open)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def add_at_unit_length(text_BE: Tensor, acoustic_BE: Tensor) -> Tensor:
    """The sum of both channels, of which each counts alike."""
    return F.normalize(text_BE, dim=-1) + F.normalize(acoustic_BE, dim=-1)


class ConfidenceGate(nn.Module):
    """Weighs two channels by how sure the recogniser was of its text.

    The text counts w, the acoustic channel 1 - w, both at unit length, where w is the sigmoid of a
    learned line over the confidence. Untrained they count alike, whatever the confidence.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(()))
        self.offset = nn.Parameter(torch.zeros(()))

    def text_weight(self, confidence_B: Tensor) -> Tensor:
        """How much the text of each utterance counts, (B,), of 1 for both channels together."""
        return torch.sigmoid(self.slope * confidence_B + self.offset)

    def forward(self, text_BE: Tensor, acoustic_BE: Tensor, confidence_B: Tensor) -> Tensor:
        """The weighed sum (B, E), not normalised.

        Args:
            text_BE: Text features.
            acoustic_BE: Acoustic features.
            confidence_B: Of the recogniser, from 0 to 1.
        """
        weight_B1 = self.text_weight(confidence_B)[:, None]
        text_BE, acoustic_BE = F.normalize(text_BE, dim=-1), F.normalize(acoustic_BE, dim=-1)
        return weight_B1 * text_BE + (1 - weight_B1) * acoustic_BE
