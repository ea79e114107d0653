"""Search a corpus by a recording or by a photo, with a trained model.

A recording goes through what the corpus' recordings went through (decoding, Whisper, the model's
channels), a photo through what its pictures did, so nothing is done differently in search. The
embeddings of the corpus are kept under `work/search/`, by the content of the model and the shards.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from brewline import audio
from brewline.errors import BrewlineError
from brewline.files import atomic_path, fingerprint, read_json, work_dir
from brewline.params import Params
from brewline.results import model_names

if TYPE_CHECKING:
    from brewline.models.brewclip import BrewClip
    from brewline.shards import Utterance

Kind = Literal["recording", "photo"]

_CACHE_MB = 64


@dataclass(frozen=True)
class Gallery:
    """One split of a corpus as unit vectors, with what is shown of it.

    `utterances` (U, D) and `images` (I, D) are float32; `captions` are by utterance.
    """

    utterance_ids: list[str]
    utterance_image_ids: list[str]
    captions: list[str | None]
    image_ids: list[str]
    utterances: NDArray[np.float32]
    images: NDArray[np.float32]

    def caption_of_image(self, image_id: str) -> str | None:
        """The first caption of an image."""
        return self.captions[self.utterance_image_ids.index(image_id)]


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
    """What a search found, best first; `transcript` is what was heard in a recording."""

    kind: Kind
    corpus: str
    variant: str
    split: str
    gallery_size: int
    transcript: str | None
    hits: list[Hit]


def default_model(params: Params, models_dir: Path = Path("models")) -> Path:
    """The trained model that is best on dev, of the first corpus in the lists that has one.

    Variants that read captions instead of listening are left out.

    Raises:
        BrewlineError: nothing has been trained yet.
    """
    from brewline.embeddings import SELECTION_METRIC

    def score(folder: Path) -> float:
        return float(read_json(folder / "model.json")["dev"].get(SELECTION_METRIC, 0.0))

    for corpus in params.retrieval_corpora:
        folders = [
            models_dir / corpus / variant / name
            for variant in params.retrieval_corpora[corpus]
            if params.variants[variant].trained and params.variants[variant].transcript == "asr"
            for name in model_names(params, variant)
        ]
        made = [folder for folder in folders if (folder / "model.json").exists()]
        if made:
            return max(made, key=score)
    raise BrewlineError(f"{models_dir} holds no trained model; run `dvc repro`")


def kind_of(content: bytes, name: str) -> Kind:
    """Tells a recording from a photo by its content.

    Raises:
        BrewlineError: it is neither, or it is one that cannot be decoded.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
        return "photo"
    except UnidentifiedImageError:
        pass
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrewlineError(f"{name} is a damaged picture: {error}") from None
    try:
        audio.decode(content)
    except audio.AudioError as error:
        if error.reason in ("not_audio", "empty_file"):
            raise BrewlineError(
                f"{name} is neither a recording (WAV, FLAC, OGG, MP3) nor a picture (JPEG, PNG): "
                f"{error.detail}"
            ) from None
        raise BrewlineError(f"{name} is a damaged recording: {error.detail}") from None
    return "recording"


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
        BrewlineError: the query is neither, or a file of the project is missing.
    """
    try:
        content = query.read_bytes()
    except OSError as error:
        raise BrewlineError(f"{query} cannot be read: {error.strerror}") from None
    kind = kind_of(content, query.name)
    engine = _Engine(params, model_dir or default_model(params))
    gallery = engine.gallery(split)
    transcript = None
    if kind == "recording":
        embedding, transcript = engine.embed_recording(content)
        targets = gallery.images
    else:
        embedding = engine.embed_photo(content)
        targets = gallery.utterances
    return Answer(
        kind=kind,
        corpus=engine.card.corpus,
        variant=engine.card.variant,
        split=split,
        gallery_size=len(targets),
        transcript=transcript,
        hits=_rank(gallery, kind, targets @ embedding, top),
    )


def _rank(gallery: Gallery, kind: Kind, scores: NDArray[np.float32], top: int) -> list[Hit]:
    hits = []
    # A stable order, so that equal scores give equal answers.
    for rank, index in enumerate(np.argsort(-scores, kind="stable")[:top], start=1):
        if kind == "recording":
            image_id, utterance_id = gallery.image_ids[index], None
            caption = gallery.caption_of_image(image_id)
        else:
            image_id, utterance_id = (
                gallery.utterance_image_ids[index],
                gallery.utterance_ids[index],
            )
            caption = gallery.captions[index]
        hits.append(Hit(rank, float(scores[index]), image_id, utterance_id, caption))
    return hits


class _Engine:
    """A loaded model with what it needs to embed queries and a corpus."""

    def __init__(self, params: Params, model_dir: Path) -> None:
        from brewline.batches import Collator
        from brewline.devices import choose_device
        from brewline.models.backbones import load_clip
        from brewline.models.card import load_backbone_hashes
        from brewline.models.checkpoint import load_model

        backbone = load_clip()
        model, card = load_model(model_dir, backbone, load_backbone_hashes())
        self._params = params
        self._model_dir = model_dir
        self._model: BrewClip = model.to(choose_device()).eval()
        self._collator: Collator = Collator(backbone, card.switches, card.acoustic, _CACHE_MB)
        self.card = card

    def gallery(self, split: str) -> Gallery:
        """The embeddings of a split: from the cache, or made now and kept."""
        shards = Path("data/shards") / self.card.corpus
        states = Path("data/states") / self.card.corpus if self.card.switches.acoustic else None
        index = shards / "index.json"
        for path in (index, *([states] if states else [])):
            if not path.exists():
                raise BrewlineError(f"{path} is missing; run `dvc repro` or `dvc checkout`")
        # The index holds the hash of every shard. States have none, and hashing more than a
        # hundred gigabytes would take longer than any search: their sizes and times must do.
        facts = {"split": split, "states": _stamps(states) if states else None}
        path = work_dir("search", fingerprint(facts, [self._model_dir, index])) / "gallery.npz"
        if not path.exists():
            _save_gallery(path, self._embed(split, shards, states))
        return _load_gallery(path)

    def _embed(self, split: str, shards: Path, states: Path | None) -> Gallery:
        from brewline.embeddings import embed_split
        from brewline.shards import read_split

        captions: list[str | None] = []

        def utterances() -> Any:
            for utterance in read_split(shards, split, states):
                captions.append(utterance.caption)
                yield utterance

        batch_size = self._params.evaluate.batch_size
        embedded = embed_split(self._model, self._collator, utterances(), batch_size)
        return Gallery(
            utterance_ids=embedded.utterance_ids,
            utterance_image_ids=embedded.utterance_image_ids,
            captions=captions,
            image_ids=embedded.image_ids,
            utterances=embedded.utterance_embeddings.astype(np.float32),
            images=embedded.image_embeddings.astype(np.float32),
        )

    def embed_recording(self, content: bytes) -> tuple[NDArray[np.float32], str]:
        """Returns the unit vector (D,) of a recording, and what Whisper heard in it."""
        import torch

        from brewline.asr import Recogniser

        waveform = audio.to_mono_16k(audio.decode(content))
        if not len(waveform):
            raise BrewlineError("the recording has no samples")
        recogniser = Recogniser(Path("models/backbones/whisper.pt"), self._params.asr)
        recognition = recogniser.recognise([waveform])[0]
        utterance = _query(
            transcript=recognition.text,
            num_frames=len(recognition.states),
            states=recognition.states,
        )
        with torch.no_grad():
            inputs = self._collator.utterance_inputs([utterance]).to(self._device)
            embeddings = self._model.encode_utterances(inputs).embeddings
        return embeddings[0].float().cpu().numpy(), recognition.text

    def embed_photo(self, content: bytes) -> NDArray[np.float32]:
        """Returns the unit vector (D,) of a photo."""
        import torch

        from brewline.packing import shrink_jpeg

        utterance = _query(image=shrink_jpeg(content, self._params.shard))
        with torch.no_grad():
            pixels = self._collator.pixels([utterance]).to(self._device)
            embeddings = self._model.encode_images(pixels)
        vector: NDArray[np.float32] = embeddings[0].float().cpu().numpy()
        return vector

    @property
    def _device(self) -> Any:
        return self._model.log_logit_scale.device


def _stamps(folder: Path) -> list[tuple[str, int, int]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _query(
    transcript: str = "",
    image: bytes | None = None,
    num_frames: int = 0,
    states: NDArray[np.float16] | None = None,
) -> "Utterance":
    """A query in the form of the corpus' samples; it has no caption but what was heard."""
    from brewline.shards import Utterance

    return Utterance("query", "query", image, transcript, transcript, num_frames, states)


def _save_gallery(path: Path, gallery: Gallery) -> None:
    names = {
        "utterance_ids": gallery.utterance_ids,
        "utterance_image_ids": gallery.utterance_image_ids,
        "captions": gallery.captions,
        "image_ids": gallery.image_ids,
    }
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(
            file,
            utterances=gallery.utterances,
            images=gallery.images,
            # Texts as JSON: numpy would pad each to the longest, or pickle them.
            names=np.frombuffer(json.dumps(names).encode(), dtype=np.uint8),
        )


def _load_gallery(path: Path) -> Gallery:
    with np.load(path, allow_pickle=False) as arrays:
        names = json.loads(arrays["names"].tobytes())
        return Gallery(**names, utterances=arrays["utterances"], images=arrays["images"])


def search_page(query: Path, answer: Answer) -> str:
    """The answer as a self-contained page with pictures and players.

    Reads the recordings and pictures from the project's corpus.

    Raises:
        BrewlineError: a file of the corpus is missing.
    """
    from brewline import reporting, results

    media = reporting.CorpusMedia(
        answer.corpus,
        Path("data/manifest") / f"{answer.corpus}.parquet",
        reporting.stored_media(Path("data/raw")),
    )
    content = query.read_bytes()
    album = reporting.Album("picture-", media.image)
    asked = reporting.Album("query-", lambda _: content)
    hits = [
        {
            "hit": hit,
            "image": album.picture(hit.image_id),
            "audio": reporting.audio_uri(media.audio(hit.utterance_id)) if hit.utterance_id else "",
        }
        for hit in answer.hits
    ]
    is_photo = answer.kind == "photo"
    query_image = asked.picture(query.name) if is_photo else None
    return reporting.render(
        "search.html.j2",
        answer=answer,
        name=query.name,
        query_audio="" if is_photo else reporting.audio_uri(content),
        query_image=query_image,
        hits=hits,
        images=[*asked.pictures.values(), *album.pictures.values()],
        miniature_notice=(results.MINIATURE_NOTICE if results.is_miniature(answer.corpus) else ""),
    )
