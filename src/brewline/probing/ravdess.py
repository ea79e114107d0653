"""What others agreed on for RAVDESS: which emotions are told apart, and which actors are held out.

The protocols name RAVDESS' own actors, so other corpora take `by_speaker`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from brewline.core.errors import BrewlineError

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


def classes_of(labels: str, emotions: Iterable[str], corpus: str = "this corpus") -> list[str]:
    """What a label set tells apart, of what a corpus has, in the order of the set.

    A class is known by its number in this list, to probes and to fine-tuned models alike.

    Args:
        labels: A name in `LABEL_SETS`.
        emotions: Of the recordings; those that are in no class are passed over.
        corpus: What it is called.

    Raises:
        BrewlineError: there is nothing to tell apart.
    """
    counted_as = LABEL_SETS[labels]
    occurring = {counted_as[one] for one in emotions if one in counted_as}
    classes = [one for one in dict.fromkeys(counted_as.values()) if one in occurring]
    if len(classes) < 2:
        raise BrewlineError(
            f"label set {labels!r} finds {', '.join(classes) or 'no emotion'} alone in {corpus}, "
            "and there is nothing to tell apart; choose other labels",
            "settings",
        )
    return classes


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
