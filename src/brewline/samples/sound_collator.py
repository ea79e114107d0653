"""From clips to tensors: spectrograms of sounds, pictures of frames, token ids of captions."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brewline.config.variants import VariantParams
from brewline.core.errors import BrewlineError
from brewline.core.system import usable_cores
from brewline.media.audio import AudioError, waveform
from brewline.models.backbones import ClipBackbone
from brewline.models.hearing import find_hearing
from brewline.models.inputs import PictureInputs
from brewline.models.sounds import SoundInputs
from brewline.models.spectrogram import FRAME_S, Spectrogram
from brewline.models.views import picture_views
from brewline.samples.cache import OVERHEAD_BYTES, Cache
from brewline.samples.collator import decode_views, number_of, owners_of
from brewline.samples.utterance import BadSampleError, Utterance

_MB = 1 << 20
_MAX_DECODERS = 8


class SoundCollator:
    """Makes batches of clips for one variant.

    Args:
        segments: Equal parts of a clip without frames.
        hear: From the samples of a sound, at 16 kHz, to its spectrogram.
        views: From a PIL image to the squares that the model sees of it.
        tokenise: From texts to their ids, (texts, K).
        cache_mb: Memory for spectrograms.
    """

    def __init__(
        self,
        segments: int,
        hear: Callable[[Tensor], Spectrogram],
        views: Callable[[Any], Sequence[Any]],
        tokenise: Callable[[list[str]], Tensor],
        cache_mb: int,
    ) -> None:
        self._segments, self._hear = segments, hear
        self._views, self._tokenise = views, tokenise
        self._spectrograms: Cache[Spectrogram] = Cache(cache_mb * _MB)
        self._decoders = ThreadPoolExecutor(min(usable_cores(), _MAX_DECODERS))

    @classmethod
    def of(cls, backbone: ClipBackbone, switches: VariantParams, cache_mb: int) -> "SoundCollator":
        """Makes the inputs of a variant with `sound`.

        Args:
            backbone: Its tokeniser and preprocessing are used.
            switches: The variant.
            cache_mb: Memory for spectrograms.
        """
        params = switches.sound
        assert params is not None
        hear = find_hearing(params).spectrogram
        views = picture_views(backbone, switches.pictures)
        return cls(params.segments, hear, views, backbone.tokenizer, cache_mb)

    def sounds(self, clips: Sequence[Utterance], max_frames: int | None = None) -> SoundInputs:
        """The sounds of clips, and the times of their frames.

        Args:
            clips: With sounds.
            max_frames: L, of which a clip has no more frames; None: that of these clips.

        Raises:
            BrewlineError: a clip has no sound, or a damaged one.
        """
        spectrograms = list(self._decoders.map(self._spectrogram, clips))
        num_frames = torch.tensor([one.num_own for one in spectrograms])
        padded = torch.nn.utils.rnn.pad_sequence(
            [one.frames.float() for one in spectrograms], batch_first=True
        )
        times = [
            self._times(clip, one.num_own) for clip, one in zip(clips, spectrograms, strict=True)
        ]
        most = max_frames or max(map(len, times))
        times_s, mask = (
            torch.zeros(len(clips), most),
            torch.zeros(len(clips), most, dtype=torch.bool),
        )
        for number, one in enumerate(times):
            times_s[number, : len(one)] = torch.tensor(one)
            mask[number, : len(one)] = True
        return SoundInputs(padded, num_frames, times_s, mask)

    def pictures(self, clips: Sequence[Utterance]) -> PictureInputs:
        """What the model sees of all frames of clips, one after the other.

        Raises:
            BrewlineError: a frame is damaged.
        """
        frames = [(frame.image, clip.utterance_id) for clip in clips for frame in clip.frames]
        views = list(
            self._decoders.map(lambda one: decode_views(one[0], self._views, one[1]), frames)
        )
        return PictureInputs(len(views), torch.from_numpy(np.concatenate(views)), owners_of(views))

    def captions(self, clips: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        """The ids of all captions of clips, (B, C, K), and how many each has, (B,).

        Raises:
            BrewlineError: a clip has none.
        """
        for clip in clips:
            require_captioned(clip)
        counts = torch.tensor([len(clip.captions) for clip in clips])
        rows = self.tokens([caption for clip in clips for caption in clip.captions])
        token_ids = torch.zeros(len(clips), int(counts.max()), rows.shape[1], dtype=rows.dtype)
        token_ids[torch.arange(token_ids.shape[1]) < counts[:, None]] = rows
        return token_ids, counts

    def tokens(self, texts: list[str]) -> Tensor:
        """The ids of texts, (texts, K)."""
        return self._tokenise(texts)

    def _times(self, clip: Utterance, num_frames: int) -> list[float]:
        """The times of a clip's frames, or of the middles of equal parts."""
        if clip.frames:
            return [frame.time_s for frame in clip.frames]
        part_s = num_frames * FRAME_S / self._segments
        return [(number + 0.5) * part_s for number in range(self._segments)]

    def _spectrogram(self, clip: Utterance) -> Spectrogram:
        kept = self._spectrograms.get(clip.utterance_id)
        if kept is None:
            # In half precision, kept or not, so that a cache changes nothing.
            found = self._hear(_samples(clip))
            kept = Spectrogram(found.frames.half(), found.num_own)
            size = 2 * kept.frames.numel() + OVERHEAD_BYTES
            self._spectrograms.put(clip.utterance_id, kept, size)
        return kept


def clip_numbers(clips: Sequence[Utterance]) -> Tensor:
    """Numbers that are equal for equal clips, in every process; (B,)."""
    return torch.tensor([number_of(clip.utterance_id) for clip in clips])


def require_captioned(clip: Utterance) -> None:
    """Makes sure that a clip has captions.

    Raises:
        BrewlineError: it has none.
    """
    if not clip.captions:
        raise BrewlineError(
            f"clip {clip.utterance_id!r} has no caption; task audio_text needs a corpus with "
            "captions",
            "settings",
        )


def _samples(clip: Utterance) -> Tensor:
    if clip.sound is None:
        raise BrewlineError(
            f"{clip.utterance_id!r} has no sound; variants with `sound` need a corpus of clips",
            "settings",
        )
    try:
        return torch.from_numpy(waveform(clip.sound))
    except AudioError as error:
        raise BadSampleError(
            clip.utterance_id, f"the sound of clip {clip.utterance_id!r} is damaged: {error}"
        ) from None
