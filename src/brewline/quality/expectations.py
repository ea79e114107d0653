"""Expectations held against tables by Great Expectations, each outcome in words."""

import importlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

# Offending values that are named where an expectation fails.
_MAX_EXAMPLES = 5


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


def import_ahead() -> threading.Thread:
    """Imports Great Expectations beside other work: it takes as long as a small corpus.

    Join the thread before anything else imports it: two imports at once each see half of it.
    """
    name = "great_expectations"
    thread = threading.Thread(target=importlib.import_module, args=(name,), daemon=True)
    thread.start()
    return thread


def run_suites(
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


def rule(text: str) -> dict[str, Any]:
    """The words of an expectation, as an argument of it."""
    return {"meta": {"rule": text}}


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
    missing = facts.get("partial_missing_list")
    if missing:
        return f"no {', '.join(map(str, missing))}"
    wrong = facts.get("partial_unexpected_list") or []
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
