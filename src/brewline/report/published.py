"""What others report, as rows beside ours: of real corpora alone, and never measured here."""

from collections.abc import Sequence
from dataclasses import dataclass

from brewline.config import Params
from brewline.config.published import Published, PublishedRetrieval
from brewline.evaluation.outputs import IMAGE_TO_SPEECH, SPEECH_TO_IMAGE
from brewline.report.tables import Column, Table

NOTHING = "–"  # noqa: RUF001 - a cell without a number
NOT_MEASURED = "not measured here"
CHOSEN = {
    "test": "chosen on test itself",
    "nothing": "nothing trained",
    "unknown": "not known how it was chosen",
}
# Galleries that differ by no more than this are taken for the same one, less what did not open.
_SAME = 0.05


@dataclass(frozen=True)
class PublishedRow:
    """A system as somebody else measured it; `cells` are as printed, for the columns of a table."""

    name: str
    what: str
    cells: list[str]


def published_recall(one: PublishedRetrieval, metric: str) -> float | None:
    """A number as printed, in per cent, by our name of it without the split; None: not published.

    What is published from image to speech is the recall of any hit.
    """
    for values, start in (
        (one.speech_to_image, f"{SPEECH_TO_IMAGE}/recall_at_"),
        (one.image_to_speech, f"{IMAGE_TO_SPEECH}/any_hit_recall_at_"),
    ):
        if metric.startswith(start):
            return values.get(int(metric.removeprefix(start)))
    return None


def published_rows(
    params: Params, published: Published, table: Table, columns: Sequence[Column]
) -> list[PublishedRow]:
    """The systems that were measured on a table's corpus, in the order of `published.yaml`.

    None beside generated data, and none of the numbers that are about other training corpora.
    """
    galleries = published.galleries_of(params.sources[table.corpus])
    rows = []
    for one in published.retrieval:
        if one.gallery in galleries and one.tables != [5]:
            found = [published_recall(one, column.metric) for column in columns]
            cells = [NOTHING if value is None else f"{value:.1f}" for value in found]
            rows.append(PublishedRow(one.system, _about(published, one, table), cells))
    return rows


def _about(published: Published, one: PublishedRetrieval, table: Table) -> str:
    """Where a number is from, and whether it may be compared with ours."""
    gallery = published.galleries[one.gallery]
    sizes = ((gallery.images, table.num_images), (gallery.recordings, table.num_utterances))
    is_other = any(abs(ours - theirs) > _SAME * theirs for theirs, ours in sizes)
    what = "captions" if one.reads == "captions" else "recordings"
    of = f"{gallery.images:,} pictures and {gallery.recordings:,} {what} ({gallery.split})"
    other = "; another gallery than ours, so not comparable" if is_other else ""
    return f"{NOT_MEASURED}: {describe_published(one)}; {of}{other}"


def describe_published(one: PublishedRetrieval) -> str:
    """Where a number is from, what was read, and how the model was chosen."""
    return f"{one.source}, from {one.reads}, {CHOSEN[one.chosen]}"
