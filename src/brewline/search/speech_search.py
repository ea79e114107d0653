"""Search of a corpus of speech: pictures for a recording or words, recordings for a photo."""

from collections.abc import Mapping
from pathlib import Path

from brewline.config import Params
from brewline.evaluation.vectors import SplitEmbeddings, closest, load_vectors, save_vectors
from brewline.models.card import load_backbone_hashes
from brewline.models.names import BACKBONES_FOLDER
from brewline.samples.shards import index_digest
from brewline.search.answer import Answer, Hit, Question, kept_gallery
from brewline.search.embedder import Embedder
from brewline.tables.parquet import read_table


class SpeechSearch:
    """A loaded model of the project, and the vectors of its corpus."""

    def __init__(self, params: Params, model_dir: Path) -> None:
        hashes, runtime = load_backbone_hashes(), params.runtime
        self.embedder = Embedder(
            model_dir, BACKBONES_FOLDER, hashes, params.asr, params.shard, runtime.device
        )
        self._card, self._model_dir = self.embedder.card, model_dir
        self._batch_size = runtime.embed_batch_size

    def answer(self, question: Question, split: str, top: int) -> Answer:
        """Ranks a split of the model's corpus."""
        gallery, transcript = self.gallery(split), None
        if question.waveform is not None:
            embedding, transcript = self.embedder.embed_waveform(question.waveform)
        elif question.text is not None:
            embedding = self.embedder.embed_text(question.text)
        else:
            assert question.photo is not None
            embedding = self.embedder.embed_photo(question.photo)
        is_photo = question.photo is not None
        targets = gallery.utterance_embeddings if is_photo else gallery.image_embeddings
        captions = _captions(self._card.corpus)
        return Answer(
            kind=question.kind,
            found="recordings" if is_photo else "pictures",
            corpus=self._card.corpus,
            model=f"{self._card.experiment}/{self._model_dir.name}",
            split=split,
            gallery_size=len(targets),
            transcript=transcript,
            hits=_rank(gallery, is_photo, closest(targets, embedding, top), captions),
        )

    def gallery(self, split: str) -> SplitEmbeddings:
        """The vectors of a split: from the cache, or made now and kept."""
        shards = Path("data/shards") / self._card.corpus
        states = self._card.states_folder()
        facts = [split, *(index_digest(folder) for folder in (shards, states) if folder)]
        path = kept_gallery(self._model_dir, facts)
        if not path.exists():
            made = self.embedder.embed_gallery(shards, states, split, self._batch_size)
            save_vectors(path, {split: made})
        return load_vectors(path)[split]


def _captions(corpus: str) -> dict[str, str | None]:
    """What people wrote, by utterance."""
    rows = read_table(Path(f"data/manifest/{corpus}.parquet"))
    return {row["utterance_id"]: row["caption"] for row in rows}


def _rank(
    gallery: SplitEmbeddings,
    is_photo: bool,
    found: list[tuple[int, float]],
    captions: Mapping[str, str | None],
) -> list[Hit]:
    hits = []
    for rank, (row, score) in enumerate(found, start=1):
        if is_photo:
            image_id, utterance_id = gallery.utterance_image_ids[row], gallery.utterance_ids[row]
            caption = captions.get(utterance_id)
        else:
            image_id, utterance_id = gallery.image_ids[row], None
            described = gallery.utterance_ids[gallery.utterance_image_ids.index(image_id)]
            caption = captions.get(described)
        hits.append(Hit(rank, score, image_id, utterance_id, caption))
    return hits
