"""A model as it is served: one folder with all it needs, and answers to queries from strangers.

    serving.json          the corpus, and how recordings and pictures are prepared
    model/                the trained model's folder, to the byte
    gallery.safetensors   the corpus' test split as embeddings with their ids
    backbones/            the frozen Whisper and CLIP; large ones only once it is promoted

Where the backbones are not in the folder, they are looked for in the folder that
`BREWLINE_BACKBONES` names (`whisper.pt` and `clip/`, as `models/backbones`). Either way they are
used only if they are those that the model was trained on, by their hashes.

A query is hostile until shown otherwise: it brings bytes, never a path, what it costs is bounded
before it is decoded, and a decoder that does not end is ended.
"""

import base64
import binascii
import math
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from brewline.config import Params
from brewline.config.asr import AsrParams
from brewline.config.shard import ShardParams
from brewline.config.validate import ValidateParams
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json, sha256_tree, total_size, write_json
from brewline.evaluation.vectors import Embeddings, closest, load_vectors, save_vectors
from brewline.models.card import load_backbone_hashes, load_card
from brewline.models.names import (
    BACKBONES_FOLDER,
    CLIP_FOLDER,
    HUBERT_FOLDER,
    NAMES_FILE,
    WHISPER_FILE,
)
from brewline.quality.queries import GuardedChecks
from brewline.search.embedder import Embedder

BACKBONES_VARIABLE = "BREWLINE_BACKBONES"
BACKBONES = "backbones"
SETTINGS_FILE = "serving.json"
GALLERY_FILE = "gallery.safetensors"
MODEL = "model"
# Whose recordings and pictures are found.
_SPLIT = "test"
# The smallest published ones have several times as much.
_MAX_BUNDLED_MB = 100

MAX_RECORDS = 32
MAX_MB = 20
MAX_TEXT_LENGTH = 2000
# For decoding a recording or a picture; what passes the checks takes a second where all is busy.
MAX_DECODE_S = 20.0
_KINDS = ("audio", "image", "text")


class QueryError(Exception):
    """A query cannot be answered; the message is one sentence for the one who sent it."""


class ServingSettings(BaseModel):
    """What `serving.json` says: how queries are prepared, as the corpus was."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2] = 2
    corpus: str
    # Checks of the corpus' recordings and pictures, which those of a query pass too.
    limits: ValidateParams
    asr: AsrParams
    shard: ShardParams


def write_bundle(params: Params, corpus: str, model: Path, folder: Path, project: Path) -> None:
    """Fills `folder` with everything that serving a model takes.

    Small backbones come along; others are too large to be kept once per version, and
    `add_backbones` brings them when a version is promoted.

    Args:
        params: How the corpus was prepared.
        corpus: Whose test split becomes the gallery.
        model: The model's folder.
        folder: Must not exist.
        project: Its shards, states and backbones are read.

    Raises:
        BrewlineError: a file of the project is missing, or the backbones are not the model's.
    """
    backbones = project / BACKBONES_FOLDER
    hashes = load_backbone_hashes(backbones / NAMES_FILE)
    embedder = Embedder(model, backbones, hashes, params.asr, params.shard)
    gallery = embedder.embed_gallery(
        project / "data/shards" / corpus,
        embedder.card.states_folder(project),
        _SPLIT,
        params.runtime.embed_batch_size,
    )
    folder.mkdir(parents=True)
    shutil.copytree(model, folder / MODEL)
    save_vectors(folder / GALLERY_FILE, {_SPLIT: gallery})
    settings = ServingSettings(
        corpus=corpus,
        limits=params.validation,
        # The same weights without the extra that the other engine is.
        asr=params.asr.model_copy(update={"engine": "openai-whisper", "precision": "auto"}),
        shard=params.shard,
    )
    write_json(folder / SETTINGS_FILE, settings.model_dump())
    if total_size(backbones) <= _MAX_BUNDLED_MB * 1e6:
        add_backbones(folder, backbones)


def add_backbones(folder: Path, backbones: Path) -> None:
    """Copies the backbones of a model into its folder, after a check that they are its own.

    Raises:
        BrewlineError: they are missing, or others.
    """
    _check_backbones(load_card(folder / MODEL).backbones, backbones)
    (folder / BACKBONES).mkdir()
    shutil.copyfile(backbones / WHISPER_FILE, folder / BACKBONES / WHISPER_FILE)
    for name in (CLIP_FOLDER, HUBERT_FOLDER):
        if (backbones / name).exists():
            shutil.copytree(backbones / name, folder / BACKBONES / name)


def load_bundle(folder: Path, backbones: Path | None = None) -> "Served":
    """Loads a model that `write_bundle` wrote, with Whisper, ready to answer.

    Args:
        folder: The model with all it needs.
        backbones: Where to look for backbones that are not in the folder; by default what
            `BREWLINE_BACKBONES` says.

    Raises:
        BrewlineError: a file is missing or damaged, or the backbones are not the model's.
    """
    path = folder / SETTINGS_FILE
    try:
        settings = ServingSettings.model_validate(read_json(path))
    except FileNotFoundError:
        raise BrewlineError(f"{path} is missing: this is no model that Brewline serves") from None
    except ValidationError as error:
        places = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
        raise BrewlineError(
            f"another version of Brewline wrote what serves this model ({path.name}: {places}); "
            "delete the version in MLflow, and `dvc repro --force register` makes it anew"
        ) from None
    except ValueError as error:
        raise BrewlineError(f"{path} is damaged: {error}") from None
    card = load_card(folder / MODEL)
    if (folder / BACKBONES).is_dir():
        backbones = folder / BACKBONES
    elif backbones is None and os.environ.get(BACKBONES_VARIABLE):
        backbones = Path(os.environ[BACKBONES_VARIABLE])
    if backbones is None:
        raise BrewlineError(
            f"this model of {settings.corpus} was kept without its frozen backbones "
            f"({_name_hashes(card.backbones)}); set {BACKBONES_VARIABLE} to a folder that holds "
            f"{WHISPER_FILE} and {CLIP_FOLDER}/, such as {BACKBONES_FOLDER} of its project"
        )
    hashes = _check_backbones(card.backbones, backbones)
    embedder = Embedder(folder / MODEL, backbones, hashes, settings.asr, settings.shard)
    return Served(settings, embedder, folder / GALLERY_FILE)


def _name_hashes(backbones: Mapping[str, str | None]) -> str:
    return ", ".join(f"{role} {sha256}" for role, sha256 in backbones.items() if sha256)


def _check_backbones(needed: Mapping[str, str | None], folder: Path) -> dict[str, str]:
    """Returns the hashes of the backbones in `folder`, which must be those that are needed."""
    hashes = {}
    files = {"whisper": WHISPER_FILE, "clip": CLIP_FOLDER}
    if needed.get("hubert"):
        files["hubert"] = HUBERT_FOLDER
    for role, name in files.items():
        if not (folder / name).exists():
            raise BrewlineError(f"{folder / name} is missing; needed is {_name_hashes(needed)}")
        hashes[role] = sha256_tree(folder / name)
        if needed.get(role) not in (None, hashes[role]):
            raise BrewlineError(
                f"{folder / name} has the SHA-256 {hashes[role]}, but the model was trained on "
                f"{needed[role]}"
            )
    return hashes


class Served:
    """A loaded model that answers queries; several threads may ask at once."""

    def __init__(self, settings: ServingSettings, embedder: Embedder, gallery: Path) -> None:
        self.corpus = settings.corpus
        self.embedder = embedder
        self._checks = GuardedChecks(settings.limits, MAX_DECODE_S)
        self._gallery = load_vectors(gallery)[_SPLIT]
        # Whisper keeps what it has decoded so far in hooks on the model: one query at a time.
        self._lock = threading.Lock()
        # Loaded now, so that a damaged one is an error of starting and not of the first query.
        _ = embedder.recogniser
        acoustic = embedder.card.switches.acoustic
        if acoustic is not None and acoustic.hears_layers:
            _ = embedder.layered_encoder

    def answer(self, records: Sequence[Mapping[str, Any]], top_k: int) -> list[dict[str, Any]]:
        """Answers queries one by one.

        Args:
            records: Each has exactly one of `audio` and `image` (the bytes of a file, in base64)
                and `text`; the others may be missing, None or NaN.
            top_k: How many ids to return at most; 0 asks for the embedding instead.

        Returns:
            For each record `ids` and `scores` (cosines), best first: of pictures for a recording
            or a text, of recordings for a picture. With `top_k` 0: `embedding`, a unit vector. For
            a recording also `transcript`, what was heard.

        Raises:
            QueryError: naming the first record that cannot be answered, and why.
        """
        if not 1 <= len(records) <= MAX_RECORDS:
            raise QueryError(
                f"Send 1 to {MAX_RECORDS} records in one request, each with audio, image or text; "
                f"found {len(records)}."
            )
        if top_k < 0:
            raise QueryError(f"The parameter top_k must be 0 or more, not {top_k}.")
        answers = []
        for number, record in enumerate(records):
            try:
                kind, value = _the_query(record)
                with self._lock:
                    answers.append(self._answer(kind, value, top_k))
            except (QueryError, BrewlineError) as error:
                message = f"Record {number}: {error}"
                raise QueryError(message if message.endswith(".") else f"{message}.") from None
        return answers

    def _answer(self, kind: str, value: str, top_k: int) -> dict[str, Any]:
        if kind == "audio":
            return self.hear(_decode_base64(kind, value), top_k)
        if kind == "image":
            content = _decode_base64(kind, value)
            self._checks.look(content)
            targets, ids = self._gallery.utterance_embeddings, self._gallery.utterance_ids
            return _result(self.embedder.embed_photo(content), targets, ids, top_k)
        return self._find_image(self.embedder.embed_text(_check_text(value)), top_k)

    def hear(self, content: bytes, top_k: int) -> dict[str, Any]:
        """Answers the bytes of a recording; see `answer`.

        Raises:
            BrewlineError: it fails a check.
        """
        vector, transcript = self.embedder.embed_waveform(self._checks.hear(content))
        return {**self._find_image(vector, top_k), "transcript": transcript}

    def _find_image(self, vector: Embeddings, top_k: int) -> dict[str, Any]:
        return _result(vector, self._gallery.image_embeddings, self._gallery.image_ids, top_k)


def _result(vector: Embeddings, targets: Embeddings, ids: list[str], top_k: int) -> dict[str, Any]:
    if top_k == 0:
        return {"embedding": vector.tolist()}
    found = closest(targets, vector, top_k)
    return {"ids": [ids[row] for row, _ in found], "scores": [score for _, score in found]}


def _the_query(record: Mapping[str, Any]) -> tuple[str, str]:
    """The kind and the value of a record's one query."""
    given = {kind: record.get(kind) for kind in _KINDS}
    given = {kind: value for kind, value in given.items() if not _is_missing(value)}
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise QueryError(f"give exactly one of audio, image and text; found {found}")
    ((kind, value),) = given.items()
    if not isinstance(value, str):
        raise QueryError(f"{kind} must be a string, not {type(value).__name__}")
    return kind, value


def _is_missing(value: Any) -> bool:
    """Whether MLflow stands this in for a field that a record lacks, or that is null."""
    # Under `inputs` it makes a numpy array of strings of every column, and "None" of null.
    return value is None or value == "None" or (isinstance(value, float) and math.isnan(value))


def _decode_base64(kind: str, value: str) -> bytes:
    if len(value) * 3 / 4 > MAX_MB * 1e6:
        raise QueryError(f"{kind} is larger than {MAX_MB} MB")
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise QueryError(
            f"{kind} must be the bytes of a file in base64; paths and addresses are not read"
        ) from None
    if not content:
        raise QueryError(f"{kind} is empty")
    return content


def _check_text(text: str) -> str:
    if not text.strip():
        raise QueryError("text is empty")
    if len(text) > MAX_TEXT_LENGTH:
        raise QueryError(f"text has {len(text)} characters, more than {MAX_TEXT_LENGTH}")
    return text
