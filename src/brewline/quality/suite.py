"""What must hold for a corpus as a whole: Great Expectations suites, in code."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewline.config.params import ExpectedParams, ValidateParams
from brewline.corpora.reading import Listing
from brewline.tables.manifest import DROPPED, FAILED, MANIFEST, OK, TRANSCRIPTS

if TYPE_CHECKING:
    import pandas

# Offending values that are named where an expectation fails.
_MAX_EXAMPLES = 5
_PANDAS_TYPES = {"string": "str", "double": "float64", "int64": "int64"}


@dataclass(frozen=True)
class Expectation:
    """The outcome of one expectation on a corpus.

    `table` names what it looks at, `rule` says in words what must hold, `name` is what Great
    Expectations calls it with its settings.
    """

    table: str
    rule: str
    name: str
    success: bool
    observed: str


def complaints(failed: Iterable[Expectation]) -> str:
    """What is not met, with what was observed instead."""
    return "; ".join(f"{one.rule} (observed {one.observed}; {one.name})" for one in failed)


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
    listed: Account,
    limits: ValidateParams,
    published: ExpectedParams | None = None,
    data_docs: Path | None = None,
) -> list[Expectation]:
    """Holds a corpus against its suites.

    Args:
        utterances: The manifest.
        listed: What the corpus lists, and how much of it is quarantined.
        limits: Thresholds.
        published: What the corpus should list.
        data_docs: Where to build Great Expectations' own pages, if at all.

    Returns:
        Every expectation with what was observed, table by table.
    """
    tables = _tables(utterances, listed, published)
    return _run(tables, _suites(tables, listed, limits, published), data_docs)


def expect_transcripts(
    transcripts: "pandas.DataFrame", utterances: "pandas.DataFrame", max_failure_rate: float
) -> list[Expectation]:
    """Holds the transcripts of a corpus against their suite.

    Args:
        transcripts: The table.
        utterances: The manifest.
        max_failure_rate: Share of the recordings that may have failed.

    Returns:
        Every expectation with what was observed.
    """
    import pandas

    failed = float((transcripts["status"] != OK).mean())
    tables = {
        "transcripts": transcripts,
        "corpus": pandas.DataFrame({"failure_rate": [failed]}),
    }
    return _run(tables, _transcripts_suites(utterances, max_failure_rate))


def _run(
    tables: "Mapping[str, pandas.DataFrame]",
    suites: Mapping[str, list[Any]],
    data_docs: Path | None = None,
) -> list[Expectation]:
    """Holds each table against the suite of its name."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("brewline")
    outcomes = []
    for name, expectations in suites.items():
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=name, data=batch, suite=suite)
        )
        result = definition.run(
            batch_parameters={"dataframe": tables[name]}, result_format="SUMMARY"
        )
        outcomes += [_outcome(name, each) for each in result.to_json_dict()["results"]]
    if data_docs:
        _build_data_docs(context, data_docs)
    return outcomes


def _tables(
    utterances: "pandas.DataFrame", listed: Account, published: ExpectedParams | None
) -> "dict[str, pandas.DataFrame]":
    """The manifest, and what is derived from it for the suites to look at."""
    import pandas

    images = utterances.dropna(subset=["image_id"]).groupby("image_id")["split"].nunique()
    speakers = utterances.groupby("speaker_id")["split"].nunique()
    counts = {
        "num_accounted_for": len(utterances) + listed.num_quarantined,
        "quarantine_rate": listed.num_quarantined / max(listed.num_listed, 1),
        **{name: count for name, count, _ in _published_counts(listed, published)},
    }
    return {
        "schema": utterances,
        "utterances": utterances,
        "captions": pandas.DataFrame({"num_words": count_words(utterances)}),
        "images": pandas.DataFrame({"num_splits": images}),
        "speakers": pandas.DataFrame({"num_splits": speakers}),
        "corpus": pandas.DataFrame({name: [count] for name, count in counts.items()}),
    }


def count_words(utterances: "pandas.DataFrame") -> "pandas.Series[int]":
    """The words of each caption, where there are captions."""
    return utterances["caption"].dropna().map(lambda caption: len(caption.split()))


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
    suites = {"schema": _schema_suite(), "utterances": _utterances_suite(limits)}
    if len(tables["captions"]):
        suites["captions"] = _captions_suite(limits)
    if len(tables["images"]):
        suites["images"] = _one_split_suite("picture")
    if tables["utterances"]["emotion"].notna().any():
        suites["speakers"] = _one_split_suite("speaker")
    return suites | {"corpus": _corpus_suite(listed, limits, published)}


def _rule(text: str) -> dict[str, Any]:
    return {"meta": {"rule": text}}


def _schema_suite() -> list[Any]:
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectTableColumnsToMatchOrderedList(
            column_list=MANIFEST.names, **_rule("the manifest has its columns, in their order")
        ),
        *(
            gxe.ExpectColumnValuesToBeOfType(
                column=field.name,
                type_=_PANDAS_TYPES[str(field.type)],
                **_rule(f"{field.name} is of type {field.type}"),
            )
            for field in MANIFEST
        ),
        *(
            gxe.ExpectColumnValuesToNotBeNull(
                column=field.name, **_rule(f"every utterance has its {field.name}")
            )
            for field in MANIFEST
            if not field.nullable
        ),
    ]


def _utterances_suite(limits: ValidateParams) -> list[Any]:
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1, **_rule("there are good utterances")),
        gxe.ExpectColumnValuesToBeUnique(
            column="utterance_id", **_rule("no two utterances have the same id")
        ),
        gxe.ExpectColumnValuesToMatchRegex(
            column="utterance_id", regex="^[A-Za-z0-9_-]+$", **_rule("ids are fit for shard keys")
        ),
        gxe.ExpectColumnDistinctValuesToBeInSet(
            column="split",
            value_set=["train", "dev", "test"],
            **_rule("every utterance is in train, dev or test"),
        ),
        gxe.ExpectColumnDistinctValuesToContainSet(
            column="split", value_set=["train", "test"], **_rule("train and test are not empty")
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="duration_s",
            min_value=limits.min_duration_s,
            max_value=limits.max_duration_s,
            **_rule("durations are within their bounds"),
        ),
        gxe.ExpectColumnMedianToBeBetween(
            column="duration_s",
            min_value=limits.median_duration_s[0],
            max_value=limits.median_duration_s[1],
            **_rule("the median duration is plausible"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="sample_rate_hz",
            min_value=limits.min_sample_rate_hz,
            **_rule("sample rates are high enough"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="num_channels",
            min_value=1,
            max_value=limits.max_channels,
            **_rule("recordings have no more channels than allowed"),
        ),
        gxe.ExpectColumnValuesToMatchRegex(
            column="audio_sha256",
            regex="^[0-9a-f]{64}$",
            **_rule("every recording has its SHA-256"),
        ),
    ]


def _captions_suite(limits: ValidateParams) -> list[Any]:
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnMinToBeBetween(
            column="num_words", min_value=1, **_rule("no caption is empty")
        ),
        gxe.ExpectColumnMedianToBeBetween(
            column="num_words",
            min_value=limits.median_caption_words[0],
            max_value=limits.median_caption_words[1],
            **_rule("the median number of words in a caption is plausible"),
        ),
    ]


def _one_split_suite(what: str) -> list[Any]:
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnMaxToBeBetween(
            column="num_splits", max_value=1, **_rule(f"no {what} is in two splits")
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
            **_rule(
                f"all {listed.num_listed:,} listed utterances are in the manifest or in the "
                "quarantine"
            ),
        ),
        gxe.ExpectColumnMaxToBeBetween(
            column="quarantine_rate",
            max_value=limits.max_quarantine_rate,
            **_rule(
                f"no more than {100 * limits.max_quarantine_rate:g} % of the utterances are "
                "quarantined"
            ),
        ),
        *(
            gxe.ExpectColumnMaxToBeBetween(
                column=name,
                min_value=math.ceil(count * (1 - tolerance)),
                max_value=math.floor(count * (1 + tolerance)),
                **_rule(f"the corpus lists as many {name} as published: {count:,}"),
            )
            for name, _, count in _published_counts(listed, published)
        ),
    ]


def _transcripts_suites(
    utterances: "pandas.DataFrame", max_failure_rate: float
) -> dict[str, list[Any]]:
    import great_expectations.expectations as gxe

    return {
        "transcripts": [
            gxe.ExpectTableColumnsToMatchOrderedList(
                column_list=TRANSCRIPTS.names,
                **_rule("the table has its columns, in their order"),
            ),
            gxe.ExpectTableRowCountToEqual(
                value=len(utterances),
                **_rule(f"all {len(utterances):,} good utterances have a row"),
            ),
            gxe.ExpectColumnValuesToBeUnique(
                column="utterance_id", **_rule("no utterance has two rows")
            ),
            gxe.ExpectColumnDistinctValuesToBeInSet(
                column="status",
                value_set=[OK, FAILED, DROPPED],
                **_rule("every row is ok, failed or dropped"),
            ),
            gxe.ExpectColumnValuesToNotBeNull(
                column="text", **_rule("every row has a text, which may be empty")
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column="avg_logprob", max_value=0.0, **_rule("log-probabilities are not positive")
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column="num_frames", min_value=0, **_rule("frames are counted")
            ),
        ],
        "corpus": [
            gxe.ExpectColumnMaxToBeBetween(
                column="failure_rate",
                max_value=max_failure_rate,
                **_rule(f"no more than {100 * max_failure_rate:g} % of the recordings failed"),
            )
        ],
    }


def _outcome(table: str, result: dict[str, Any]) -> Expectation:
    config = result["expectation_config"]
    settings = {k: v for k, v in config["kwargs"].items() if k not in ("batch_id", "column_list")}
    called = ", ".join(f"{key}={value}" for key, value in settings.items())
    return Expectation(
        table=table,
        rule=config["meta"]["rule"],
        name=f"{table}: {config['type']}({called})",
        success=result["success"],
        observed=_observed(result),
    )


def _observed(result: dict[str, Any]) -> str:
    trouble = [e["exception_message"] for e in _exceptions(result) if e["raised_exception"]]
    if trouble:
        return "; ".join(trouble)
    facts = result["result"]
    value = facts.get("observed_value")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if value is not None:
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    wrong = facts.get("partial_unexpected_list") or facts.get("partial_missing_list") or []
    examples = ", ".join(map(str, wrong[:_MAX_EXAMPLES]))
    total = facts.get("element_count")
    if result["success"]:
        return f"all {total:,}" if total else "so it is"
    return (
        f"not so for {facts['unexpected_count']:,} of {total:,}: {examples}" if total else examples
    )


def _exceptions(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The errors raised by a check itself: one, or one per metric."""
    info = result["exception_info"]
    return [info] if "raised_exception" in info else list(info.values())


def _build_data_docs(context: Any, folder: Path) -> None:
    """Builds Great Expectations' own pages about what was validated last."""
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.absolute())}
    site = {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": store,
    }
    context.add_data_docs_site(site_name="data_docs", site_config=site)
    context.build_data_docs(site_names=["data_docs"])
