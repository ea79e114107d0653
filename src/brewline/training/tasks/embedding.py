"""What is embedded of a model by its task, and where that is kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from brewline.config.experiments import ExperimentParams
from brewline.config.variants import VariantParams
from brewline.evaluation.embedding import embed_split
from brewline.evaluation.sound_embedding import embed_splits
from brewline.evaluation.sound_vectors import holds_sound_vectors, save_sound_vectors
from brewline.evaluation.vectors import holds_vectors, save_vectors
from brewline.models.backbones import ClipBackbone
from brewline.models.folder import load_model, load_sound_model
from brewline.models.inputs import InputTransforms
from brewline.models.transforms import input_transforms
from brewline.probing.embedding import embed_utterances
from brewline.samples.collator import Collator
from brewline.samples.decoded_pictures import shared_pictures
from brewline.samples.shards import index_digest, read_corpus, read_split
from brewline.samples.sound_collator import SoundCollator
from brewline.tables.features import holds_features, save_features
from brewline.training.fold_answers import answer_folds

EMBEDDED_SPLITS = ("dev", "test")


@dataclass(frozen=True)
class Embedder:
    """Embeds the models of an experiment.

    Attributes:
        experiment: What is embedded.
        switches: Its variant.
        backbone: The CLIP in use.
        hashes: The backbones in use, by role.
        shards: Of the experiment's corpus.
        states: Of it, where the variant hears them.
        device: Where models run.
        batch_size: Utterances at a time.
        cache_mb: For decoded pictures, or for spectrograms.
    """

    experiment: ExperimentParams
    switches: VariantParams
    backbone: ClipBackbone
    hashes: Mapping[str, str]
    shards: Path
    states: Path | None
    device: torch.device
    batch_size: int
    cache_mb: int

    def embed(self, folder: Path, path: Path) -> None:
        """Writes the vectors of the model in `folder` to `path`, unless they are there and whole.

        Raises:
            BrewlineError: a file is missing or damaged.
        """
        embed, is_done = _BY_TASK[self.experiment.task]
        if not is_done(path):
            embed(self, folder, path)

    @cached_property
    def transforms(self) -> InputTransforms:
        """How its variant wants inputs."""
        return input_transforms(self.backbone, self.switches)

    @cached_property
    def collator(self) -> Collator:
        """One for all seeds: pictures and texts are prepared once."""
        clip, views, side = self.hashes["clip"], self.switches.pictures, self.backbone.image_size
        decoded = shared_pictures(clip, views, index_digest(self.shards), side, self.cache_mb)
        return Collator(self.transforms, self.switches, decoded)

    @cached_property
    def sound_collator(self) -> SoundCollator:
        """One for all seeds of a model of sounds."""
        return SoundCollator.of(self.backbone, self.switches, self.cache_mb)


def _retrieval(one: Embedder, folder: Path, path: Path) -> None:
    model, _ = load_model(folder, one.backbone, one.hashes)
    model.to(one.device)
    splits = {}
    for split in EMBEDDED_SPLITS:
        read = read_split(one.shards, split, one.states)
        splits[split] = embed_split(model, one.collator, read, one.batch_size, keep_channels=True)
    save_vectors(path, splits)


def _emotion(one: Embedder, folder: Path, path: Path) -> None:
    if one.experiment.fine_tuning is not None:
        answers = answer_folds(folder, one.backbone, one.hashes, one.device, one.batch_size)
        save_features(path, answers)
        return
    model, _ = load_model(folder, one.backbone, one.hashes)
    model.to(one.device)
    read = read_corpus(one.shards, one.states)
    save_features(path, embed_utterances(model, one.transforms, one.switches, read, one.batch_size))


def _sounds(one: Embedder, folder: Path, path: Path) -> None:
    model, _ = load_sound_model(folder, one.backbone, one.hashes)
    reads = {split: read_split(one.shards, split) for split in EMBEDDED_SPLITS}
    model.to(one.device)
    save_sound_vectors(path, embed_splits(model, one.sound_collator, reads, one.batch_size))


# By the names in `params.yaml`: what writes a file, and whether one is whole.
_BY_TASK: Mapping[str, tuple[Callable[[Embedder, Path, Path], None], Callable[[Path], bool]]] = {
    "retrieval": (_retrieval, holds_vectors),
    "emotion": (_emotion, holds_features),
    "audio_image": (_sounds, holds_sound_vectors),
    "audio_text": (_sounds, holds_sound_vectors),
}
