"""Task `audio_image`: sounds and the frames of their videos find one another.

The image tower is frozen, so frames are embedded once, and a step reads their vectors (Tsubaki et
al., 2024; temporal agreement).
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from brewline.config.recipes import RecipeParams
from brewline.config.variants import VariantParams
from brewline.core.ranks import Ranks
from brewline.evaluation.sound_embedding import embed_clips, frame_embeddings
from brewline.evaluation.sound_scores import IMAGE_METRIC, frame_choices, score_sounds
from brewline.models.backbones import ClipBackbone
from brewline.models.losses import contrastive_loss
from brewline.models.pairing import ClipVectors, choice_of, pair_clips
from brewline.models.sounds import ClipBatch, SoundModel
from brewline.models.trained import TrainedModule
from brewline.samples.frame_vectors import FrameVectors, keep_frame_vectors
from brewline.samples.sound_collator import SoundCollator, clip_numbers
from brewline.samples.utterance import Utterance
from brewline.training.task import Rows, StepLoss
from brewline.training.tasks.clips import (
    RECALL_AT,
    new_sound_model,
    sound_model,
)

_CHOICES = "choices"


class AudioImage:
    """Contrasts sounds with frames, which are paired by the rule of the variant.

    Args:
        switches: A variant with `sound`.
        recipe: Batch size and temperature.
        backbone: The frozen CLIP.
        frames: The folder of the frames' vectors, named by whatever determines them.
        cache_mb: Memory for spectrograms.
    """

    selection_metric = f"dev/{IMAGE_METRIC}"

    def __init__(
        self,
        switches: VariantParams,
        recipe: RecipeParams,
        backbone: ClipBackbone,
        frames: Path,
        cache_mb: int,
    ) -> None:
        assert switches.sound is not None
        self.memory: dict[str, Tensor] = {}
        self._switches, self._recipe, self._backbone = switches, recipe, backbone
        self._pairing = switches.sound.pairing
        self._folder = frames
        self._collator = SoundCollator.of(backbone, switches, cache_mb)
        self._frames: FrameVectors | None = None
        # Of dev, by clip: the tower is frozen.
        self._seen: dict[str, Tensor] = {}

    def make_model(self, sample: Utterance) -> SoundModel:
        """A new model; see `Task`."""
        return new_sound_model(self._backbone, self._switches, self._recipe, train_text=False)

    def begin(self, model: TrainedModule, read_train: Callable[[], Iterable[Utterance]]) -> None:
        """Embeds the frames of the training split, unless that was done before; see `Task`."""

        def embed(clips: Sequence[Utterance]) -> Tensor:
            return frame_embeddings(sound_model(model), self._collator, clips)

        self._frames = keep_frame_vectors(self._folder, read_train, embed, self._recipe.batch_size)

    def collate(self, utterances: Sequence[Utterance]) -> ClipBatch:
        """Makes a batch; see `Task`."""
        assert self._frames is not None
        sounds = self._collator.sounds(utterances, self._frames.max_frames)
        return ClipBatch(sounds, clip_numbers(utterances), frames=self._frames.of(utterances))

    def forward(self, model: TrainedModule, batch: ClipBatch) -> Rows:
        """Vectors of sounds, of their segments and of frames; see `Task`."""
        assert batch.frames is not None
        features = sound_model(model).encode_sounds(batch.sounds)
        rows = {
            "clips": features.clips,
            "frames": batch.frames,
            "frame_mask": batch.sounds.frame_mask,
            "clip_ids": batch.clip_ids,
        }
        if self._pairing.rule == "multiframe_segment":
            rows["segments"] = features.segments
        return rows

    def loss(self, model: TrainedModule, rows: Rows, ranks: Ranks, step: int) -> StepLoss:
        """InfoNCE of what the rule pairs, and how frames are chosen; see `Task`."""
        vectors = ClipVectors(
            rows["clips"],
            rows.get("segments"),
            rows["frames"],
            rows["frame_mask"],
            rows["clip_ids"],
        )
        is_warm = step >= self._pairing.warm_steps(self._recipe.steps)
        paired = pair_clips(vectors, self._pairing, is_warm, ranks)
        scale = sound_model(model).logit_scale
        total = contrastive_loss(paired.sounds, paired.frames, scale, paired.pairs, ranks)
        row = {"logit_scale": scale.detach().clone(), **choice_of(vectors, paired, ranks)}
        return StepLoss(total, row)

    @torch.no_grad()
    def measure(
        self, model: TrainedModule, utterances: Iterable[Utterance], split: str
    ) -> dict[str, float]:
        """Recall both ways, and which frames sounds choose; see `Task`."""
        own = sound_model(model)

        def embed(clips: Sequence[Utterance]) -> Tensor:
            new = [clip for clip in clips if clip.utterance_id not in self._seen]
            if new:
                vectors = frame_embeddings(own, self._collator, new).cpu()
                parts = torch.split(vectors, [len(clip.frames) for clip in new])
                self._seen |= zip((clip.utterance_id for clip in new), parts, strict=True)
            return torch.cat([self._seen[clip.utterance_id] for clip in clips])

        found = embed_clips(own, self._collator, utterances, self._recipe.batch_size, embed)
        metrics = dict(score_sounds(found, split, RECALL_AT).metrics)
        choices, shown = frame_choices(found)
        metrics |= {f"{split}/choice/{name}": value for name, value in shown.items()}
        before = self.memory.get(_CHOICES)
        if before is not None:
            changed = (before != torch.from_numpy(choices)).double().mean()
            metrics[f"{split}/choice/changed"] = float(changed)
        self.memory[_CHOICES] = torch.from_numpy(choices)
        return metrics
