"""Which recordings a classifier is trained, chosen and tested on.

No speaker of a test is heard in training, and no recording of a test either: where the same samples
lie under a second name, the training part goes without it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brewline.core.errors import BrewlineError
from brewline.probing.ravdess import PROTOCOLS, Fold

Rows = NDArray[np.int64]
# Of the speakers of training: those on whom the penalty is chosen.
_VALIDATION_SHARE = 0.25


@dataclass(frozen=True)
class Split:
    """Rows of a table of recordings; `fit` and `validation` are parts of `train`."""

    train: Rows
    fit: Rows
    validation: Rows
    test: Rows


def protocol_folds(protocol: str, speakers: Sequence[str], num_parts: int) -> list[Fold]:
    """Who is held out together.

    Args:
        protocol: One of `PROTOCOLS`, or `by_speaker`, which cuts the speakers, in the order of
            their names, into parts of equal size.
        speakers: Of the corpus, each once or more often.
        num_parts: How many parts.

    Raises:
        BrewlineError: the protocol holds out speakers that the corpus does not have, or there are
            too few of them.
    """
    known = sorted(set(speakers))
    if protocol == "by_speaker":
        # One part is tested, and of the others one speaker at least is left to choose on.
        if len(known) < max(num_parts, 3):
            raise BrewlineError(
                f"{len(known)} speakers cannot be cut into {num_parts} parts; lower "
                "speaker_folds, for which three speakers are needed at least",
                "settings",
            )
        parts = np.array_split(np.array(known), num_parts)
        return [Fold(frozenset(map(str, part))) for part in parts]
    folds = list(PROTOCOLS[protocol])
    missing = sorted(frozenset().union(*(one.test | one.validation for one in folds)) - {*known})
    if missing:
        raise BrewlineError(
            f"protocol {protocol!r} holds out actors of RAVDESS, of which this corpus has no "
            f"{', '.join(missing)}; use by_speaker",
            "settings",
        )
    return folds


def split_by_speaker(
    fold: Fold, speakers: Sequence[str], contents: Sequence[str], seed: int
) -> Split:
    """The rows of a fold.

    Args:
        fold: Who is held out.
        speakers: Of each row.
        contents: What each row sounds like: equal for equal samples.
        seed: Draws the speakers of `validation`, where the fold names none.
    """
    speaker_U = np.asarray(speakers)
    is_test = np.isin(speaker_U, list(fold.test))
    chosen = fold.validation
    if not chosen:
        others = sorted(set(speakers) - fold.test)
        count = max(1, round(_VALIDATION_SHARE * len(others)))
        rng = np.random.default_rng(seed)
        chosen = frozenset(map(str, rng.choice(others, count, replace=False)))
    return _split(is_test, np.isin(speaker_U, list(chosen)), contents)


def random_splits(
    contents: Sequence[str], labels: NDArray[np.int64], num_parts: int, seed: int
) -> Iterator[Split]:
    """Parts drawn by lot, whoever speaks: what a test with known voices would say.

    Each of them has its share of every label.
    """
    _, first, content_U = np.unique(np.asarray(contents), return_index=True, return_inverse=True)
    drawn = np.random.default_rng(seed).permutation(len(first))
    by_label = drawn[np.argsort(labels[first][drawn], kind="stable")]
    # Of each part two halves: of the part behind the tested one, the first is chosen on.
    half = np.empty(len(first), np.int64)
    half[by_label] = np.arange(len(first)) % (2 * num_parts)
    half_U = half[content_U]
    for part in range(num_parts):
        is_validation = half_U == 2 * (part + 1) % (2 * num_parts)
        yield _split(half_U // 2 == part, is_validation, contents)


def _split(
    is_test: NDArray[np.bool_], is_validation: NDArray[np.bool_], contents: Sequence[str]
) -> Split:
    content_U = np.asarray(contents)
    is_train = ~is_test & ~np.isin(content_U, content_U[is_test])
    is_validation = is_train & is_validation
    is_fit = is_train & ~is_validation & ~np.isin(content_U, content_U[is_validation])
    train, fit, validation, test = (
        np.flatnonzero(mask) for mask in (is_train, is_fit, is_validation, is_test)
    )
    return Split(train, fit, validation, test)
