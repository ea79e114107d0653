"""The transcripts of a corpus as one page that opens anywhere without a network."""

from collections.abc import Iterable

from brewline.media.archives import MediaStore
from brewline.pages.players import Players
from brewline.pages.render import render
from brewline.pages.word_diff import compare_words
from brewline.speech.assessment import MAX_WORST, Assessment, Row
from brewline.speech.error_rates import Rate


def transcription_page(
    corpus: str,
    found: Assessment,
    manifest: Iterable[Row],
    transcripts: Iterable[Row],
    store: MediaStore,
) -> str:
    """The transcripts of a corpus as one page that opens anywhere without a network.

    Args:
        corpus: Its name.
        found: What came of `assess`.
        manifest: Its rows.
        transcripts: The table's rows.
        store: The recordings.
    """
    wanted = {one.utterance_id for one in found.worst}
    rows = {row["utterance_id"]: row for row in manifest if row["utterance_id"] in wanted}
    texts = {row["utterance_id"]: row for row in transcripts if row["utterance_id"] in wanted}
    players = Players(store, MAX_WORST)
    worst = []
    for one in found.worst:
        row, text = rows[one.utterance_id], texts[one.utterance_id]
        said, heard, _ = compare_words(row["caption"], text["text"])
        worst.append(
            {
                "id": one.utterance_id,
                "rate": one,
                "said": said,
                "heard": heard,
                "trust": text["avg_logprob"],
                "reason": text["reason"],
                "player": players.player(row["audio_path"]),
            }
        )
    groups = {"Splits": found.splits, "Length": found.lengths, "Speakers": found.speakers}
    return render(
        "transcription.html.j2",
        corpus=corpus,
        found=found,
        total=_sum(found.splits.values()),
        groups={title: rates for title, rates in groups.items() if rates},
        worst=worst,
    )


def _sum(rates: Iterable[Rate]) -> Rate:
    total = Rate()
    for rate in rates:
        for name, value in vars(rate).items():
            setattr(total, name, getattr(total, name) + value)
    return total
