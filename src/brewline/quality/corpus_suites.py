"""What must hold for a corpus as a whole: Great Expectations suites, in code."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow

from brewline.config.sources import ExpectedParams
from brewline.config.validate import ValidateParams
from brewline.quality.expectations import Expectation, rule, run_suites
from brewline.quality.leaks import Leaks
from brewline.tables.listing import SPLITS, Listing
from brewline.tables.manifest import MANIFEST

if TYPE_CHECKING:
    import pandas

_LISTS = [field.name for field in MANIFEST if pyarrow.types.is_list(field.type)]
_PANDAS_TYPES = {"string": "str", "double": "float64", "int64": "int64", "bool": "bool"}

# What the suite of utterances looks at.
_CHECKED = [
    "utterance_id",
    "split",
    "duration_s",
    "sample_rate_hz",
    "num_channels",
    "audio_sha256",
]


@dataclass(frozen=True)
class Account:
    """What a corpus lists, and how much of it is quarantined; counts are by split."""

    num_utterances: Mapping[str, int]
    num_images: Mapping[str, int]
    num_quarantined: int

    @property
    def num_listed(self) -> int:
        return sum(self.num_utterances.values())


def account(listings: Iterable[Listing], num_quarantined: int) -> Account:
    """Counts what a corpus lists."""
    rows = list(listings)
    images = {(row.split, row.image_id) for row in rows if row.image_id is not None}
    return Account(
        Counter(row.split for row in rows), Counter(split for split, _ in images), num_quarantined
    )


def expect(
    utterances: "pandas.DataFrame",
    num_words: "pandas.Series[int]",
    listed: Account,
    leaks: Leaks,
    limits: ValidateParams,
    published: ExpectedParams | None = None,
    data_docs: Path | None = None,
) -> list[Expectation]:
    """Holds a corpus against its suites.

    Args:
        utterances: The manifest.
        num_words: Of its captions; see `count_words`.
        listed: What the corpus lists, and how much of it is quarantined.
        leaks: What is in two splits.
        limits: Thresholds.
        published: What the corpus should list.
        data_docs: Where to build Great Expectations' own pages, if at all.

    Returns:
        Every expectation with what was observed, table by table.
    """
    tables = _tables(utterances, num_words, listed, leaks, published)
    return run_suites(tables, _suites(tables, listed, limits, published), data_docs)


def _tables(
    utterances: "pandas.DataFrame",
    num_words: "pandas.Series[int]",
    listed: Account,
    leaks: Leaks,
    published: ExpectedParams | None,
) -> "dict[str, pandas.DataFrame]":
    """The manifest, and what is derived from it for the suites to look at."""
    import pandas

    images = utterances.dropna(subset=["image_id"]).groupby("image_id")["split"].nunique()
    speakers = utterances.groupby("speaker_id")["split"].nunique()
    counts = {
        "num_accounted_for": len(utterances) + listed.num_quarantined,
        "leaked_recordings": leaks.recordings_rate,
        "leaked_pictures": leaks.pictures_rate,
        "quarantine_rate": listed.num_quarantined / max(listed.num_listed, 1),
        **{name: count for name, count, _ in _published_counts(listed, published)},
    }
    return {
        "schema": utterances.assign(**_outlines(utterances)),
        "utterances": utterances[_CHECKED],
        "captions": pandas.DataFrame({"num_words": num_words}),
        "images": pandas.DataFrame({"num_splits": images}),
        "speakers": pandas.DataFrame({"num_splits": speakers}),
        "corpus": pandas.DataFrame({name: [count] for name, count in counts.items()}),
    }


def _outlines(utterances: "pandas.DataFrame") -> dict[str, Any]:
    """Columns in place of those of texts and lists, alike in their type and in what is null.

    Of each table Great Expectations makes a fingerprint, which takes seconds for the texts of a
    large corpus, and a pickle for lists. The suite of the schema looks into neither.
    """
    import pandas

    text_or_null = pandas.Series(["", None], dtype="str").array
    texts: dict[str, Any] = {
        str(name): text_or_null.take(column.isna().to_numpy(np.int64))
        for name, column in utterances.items()
        if column.dtype == "str"
    }
    return texts | dict.fromkeys(_LISTS)


def count_words(utterances: "pandas.DataFrame") -> "pandas.Series[int]":
    """The words of each caption, where there are captions, those of clips after the others."""
    import pandas

    of_clips = utterances["captions"].explode().dropna()
    captions = pandas.concat([utterances["caption"].dropna(), of_clips])
    words: pandas.Series[int] = captions.map(lambda caption: len(caption.split())).astype("int64")
    return words


def _published_counts(
    listed: Account, published: ExpectedParams | None
) -> Iterator[tuple[str, int, int]]:
    """Yields what is counted, how many the corpus lists, and how many it should."""
    if published is None:
        return
    for what, counts, known in (
        ("utterances", listed.num_utterances, published.utterances),
        ("images", listed.num_images, published.images),
    ):
        for splits, count in known.items():
            yield f"{what} of {splits}", sum(counts[s] for s in splits.split("+")), count


def _suites(
    tables: "Mapping[str, pandas.DataFrame]",
    listed: Account,
    limits: ValidateParams,
    published: ExpectedParams | None,
) -> dict[str, list[Any]]:
    """The suite of each table that the corpus has."""
    suites = {"schema": _schema_suite(), "utterances": _utterances_suite(listed, limits)}
    if len(tables["captions"]):
        suites["captions"] = _captions_suite(limits)
    if len(tables["images"]):
        suites["images"] = _one_split_suite("picture")
    if tables["schema"]["emotion"].notna().any():
        suites["speakers"] = _one_split_suite("speaker")
    return suites | {"corpus": _corpus_suite(listed, limits, published)}


def _schema_suite() -> list[Any]:
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectTableColumnsToMatchOrderedList(
            column_list=MANIFEST.names, **rule("the manifest has its columns, in their order")
        ),
        *(
            gxe.ExpectColumnValuesToBeOfType(
                column=field.name,
                type_=_PANDAS_TYPES[str(field.type)],
                **rule(f"{field.name} is of type {field.type}"),
            )
            for field in MANIFEST
            # pandas has no type for lists.
            if str(field.type) in _PANDAS_TYPES
        ),
        *(
            gxe.ExpectColumnValuesToNotBeNull(
                column=field.name, **rule(f"every utterance has its {field.name}")
            )
            for field in MANIFEST
            if not field.nullable
        ),
    ]


def _utterances_suite(listed: Account, limits: ValidateParams) -> list[Any]:
    import great_expectations.expectations as gxe

    splits = [split for split in SPLITS if listed.num_utterances.get(split)]
    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1, **rule("there are good utterances")),
        gxe.ExpectColumnValuesToBeUnique(
            column="utterance_id", **rule("no two utterances have the same id")
        ),
        gxe.ExpectColumnValuesToMatchRegex(
            column="utterance_id", regex="^[A-Za-z0-9_-]+$", **rule("ids are fit for shard keys")
        ),
        gxe.ExpectColumnDistinctValuesToBeInSet(
            column="split",
            value_set=["train", "dev", "test"],
            **rule("every utterance is in train, dev or test"),
        ),
        gxe.ExpectColumnDistinctValuesToContainSet(
            column="split",
            value_set=splits,
            **rule(f"{' and '.join(splits)}, which the corpus lists, are not empty"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="duration_s",
            min_value=limits.min_duration_s,
            max_value=limits.max_duration_s,
            **rule("durations are within their bounds"),
        ),
        gxe.ExpectColumnMedianToBeBetween(
            column="duration_s",
            min_value=limits.median_duration_s[0],
            max_value=limits.median_duration_s[1],
            **rule("the median duration is plausible"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="sample_rate_hz",
            min_value=limits.min_sample_rate_hz,
            **rule("sample rates are high enough"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="num_channels",
            min_value=1,
            max_value=limits.max_channels,
            **rule("recordings have no more channels than allowed"),
        ),
        gxe.ExpectColumnValuesToMatchRegex(
            column="audio_sha256",
            regex="^[0-9a-f]{64}$",
            **rule("every recording has its SHA-256"),
        ),
    ]


def _captions_suite(limits: ValidateParams) -> list[Any]:
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnMinToBeBetween(
            column="num_words", min_value=1, **rule("no caption is empty")
        ),
        gxe.ExpectColumnMedianToBeBetween(
            column="num_words",
            min_value=limits.median_caption_words[0],
            max_value=limits.median_caption_words[1],
            **rule("the median number of words in a caption is plausible"),
        ),
    ]


def _one_split_suite(what: str) -> list[Any]:
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnMaxToBeBetween(
            column="num_splits", max_value=1, **rule(f"no {what} is in two splits")
        )
    ]


def _corpus_suite(
    listed: Account, limits: ValidateParams, published: ExpectedParams | None
) -> list[Any]:
    import great_expectations.expectations as gxe

    tolerance = published.tolerance if published else 0.0
    return [
        # Of a table of one row, the largest value is the value.
        gxe.ExpectColumnMaxToBeBetween(
            column="num_accounted_for",
            min_value=listed.num_listed,
            max_value=listed.num_listed,
            **rule(
                f"all {listed.num_listed:,} listed utterances are in the manifest or in the "
                "quarantine"
            ),
        ),
        gxe.ExpectColumnMaxToBeBetween(
            column="quarantine_rate",
            max_value=limits.max_quarantine_rate,
            **rule(
                f"no more than {100 * limits.max_quarantine_rate:g} % of the utterances are "
                "quarantined"
            ),
        ),
        gxe.ExpectColumnMaxToBeBetween(
            column="leaked_recordings",
            max_value=limits.max_leaked_recordings,
            **rule(
                f"no more than {100 * limits.max_leaked_recordings:g} % of the recordings of dev "
                "and test have the samples of one in an earlier split"
            ),
        ),
        gxe.ExpectColumnMaxToBeBetween(
            column="leaked_pictures",
            max_value=limits.max_leaked_pictures,
            **rule(
                f"no more than {100 * limits.max_leaked_pictures:g} % of the pictures of dev and "
                "test look like one in an earlier split"
            ),
        ),
        *(
            gxe.ExpectColumnMaxToBeBetween(
                column=name,
                min_value=math.ceil(count * (1 - tolerance)),
                max_value=math.floor(count * (1 + tolerance)),
                **rule(f"the corpus lists as many {name} as published: {count:,}"),
            )
            for name, _, count in _published_counts(listed, published)
        ),
    ]
