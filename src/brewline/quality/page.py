"""The validation of a corpus as one page that opens anywhere without a network."""

from collections.abc import Iterable, Mapping
from typing import Any

from brewline.media.archives import MediaStore
from brewline.pages import charts
from brewline.pages.players import Players, note
from brewline.pages.render import markup, render
from brewline.quality.results import Distribution, Results

# Dropped utterances that are shown; all are in the quarantine.
_MAX_ROWS = 200
# Recordings of a reason that can be heard.
_MAX_PLAYERS_PER_REASON = 3

_TABLES = {
    "corpus": "The corpus",
    "utterances": "Utterances",
    "captions": "Captions",
    "images": "Pictures",
    "speakers": "Speakers",
    "schema": "Columns and types",
}
_DISTRIBUTIONS = {
    "duration_s": ("How long the recordings are", "seconds"),
    "caption_words": ("How long the captions are", "words"),
}


def validation_page(
    corpus: str, results: Results, quarantine: Iterable[Mapping[str, Any]], store: MediaStore
) -> str:
    """The page about a corpus.

    Args:
        corpus: Its name.
        results: What was found out.
        quarantine: Its rows; what they say comes from the corpus, and is escaped.
        store: The recordings.
    """
    players = Players(store, _MAX_PLAYERS_PER_REASON)
    rows = sorted(quarantine, key=lambda row: (row["reason"], row["utterance_id"]))
    shown = [{**row, "player": _player(players, row)} for row in rows[:_MAX_ROWS]]
    return render(
        "validation.html.j2",
        corpus=corpus,
        results=results,
        rate=f"{100 * results.num_quarantined / max(results.num_listed, 1):.2f}",
        tables=[
            {"title": title, "rows": found}
            for table, title in _TABLES.items()
            if (found := [one for one in results.expectations if one.table == table])
        ],
        figures=[
            _figure(name, distribution) for name, distribution in results.distributions.items()
        ],
        rows=shown,
        num_hidden=len(rows) - len(shown),
    )


def _player(players: Players, row: Mapping[str, Any]) -> dict[str, str]:
    if row["reason"] == "not_audio":
        return note("no audio")
    return players.player(row["audio_path"], row["reason"])


def _figure(name: str, found: Distribution) -> dict[str, Any]:
    title, unit = _DISTRIBUTIONS[name]
    lower, median, upper = found.quartiles
    return {
        "title": title,
        "svg": markup(charts.histogram(found.edges, found.counts, title, unit)),
        "summary": (
            f"{found.minimum:.4g} to {found.maximum:.4g} {unit}, median {median:.4g}, "
            f"half of them between {lower:.4g} and {upper:.4g}"
        ),
    }
