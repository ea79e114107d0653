"""Search a corpus of the project by a recording or by a photo, with a trained model.

The embeddings of the corpus are kept under `work/search/`, by the content of the model and of what
it reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from brewline.config import Params, load_versions
from brewline.core.errors import BrewlineError
from brewline.core.files import fingerprint, read_json, work_dir
from brewline.models.names import model_names
from brewline.quality.queries import GuardedChecks, RefusedError
from brewline.tables.parquet import read_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from brewline.evaluation.vectors import SplitEmbeddings

Kind = Literal["recording", "photo"]


@dataclass(frozen=True)
class Hit:
    """Something found; `utterance_id` is None where a picture was looked for."""

    rank: int
    score: float
    image_id: str
    utterance_id: str | None
    caption: str | None


@dataclass(frozen=True)
class Answer:
    """What a search found, best first; `model` is `<experiment>/seed-<n>`.

    `transcript` is what was heard in a recording.
    """

    kind: Kind
    corpus: str
    model: str
    split: str
    gallery_size: int
    transcript: str | None
    hits: list[Hit]


def default_model(params: Params, models_dir: Path = Path("models")) -> Path:
    """The trained model that is best on dev, of the first corpus in the tables that has one.

    What reads captions instead of listening is left out.

    Raises:
        BrewlineError: nothing has been trained yet.
    """
    from brewline.evaluation.scores import SELECTION_METRIC

    def score(folder: Path) -> float:
        return float(read_json(folder / "model.json")["dev"].get(SELECTION_METRIC, 0.0))

    for corpus in params.measured_corpora:
        folders = [
            models_dir / experiment / name
            for experiment in params.trained_rows(corpus)
            for name in model_names(params, experiment)
        ]
        made = [folder for folder in folders if (folder / "model.json").exists()]
        if made:
            return max(made, key=score)
    raise BrewlineError(f"{models_dir} holds no trained model; run `dvc repro`")


def search(
    query: Path, params: Params, model_dir: Path | None, split: str = "test", top: int = 5
) -> Answer:
    """Ranks the pictures of a corpus for a recording, or its recordings for a photo.

    It runs in the project's folder: backbones, shards and states are read from their places there.

    Args:
        query: A recording or a picture, in any format that the corpora may have.
        params: How speech is recognised, and pictures are made small.
        model_dir: A model's folder; None chooses with `default_model`.
        split: Which split of the model's corpus is searched.
        top: How many hits are returned.

    Raises:
        BrewlineError: the query is neither, it fails a check, or a file of the project is missing.
    """
    try:
        content = query.read_bytes()
    except OSError as error:
        raise BrewlineError(f"{query} cannot be read: {error.strerror}") from None
    waveform = _checked(content, query.name, params)
    kind: Kind = "photo" if waveform is None else "recording"
    # Imported late: a mistake above is named before torch is loaded.
    from brewline.evaluation.vectors import closest

    engine = _Engine(params, model_dir or default_model(params))
    gallery = engine.gallery(split)
    transcript = None
    if waveform is not None:
        embedding, transcript = engine.embedder.embed_waveform(waveform)
        targets = gallery.image_embeddings
    else:
        embedding = engine.embedder.embed_photo(content)
        targets = gallery.utterance_embeddings
    return Answer(
        kind=kind,
        corpus=engine.card.corpus,
        model=f"{engine.card.experiment}/{engine.model_dir.name}",
        split=split,
        gallery_size=len(targets),
        transcript=transcript,
        hits=_rank(gallery, kind, closest(targets, embedding, top), _captions(engine.card.corpus)),
    )


def _checked(content: bytes, name: str, params: Params) -> "NDArray[np.float32] | None":
    """What a recording sounds like, once it has passed the checks; nothing of a photo."""
    checks = GuardedChecks(params.validation, params.runtime.inspect_decode_limit_s)
    try:
        if not checks.is_picture(content):
            return checks.hear(content)
        checks.look(content)
    except RefusedError as error:
        if error.reason in ("not_audio", "empty_file"):
            raise BrewlineError(
                f"{name} is neither a recording nor a picture; docs/guide.md lists what is read: "
                f"{error}"
            ) from None
        raise BrewlineError(f"{name}: {error}") from None
    return None


def _captions(corpus: str) -> dict[str, str | None]:
    """What people wrote, by utterance."""
    rows = read_table(Path(f"data/manifest/{corpus}.parquet"))
    return {row["utterance_id"]: row["caption"] for row in rows}


def _rank(
    gallery: "SplitEmbeddings",
    kind: Kind,
    found: list[tuple[int, float]],
    captions: Mapping[str, str | None],
) -> list[Hit]:
    hits = []
    for rank, (row, score) in enumerate(found, start=1):
        if kind == "recording":
            image_id, utterance_id = gallery.image_ids[row], None
            described = gallery.utterance_ids[gallery.utterance_image_ids.index(image_id)]
            caption = captions.get(described)
        else:
            image_id, utterance_id = gallery.utterance_image_ids[row], gallery.utterance_ids[row]
            caption = captions.get(utterance_id)
        hits.append(Hit(rank, score, image_id, utterance_id, caption))
    return hits


class _Engine:
    """A loaded model of the project, and the embeddings of its corpus."""

    def __init__(self, params: Params, model_dir: Path) -> None:
        from brewline.models.card import load_backbone_hashes
        from brewline.models.names import BACKBONES_FOLDER
        from brewline.search.embedder import Embedder

        hashes = load_backbone_hashes()
        self.embedder = Embedder(
            model_dir, BACKBONES_FOLDER, hashes, params.asr, params.shard, params.runtime.device
        )
        self.card = self.embedder.card
        self._batch_size = params.runtime.embed_batch_size
        self.model_dir = model_dir

    def gallery(self, split: str) -> "SplitEmbeddings":
        """The embeddings of a split: from the cache, or made now and kept."""
        from brewline.evaluation.vectors import load_vectors, save_vectors
        from brewline.samples.shards import index_digest

        shards = Path("data/shards") / self.card.corpus
        states = self.card.states_folder()
        facts = [split, *(index_digest(folder) for folder in (shards, states) if folder)]
        name = fingerprint(load_versions().embed, facts, [self.model_dir])
        folder = work_dir("search", name)
        path = folder / "gallery.safetensors"
        if not path.exists():
            made = self.embedder.embed_gallery(shards, states, split, self._batch_size)
            save_vectors(path, {split: made})
        return load_vectors(path)[split]
