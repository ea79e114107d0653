"""The queries that the page shows with what the rows found for them, as far as there is room."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brewline.evaluation.example_page import arrange_example, arrange_picture_example
from brewline.evaluation.examples import BEST, DIFFERS, LOT, MEDIAN, WORST
from brewline.evaluation.outputs import (
    EXAMPLES_FILE,
    PICTURE_EXAMPLES_FILE,
    read_examples,
)
from brewline.media.corpus_media import CorpusMedia
from brewline.pages.album import Album
from brewline.pages.render import audio_uri

_TITLES = {
    LOT: "By lot",
    DIFFERS: "Where the best row and the baseline differ most",
    BEST: "Answered best",
    MEDIAN: "Answered as most are",
    WORST: "Answered worst",
}
# One recording in the page at most, in bytes.
_MAX_RECORDING_BYTES = 1 << 20


class ExampleArranger:
    """Arranges what the rows of a table made of queries, in the words of the templates."""

    def __init__(
        self,
        album: Album,
        media: CorpusMedia,
        speech_first: Sequence[str],
        most_audio_bytes: int,
    ) -> None:
        """Prepares for a table.

        Args:
            album: Takes the pictures.
            media: Gives the recordings.
            speech_first: The rows; a transcript is taken from the first.
            most_audio_bytes: So much of recordings is in the page; others have no player.
        """
        self._album, self._media = album, media
        self._speech_first = speech_first
        self._room = most_audio_bytes

    def player(self, utterance_id: str) -> str:
        """A recording as a URI; nothing where there is no room for it."""
        content = self._media.audio(utterance_id)
        if len(content) > min(self._room, _MAX_RECORDING_BYTES):
            return ""
        self._room -= len(content)
        return audio_uri(content)

    def recordings(
        self, anchor: str, examples: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Arranges recordings, each with its entry of every row."""
        return [
            arrange_example(
                f"{anchor}-{number}", rows, self._speech_first, self._album, self.player
            )
            for number, rows in enumerate(examples, start=1)
        ]

    def pictures(self, anchor: str, examples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Arranges pictures, each with its entry of every row."""
        return [
            arrange_picture_example(f"{anchor}-{number}", rows, self._album)
            for number, rows in enumerate(examples, start=1)
        ]

    def group(self, anchor: str, group: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Arranges a group of stage `analyse`, of the rows alone that it is about."""
        about = [row for row in (group["row"], group.get("baseline")) if row is not None]
        found = [group["examples"][row] for row in about]
        rows = [dict(zip(about, each, strict=True)) for each in zip(*found, strict=True)]
        return self.recordings(anchor, rows)


def galleries(
    folder: Path, rows: Sequence[str], shown: Sequence[str], arranger: ExampleArranger, name: str
) -> dict[str, list[dict[str, Any]]]:
    """The examples of a table, grouped by why they are shown.

    Args:
        folder: `reports/evaluation/<table>`.
        rows: The rows of the table.
        shown: Those that are shown where examples are chosen by rank.
        arranger: Takes what is shown.
        name: Of the table.

    Returns:
        `recordings` and `pictures`, each with `title` and `examples`.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for what, file, arrange in (
        ("recordings", EXAMPLES_FILE, arranger.recordings),
        ("pictures", PICTURE_EXAMPLES_FILE, arranger.pictures),
    ):
        examples = read_examples(folder / file, rows)
        found[what] = []
        for kind, of_kind in itertools.groupby(examples, lambda one: str(one[rows[0]]["kind"])):
            about = rows if what == "recordings" and kind in (LOT, DIFFERS) else shown
            entries = [{row: one[row] for row in about} for one in of_kind]
            arranged = arrange(f"{name}-{what}-{kind}", entries)
            found[what].append({"title": _TITLES[kind], "kind": kind, "examples": arranged})
    return found
