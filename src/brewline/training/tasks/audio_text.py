"""Task `audio_text`: a model that learned from videos learns from captions of sounds.

What it finds before that is its zero-shot transfer: an experiment without a recipe measures it.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from brewline.config.recipes import RecipeParams
from brewline.config.variants import VariantParams
from brewline.core.ranks import Ranks
from brewline.evaluation.sound_embedding import embed_clips
from brewline.evaluation.sound_scores import TEXT_METRIC, score_sounds
from brewline.models.backbones import ClipBackbone
from brewline.models.losses import contrastive_loss, pair_rows
from brewline.models.sounds import ClipBatch, SoundModel, trains_text
from brewline.models.trained import TrainedModule
from brewline.samples.sound_collator import SoundCollator, clip_numbers, require_captioned
from brewline.samples.utterance import Utterance
from brewline.training.task import Rows, StepLoss
from brewline.training.tasks.clips import (
    RECALL_AT,
    new_sound_model,
    sound_model,
)


class AudioText:
    """Contrasts sounds with captions, one of each clip, drawn at each step.

    Args:
        switches: A variant with `sound`, which says whether the text tower is trained.
        recipe: Batch size and temperature.
        backbone: The frozen CLIP.
        cache_mb: Memory for spectrograms.
    """

    selection_metric = f"dev/{TEXT_METRIC}"

    def __init__(
        self,
        switches: VariantParams,
        recipe: RecipeParams,
        backbone: ClipBackbone,
        cache_mb: int,
    ) -> None:
        assert switches.sound is not None
        self.memory: dict[str, Tensor] = {}
        self._switches, self._recipe, self._backbone = switches, recipe, backbone
        self._is_text_trained = trains_text("audio_text", switches.sound)
        self._collator = SoundCollator.of(backbone, switches, cache_mb)

    def make_model(self, sample: Utterance) -> SoundModel:
        """A new model; see `Task`."""
        require_captioned(sample)
        return new_sound_model(self._backbone, self._switches, self._recipe, self._is_text_trained)

    def begin(self, model: TrainedModule, read_train: Callable[[], Iterable[Utterance]]) -> None:
        """Nothing is worked out beforehand; see `Task`."""

    def collate(self, utterances: Sequence[Utterance]) -> ClipBatch:
        """Makes a batch with all captions of its clips; see `Task`."""
        token_ids, counts = self._collator.captions(utterances)
        return ClipBatch(
            self._collator.sounds(utterances),
            clip_numbers(utterances),
            token_ids=token_ids,
            num_captions=counts,
        )

    def forward(self, model: TrainedModule, batch: ClipBatch) -> Rows:
        """Vectors of sounds, and of a caption of each; see `Task`."""
        assert batch.token_ids is not None and batch.num_captions is not None
        numbers_B = torch.rand(len(batch.clip_ids)).to(batch.clip_ids.device)
        drawn_B = (numbers_B * batch.num_captions).long()
        rows = torch.arange(len(drawn_B), device=drawn_B.device)
        own = sound_model(model)
        return {
            "clips": own.encode_sounds(batch.sounds).clips,
            "texts": own.encode_texts(batch.token_ids[rows, drawn_B]),
            "clip_ids": batch.clip_ids,
        }

    def loss(self, model: TrainedModule, rows: Rows, ranks: Ranks, step: int) -> StepLoss:
        """InfoNCE of sounds and captions; see `Task`."""
        scale = sound_model(model).logit_scale
        pairs = pair_rows(rows["clip_ids"], self._recipe.same_image, ranks)
        total = contrastive_loss(rows["clips"], rows["texts"], scale, pairs, ranks)
        return StepLoss(total, {"logit_scale": scale.detach().clone()})

    @torch.no_grad()
    def measure(
        self, model: TrainedModule, utterances: Iterable[Utterance], split: str
    ) -> dict[str, float]:
        """Recall both ways; see `Task`."""
        found = embed_clips(sound_model(model), self._collator, utterances, self._recipe.batch_size)
        return score_sounds(found, split, RECALL_AT).metrics
