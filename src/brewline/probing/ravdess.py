"""What others agreed on for RAVDESS: which emotions are told apart, and which actors are held out.

The protocols name RAVDESS' own actors, so other corpora take `by_speaker`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

_EIGHT = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
_FOUR = ("neutral", "happy", "sad", "angry")

# By name: what each emotion of the corpus counts as; the others are left out.
LABEL_SETS: Mapping[str, Mapping[str, str]] = {
    # BrewCLIP's: its paper says "neutral, happy, sad, angry", and its code counts calm as neutral.
    # A third of the clips is neutral then: what its row of the pipeline alone reaches.
    "paper4": {"calm": "neutral", **{one: one for one in _FOUR}},
    "strict4": {one: one for one in _FOUR},
    "all8": {one: one for one in _EIGHT},
}


@dataclass(frozen=True)
class Fold:
    """Speakers that are tested, and those on whom the penalty is chosen; none: some are drawn."""

    test: frozenset[str]
    validation: frozenset[str] = field(default_factory=frozenset)


def _actors(*numbers: int) -> frozenset[str]:
    return frozenset(f"{number:02d}" for number in numbers)


PROTOCOLS: Mapping[str, tuple[Fold, ...]] = {
    # BrewCLIP (arXiv 2408.10383): the code trains on the actors 1 to 18.
    "paper": (Fold(_actors(*range(19, 25))),),
    # EmoBox (Ma et al., 2024), data/ravdess/: six folds of four actors, 240 recordings each. There
    # the validation is a random fifth of the training part, with the same speakers; here others.
    "emobox": tuple(
        Fold(_actors(*numbers))
        for numbers in (
            (1, 11, 20, 21),
            (4, 10, 12, 14),
            (8, 9, 19, 23),
            (3, 5, 7, 24),
            (2, 15, 16, 18),
            (6, 13, 17, 22),
        )
    ),
    # SERAB (Scheidwasser-Clow et al., 2022): one split by speaker, as its code draws it.
    "serab": (Fold(_actors(1, 4, 13, 16, 22), _actors(6, 8, 10, 19, 20)),),
}


def gender_of(actor: str) -> str:
    """RAVDESS numbers its actors so that odd ones are male."""
    return "male" if int(actor) % 2 else "female"
