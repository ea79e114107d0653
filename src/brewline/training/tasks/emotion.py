"""Task `emotion`: a model of retrieval learns which emotion is heard (BrewCLIP, section 4.5)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brewline.config.recipes import RecipeParams
from brewline.config.variants import VariantParams
from brewline.core.ranks import Ranks
from brewline.models.backbones import ClipBackbone
from brewline.models.emotion import EmotionModel
from brewline.models.inputs import OnDevice, UtteranceInputs
from brewline.models.trained import TrainedModule
from brewline.models.transforms import input_transforms
from brewline.probing.ravdess import LABEL_SETS
from brewline.probing.scores import accuracy, balanced_accuracy, confusions
from brewline.samples.collator import Collator
from brewline.samples.iteration import chunks
from brewline.samples.utterance import Utterance
from brewline.training.task import Rows, StepLoss
from brewline.training.tasks.new_model import new_brewclip

SELECTION_METRIC = "dev/balanced_accuracy"


@dataclass(frozen=True)
class EmotionBatch(OnDevice):
    """Inputs of utterances, and the number of each one's class (B,)."""

    inputs: UtteranceInputs
    labels: Tensor


class Emotion:
    """Tells emotions apart by cross-entropy; pictures are not looked at.

    Args:
        switches: The variant.
        recipe: Its batch size is that of measuring too.
        backbone: The frozen CLIP.
        labels: What each emotion counts as: a name in `LABEL_SETS`.
        classes: What is told apart, in the order of the head.
    """

    selection_metric = SELECTION_METRIC

    def __init__(
        self,
        switches: VariantParams,
        recipe: RecipeParams,
        backbone: ClipBackbone,
        labels: str,
        classes: Sequence[str],
    ) -> None:
        self.memory: dict[str, Tensor] = {}
        self._switches = switches
        self._recipe = recipe
        self._backbone = backbone
        self._counted_as = LABEL_SETS[labels]
        self._classes = list(classes)
        self._collator = Collator(input_transforms(backbone, switches), switches)

    def make_model(self, sample: Utterance) -> EmotionModel:
        """A new model; see `Task`."""
        # The temperature is no part of this loss; it stays as the model of retrieval had it.
        brewclip = new_brewclip(self._backbone, self._switches, self._recipe, sample)
        return EmotionModel(brewclip, self._backbone.embedding_size, len(self._classes))

    def begin(self, model: TrainedModule, read_train: Callable[[], Iterable[Utterance]]) -> None:
        """Nothing is worked out beforehand; see `Task`."""

    def collate(self, utterances: Sequence[Utterance]) -> EmotionBatch:
        """Makes a batch; see `Task`."""
        labels = [self._classes.index(self._counted_as[one.emotion or ""]) for one in utterances]
        return EmotionBatch(self._collator.utterance_inputs(utterances), torch.tensor(labels))

    def forward(self, model: TrainedModule, batch: EmotionBatch) -> Rows:
        """The logits (B, K), and the labels; see `Task`."""
        return {"logits": model(batch.inputs), "labels": batch.labels}

    def loss(self, model: TrainedModule, rows: Rows, ranks: Ranks, step: int) -> StepLoss:
        """Cross-entropy, and how many are told right; see `Task`."""
        logits, labels = rows["logits"].float(), rows["labels"]
        hits = (logits.argmax(dim=1) == labels).float().mean()
        return StepLoss(F.cross_entropy(logits, labels), {"accuracy": hits})

    @torch.no_grad()
    def measure(
        self, model: TrainedModule, utterances: Iterable[Utterance], split: str
    ) -> dict[str, float]:
        """Accuracy, and the mean recall of the classes; see `Task`."""
        device = next(model.parameters()).device
        truth, said = [], []
        for rows in chunks(iter(utterances), self._recipe.batch_size):
            batch = self.collate(rows).to(device)
            truth.append(batch.labels.cpu().numpy())
            said.append(model(batch.inputs).argmax(dim=1).cpu().numpy())
        labels, answers = np.concatenate(truth), np.concatenate(said)
        nobody = np.zeros(len(labels), np.int64)
        (counts,) = confusions(labels, answers, nobody, 1, len(self._classes))
        return {
            f"{split}/accuracy": float(accuracy(counts)),
            f"{split}/balanced_accuracy": float(balanced_accuracy(counts)),
        }
