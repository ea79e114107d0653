"""Splits out of the training part, where none are published."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.tables.listing import Listing


def held_out(groups: Iterable[str], fraction: float, seed: int = 0) -> set[str]:
    """Chooses which images (or speakers) of the training part become the dev split.

    The choice depends on the names and the seed alone: it is the same on every machine, whatever
    the order of the files.

    Args:
        groups: Names; duplicates count once.
        fraction: Share to choose, rounded to the nearest whole number of groups.
        seed: Another one gives another choice.
    """
    salt = f"{seed}:" if seed else ""
    ordered = sorted(set(groups), key=lambda name: hashlib.sha256((salt + name).encode()).digest())
    return set(ordered[: round(fraction * len(ordered))])


def with_dev(listings: list[Listing], source: SourceParams) -> list[Listing]:
    """Makes a dev split out of whole images of the training part; without images, of speakers.

    A corpus without a training part, which is there to measure on, needs none.

    Raises:
        BrewlineError: `dev_fraction` is not set, or there is a published dev split already.
    """
    if any(row.split == "dev" for row in listings):
        if source.dev_fraction is not None:
            raise BrewlineError(
                f"{source.reader}: there is a published dev split; remove dev_fraction", "settings"
            )
        return listings
    if source.dev_fraction is None and any(row.split == "train" for row in listings):
        raise BrewlineError(
            f"{source.reader}: no dev split is published; set dev_fraction for this source",
            "settings",
        )
    return _hold_out(listings, "dev", source.dev_fraction, source)


def with_test(listings: list[Listing], source: SourceParams) -> list[Listing]:
    """Makes a test split in the same way, before the dev split, if `test_fraction` is set.

    Raises:
        BrewlineError: there is one already.
    """
    if source.test_fraction is not None and any(row.split == "test" for row in listings):
        raise BrewlineError(
            f"{source.reader}: there is a test split already; remove test_fraction", "settings"
        )
    return _hold_out(listings, "test", source.test_fraction, source)


def _hold_out(
    listings: list[Listing], split: str, fraction: float | None, source: SourceParams
) -> list[Listing]:
    train = [row for row in listings if row.split == "train"]
    held = held_out(map(_group, train), fraction or 0.0, source.dev_seed or 0)
    return [
        replace(row, split=split) if row.split == "train" and _group(row) in held else row
        for row in listings
    ]


def _group(row: Listing) -> str:
    return row.image_id or row.speaker_id or row.utterance_id
