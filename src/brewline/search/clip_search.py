"""Search of a corpus of sounds: its clips for words, for a photo, or for another sound."""

from pathlib import Path

import torch

from brewline.config import Params
from brewline.core.devices import choose_device
from brewline.core.errors import BrewlineError
from brewline.evaluation.sound_embedding import embed_splits, frame_embeddings
from brewline.evaluation.sound_scores import middle_frames
from brewline.evaluation.sound_vectors import (
    SoundEmbeddings,
    load_sound_vectors,
    save_sound_vectors,
)
from brewline.evaluation.vectors import Embeddings, closest
from brewline.media.pictures import shrink_jpeg
from brewline.models.backbones import load_clip
from brewline.models.card import load_backbone_hashes
from brewline.models.folder import load_sound_model
from brewline.samples.clips import encode_flac
from brewline.samples.shards import find_utterances, index_digest, read_split
from brewline.samples.sound_collator import SoundCollator
from brewline.samples.utterance import Frame, Utterance
from brewline.search.answer import Answer, Hit, Question, kept_gallery


class ClipSearch:
    """A loaded model of sounds, and the vectors of its corpus."""

    def __init__(self, params: Params, model_dir: Path) -> None:
        backbone = load_clip()
        model, self._card = load_sound_model(model_dir, backbone, load_backbone_hashes())
        self._model = model.to(choose_device(params.runtime.device)).eval()
        self._collator = SoundCollator.of(backbone, self._card.switches, 0)
        self._shard, self._batch_size = params.shard, params.runtime.embed_batch_size
        self._model_dir, self._shards = model_dir, Path("data/shards") / self._card.corpus

    def answer(self, question: Question, split: str, top: int) -> Answer:
        """Ranks a split of the model's corpus: by what words and photos sound like, or by the
        middle frames where a sound is asked with.

        Raises:
            BrewlineError: a sound is asked with, and no clip has frames.
        """
        gallery, embedding = self.gallery(split), self.embed(question)
        clips, targets = [*range(len(gallery.clip_ids))], gallery.sounds
        if question.waveform is not None:
            if not gallery.frame_clips:
                raise BrewlineError(
                    f"the clips of {self._card.corpus} have no pictures that a sound could find; "
                    "search with a photo, or with --text",
                    "settings",
                )
            places = middle_frames(gallery.frame_clips)
            clips, targets = [gallery.frame_clips[one] for one in places], gallery.frames[places]
        found = [(clips[row], score) for row, score in closest(targets, embedding, top)]
        ids = [gallery.clip_ids[clip] for clip, _ in found]
        captions = {
            one.utterance_id: one.captions[0] if one.captions else None
            for one in find_utterances(self._shards, split, ids)
        }
        return Answer(
            kind=question.kind,
            found="clips",
            corpus=self._card.corpus,
            model=f"{self._card.experiment}/{self._model_dir.name}",
            split=split,
            gallery_size=len(targets),
            transcript=None,
            hits=[
                Hit(rank, score, name, name, captions[name], _nearest(gallery, clip, embedding))
                for rank, ((clip, score), name) in enumerate(zip(found, ids, strict=True), start=1)
            ],
        )

    @torch.no_grad()
    def embed(self, question: Question) -> Embeddings:
        """Returns the unit vector (D,) of a question."""
        if question.waveform is not None:
            clip = _query(sound=encode_flac(question.waveform))
            rows = self._model.encode_sounds(
                self._collator.sounds([clip]).to(self._model.device)
            ).clips
        elif question.photo is not None:
            frame = Frame(0.0, shrink_jpeg(question.photo, self._shard))
            rows = frame_embeddings(self._model, self._collator, [_query(frames=(frame,))])
        else:
            assert question.text is not None
            token_ids = self._collator.tokens([question.text]).to(self._model.device)
            rows = self._model.encode_texts(token_ids)
        vector: Embeddings = rows[0].float().cpu().numpy()
        return vector

    def gallery(self, split: str) -> SoundEmbeddings:
        """The vectors of a split: from the cache, or made now and kept."""
        path = kept_gallery(self._model_dir, [split, index_digest(self._shards)])
        if not path.exists():
            reads = {split: read_split(self._shards, split)}
            made = embed_splits(self._model, self._collator, reads, self._batch_size)
            save_sound_vectors(path, made)
        return load_sound_vectors(path)[split]


def _nearest(gallery: SoundEmbeddings, clip: int, embedding: Embeddings) -> int | None:
    """Which frame of a clip is most like a question."""
    own = [row for row, owner in enumerate(gallery.frame_clips) if owner == clip]
    return int((gallery.frames[own] @ embedding).argmax()) if own else None


def _query(sound: bytes | None = None, frames: tuple[Frame, ...] = ()) -> Utterance:
    """A query in the form of the corpus' clips."""
    return Utterance("query", None, None, "", None, 0, sound=sound, frames=frames)
