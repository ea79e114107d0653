"""What was decided about a version, kept for good: one tag for each decision, and its description.

A later decision adds a tag and overwrites none. The description, which is what the version's page
shows first, ends with the decisions: as many of the newest as it has room for.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

from brewline.tracking.store import Store

HISTORY_TAG = "history "
_HEADING = "\n\n## History\n"
# The columns of descriptions and tags in MLflow's schema are this wide.
_LONGEST_TEXT = 5000
# A comment may be a letter; a decision's numbers take less than this.
_LONGEST_REASON = 400


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def add_to_history(
    store: Store, name: str, number: str, what: str, reasons: Sequence[str], by: str = ""
) -> None:
    """Adds a decision to what is kept of a version, and to its description.

    Args:
        store: Where the version is.
        name: The registered model.
        number: The version.
        what: What was decided: "promoted".
        reasons: Sentences.
        by: Who decided, where a person did.
    """
    # To the microsecond: no two decisions share a tag.
    time = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    lines = [_short(reason) for reason in reasons]
    entry = json.dumps({"what": what, "by": _short(by), "reasons": lines}, ensure_ascii=False)
    store.client.set_model_version_tag(name, number, f"{HISTORY_TAG}{time}", entry)
    version = store.client.get_model_version(name, number)
    text = f"{(version.description or '').partition(_HEADING)[0]}{_HEADING}"
    for when, decision in reversed(read_history(version.tags)):
        shown = _as_markdown(when, decision)
        if len(text) + len(shown) > _LONGEST_TEXT:
            break
        text += shown
    store.client.update_model_version(name, number, text)


def read_history(tags: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """The decisions about a version, the oldest first: when, and `what`, `by` and `reasons`."""
    return [
        (name.removeprefix(HISTORY_TAG), json.loads(value))
        for name, value in sorted(tags.items())
        if name.startswith(HISTORY_TAG)
    ]


def _as_markdown(time: str, entry: Mapping[str, Any]) -> str:
    by = f" by {entry['by']}" if entry["by"] else ""
    reasons = "".join(f"\n    - {reason}" for reason in entry["reasons"])
    return f"\n- {time[:10]} {time[11:16]} UTC: **{entry['what']}**{by}{reasons}"


def _short(reason: str) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}…"
