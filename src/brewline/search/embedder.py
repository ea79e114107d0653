"""A trained model that embeds queries and a corpus.

A recording goes through what the corpus' recordings went through (decoding, Whisper, the model's
channels), a photo through what its pictures did, so nothing is done differently in search and
when a model is served.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from brewline.config.asr import AsrParams
from brewline.config.shard import ShardParams
from brewline.core.compute import DeviceName
from brewline.core.devices import choose_device
from brewline.core.errors import BrewlineError
from brewline.evaluation.embedding import embed_split
from brewline.evaluation.vectors import Embeddings, SplitEmbeddings
from brewline.media.pictures import shrink_jpeg
from brewline.models.backbones import load_clip
from brewline.models.folder import load_model
from brewline.models.names import CLIP_FOLDER, HUBERT_FOLDER, WHISPER_FILE
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator
from brewline.samples.shards import read_split
from brewline.samples.utterance import Utterance, confidence_in
from brewline.speech.layered_encoders import (
    LayeredEncoder,
    encode_recording,
    load_layered_encoder,
)
from brewline.speech.recogniser import Recogniser


class Embedder:
    """A trained model with its backbones, ready to embed queries and a corpus.

    Args:
        model_dir: The model's folder.
        backbones_dir: As stage `weights` makes it: `whisper.pt` and `clip/`.
        backbone_hashes: Their SHA-256, by role.
        asr: How speech is recognised.
        shard: How pictures are made small.
        device: Where the models run.

    Raises:
        BrewlineError: a file is missing or damaged, or the model belongs to other backbones.
    """

    def __init__(
        self,
        model_dir: Path,
        backbones_dir: Path,
        backbone_hashes: Mapping[str, str],
        asr: AsrParams,
        shard: ShardParams,
        device: DeviceName = "auto",
    ) -> None:
        backbone = load_clip(backbones_dir / CLIP_FOLDER)
        model, card = load_model(model_dir, backbone, backbone_hashes)
        self.card = card
        self.model = model.to(choose_device(device)).eval()
        self.collator = Collator(input_transforms(backbone, card.switches), card.switches)
        # A text that was written goes where a transcript goes.
        text_only = card.switches.model_copy(update={"acoustic": None, "fusion": "sum"})
        self._text_collator = Collator(input_transforms(backbone, text_only), text_only)
        self._whisper = backbones_dir / WHISPER_FILE
        self._hubert = backbones_dir / HUBERT_FOLDER
        # An answer needs the text alone; whether anybody speaks was checked before.
        self._asr = asr.model_copy(update={"word_times": False, "vad": "none"})
        self._device_name: DeviceName = device
        self._shard = shard

    @cached_property
    def recogniser(self) -> Recogniser:
        """Whisper, loaded the first time that something has to be heard."""
        return Recogniser(self._whisper, self._asr, self._device_name)

    @cached_property
    def layered_encoder(self) -> LayeredEncoder:
        """What gives the layers that the model hears, loaded as late as Whisper."""
        acoustic = self.card.switches.acoustic
        assert acoustic is not None and acoustic.encoder != "whisper"
        file = self._hubert if acoustic.encoder == "hubert" else self._whisper
        return load_layered_encoder(acoustic.encoder, file, self._asr, self._device)

    @property
    def _device(self) -> torch.device:
        return self.model.log_logit_scale.device

    def embed_waveform(self, waveform: NDArray[np.float32]) -> tuple[Embeddings, str]:
        """Returns the unit vector (D,) of a recording, and what Whisper heard in it.

        Args:
            waveform: (num_samples,) at 16 kHz, not empty; see `brewline.quality.queries.hear`.
        """
        recognition = self.recogniser.recognise([waveform])[0]
        states = recognition.states
        acoustic = self.card.switches.acoustic
        if acoustic is not None and acoustic.hears_layers:
            states = encode_recording(self.layered_encoder, waveform, acoustic.pool_frames)
        utterance = _query(
            transcript=recognition.text,
            num_frames=recognition.num_frames,
            states=states,
            confidence=confidence_in(recognition.text, recognition.avg_logprob),
        )
        with torch.no_grad():
            inputs = self.collator.utterance_inputs([utterance]).to(self._device)
            embeddings = self.model.encode_utterances(inputs).embeddings
        return embeddings[0].float().cpu().numpy(), recognition.text

    def embed_photo(self, content: bytes) -> Embeddings:
        """Returns the unit vector (D,) of a photo; see `brewline.quality.queries.look`."""
        utterance = _query(image=shrink_jpeg(content, self._shard))
        with torch.no_grad():
            pictures = self.collator.pictures([utterance]).to(self._device)
            vector: Embeddings = self.model.encode_images(pictures)[0].float().cpu().numpy()
        return vector

    def embed_text(self, text: str) -> Embeddings:
        """Returns the unit vector (D,) of a written description, by the text channel alone.

        Raises:
            BrewlineError: the model has no text channel.
        """
        if not self.card.switches.text:
            raise BrewlineError(f"variant {self.card.variant!r} hears speech and reads no text")
        inputs = self._text_collator.utterance_inputs([_query(transcript=text)]).to(self._device)
        with torch.no_grad():
            features = self.model.encode_text(inputs)
        vector: Embeddings = (
            torch.nn.functional.normalize(features, dim=-1)[0].float().cpu().numpy()
        )
        return vector

    def embed_gallery(
        self, shards: Path, states: Path | None, split: str, batch_size: int
    ) -> SplitEmbeddings:
        """Embeds a split.

        Args:
            shards: `data/shards/<corpus>`.
            states: `data/states/<corpus>`; needed where the model has an acoustic channel.
            split: train, dev or test.
            batch_size: Utterances, and images, at a time.
        """
        utterances = read_split(shards, split, states)
        return embed_split(self.model, self.collator, utterances, batch_size)


def _query(
    transcript: str = "",
    image: bytes | None = None,
    num_frames: int = 0,
    states: NDArray[np.float16] | None = None,
    confidence: float = 1.0,
) -> Utterance:
    """A query in the form of the corpus' samples; it has no caption but what was heard."""
    return Utterance(
        "query", "query", image, transcript, transcript, num_frames, states, confidence
    )
