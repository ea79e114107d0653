"""BrewCLIP with a head that tells emotions apart (BrewCLIP, section 4.5).

The head reads the fused vector of unit length. What is trained beside it is what retrieval trains
too: prompts and acoustic branch; of the pictures' side, which is not asked, nothing changes.
"""

from torch import Tensor, nn

from brewline.models.brewclip import BrewClip
from brewline.models.inputs import UtteranceInputs
from brewline.models.trained import TrainedModule

# As torch names the parameters of the parts.
_BREWCLIP = "brewclip."


class EmotionModel(TrainedModule):
    """Says how much an utterance sounds like each of several emotions.

    Args:
        brewclip: With prompts, an acoustic branch or both.
        embedding_size: Of its vectors.
        num_classes: K.
    """

    def __init__(self, brewclip: BrewClip, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.brewclip = brewclip
        self.head = nn.Linear(embedding_size, num_classes)
        self.eval()

    def start_from(self, tensors: dict[str, Tensor]) -> None:
        """Takes over a model of retrieval; the head stays as it was drawn."""
        self.brewclip.load_trained_tensors(tensors)

    def forward(self, inputs: UtteranceInputs) -> Tensor:
        """The logits (B, K) of utterances."""
        logits: Tensor = self.head(self.brewclip.encode_utterances(inputs).embeddings)
        return logits


def brewclip_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the tensors of an `EmotionModel`, those of its BrewCLIP, by their names in that."""
    return {
        name.removeprefix(_BREWCLIP): tensor
        for name, tensor in tensors.items()
        if name.startswith(_BREWCLIP)
    }
