"""Recordings to be played in a page, as far as there is room."""

from collections import Counter

from brewline.core.errors import BrewlineError
from brewline.media.archives import MediaStore
from brewline.pages.render import audio_uri

# Recordings in a page: so many bytes each and together.
_MAX_PLAYER_BYTES = 1 << 20

_MAX_PAGE_BYTES = 8 << 20


class Players:
    """Recordings as parts of a page, as far as there is room."""

    def __init__(self, store: MediaStore, most_of_a_group: int) -> None:
        """Args are the recordings, and how many of a group are in the page."""
        self._store = store
        self._most_of_a_group = most_of_a_group
        self._num_by_group: Counter[str] = Counter()
        self._num_bytes = 0

    def player(self, audio_path: str, group: str = "") -> dict[str, str]:
        """A recording as a URI, or a note why there is none."""
        name = self._store.find(audio_path)
        if name is None:
            return note("no file")
        if self._num_by_group[group] == self._most_of_a_group:
            return note("not in this page")
        try:
            content = self._store.read(name)
        except BrewlineError as error:
            # The page shows what is in the corpus, not whether an object store is away.
            if error.kind != "data":
                raise
            return note("cannot be read")
        if not content:
            return note("empty")
        room = min(_MAX_PLAYER_BYTES, _MAX_PAGE_BYTES - self._num_bytes)
        if len(content) > room:
            return note(f"{len(content) / 1e6:.1f} MB, too large for this page")
        self._num_by_group[group] += 1
        self._num_bytes += len(content)
        return {"uri": audio_uri(content), "note": ""}


def note(text: str) -> dict[str, str]:
    """Stands for a player that is not there."""
    return {"uri": "", "note": text}
