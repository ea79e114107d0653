"""What is asked in a search, and what was found."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from brewline.config import load_versions
from brewline.core.files import fingerprint, work_dir

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["recording", "photo", "text"]
Found = Literal["pictures", "recordings", "clips"]


class Question(NamedTuple):
    """One of: samples at 16 kHz, (num_samples,); a picture as a file; words. Checked already."""

    waveform: "NDArray[np.float32] | None" = None
    photo: bytes | None = None
    text: str | None = None

    @property
    def kind(self) -> Kind:
        """Which of them it is."""
        if self.waveform is not None:
            return "recording"
        return "text" if self.photo is None else "photo"


@dataclass(frozen=True)
class Hit:
    """Something found; `utterance_id` is None where a picture was looked for.

    A clip has its id as both; of its frames, `frame` is the one to show.
    """

    rank: int
    score: float
    image_id: str
    utterance_id: str | None
    caption: str | None
    frame: int | None = None


@dataclass(frozen=True)
class Answer:
    """What a search found, best first; `model` is `<experiment>/seed-<n>`.

    `transcript` is what a model of speech heard in a recording.
    """

    kind: Kind
    found: Found
    corpus: str
    model: str
    split: str
    gallery_size: int
    transcript: str | None
    hits: list[Hit]


def kept_gallery(model_dir: Path, facts: list[Any]) -> Path:
    """Where under `work/search/` the vectors of a split are kept.

    Args:
        model_dir: The model, whose content they depend on.
        facts: What else they depend on.
    """
    name = fingerprint(load_versions().embed, facts, [model_dir])
    return work_dir("search", name) / "gallery.safetensors"
