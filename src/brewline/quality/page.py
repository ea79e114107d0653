"""The validation of a corpus as one page that opens anywhere without a network."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from brewline import charts
from brewline.archives import MediaStore
from brewline.pages import audio_uri, markup, render
from brewline.quality.results import Distribution, Results

# Dropped utterances that are shown; all are in the quarantine.
_MAX_ROWS = 200
# Recordings in the page: so many of a reason, and so many bytes each and together.
_MAX_PLAYERS_PER_REASON = 3
_MAX_PLAYER_BYTES = 1 << 20
_MAX_PAGE_BYTES = 8 << 20

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


class _Players:
    """Recordings as parts of the page, as far as there is room."""

    def __init__(self, store: MediaStore) -> None:
        self._store = store
        self._num_by_reason: Counter[str] = Counter()
        self._num_bytes = 0

    def player(self, row: Mapping[str, Any]) -> dict[str, str]:
        """A recording as a URI, or a note why there is none."""
        if row["reason"] == "not_audio":
            return _note("no audio")
        name = self._store.find(row["audio_path"])
        if name is None:
            return _note("no file")
        if self._num_by_reason[row["reason"]] == _MAX_PLAYERS_PER_REASON:
            return _note("not in this page")
        content = self._store.read(name)
        if not content:
            return _note("empty")
        room = min(_MAX_PLAYER_BYTES, _MAX_PAGE_BYTES - self._num_bytes)
        if len(content) > room:
            return _note(f"{len(content) / 1e6:.1f} MB, too large for this page")
        self._num_by_reason[row["reason"]] += 1
        self._num_bytes += len(content)
        return {"uri": audio_uri(content), "note": ""}


def _note(text: str) -> dict[str, str]:
    return {"uri": "", "note": text}


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
    players = _Players(store)
    rows = sorted(quarantine, key=lambda row: (row["reason"], row["utterance_id"]))
    shown = [{**row, "player": players.player(row)} for row in rows[:_MAX_ROWS]]
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
