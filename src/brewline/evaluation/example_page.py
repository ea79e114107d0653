"""What the models made of some recordings of test: arranged for a page, and as a page."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from brewline.evaluation.outputs import read_examples
from brewline.pages.album import Album
from brewline.pages.render import audio_uri, render
from brewline.pages.word_diff import compare_words


def arrange_example(
    anchor: str,
    rows: Mapping[str, Mapping[str, Any]],
    speech_first: Sequence[str],
    album: Album,
    audio: Callable[[str], bytes] | None,
) -> dict[str, Any]:
    """Arranges what the rows of a table made of one recording, in the words of the templates.

    Args:
        anchor: Unique in the page.
        rows: The recording's entry of `examples.json` for each row of the table.
        speech_first: The rows; the transcript is taken from the first.
        album: Takes the pictures.
        audio: Gives a recording by its id; without it there is no player.
    """
    heard = rows[speech_first[0]]
    caption, transcript, num_errors = compare_words(heard["caption"], heard["transcript"])
    return {
        "anchor": anchor,
        "utterance_id": heard["utterance_id"],
        "image": album.picture(heard["image_id"]),
        "audio": audio_uri(audio(heard["utterance_id"])) if audio else "",
        "caption": caption,
        "transcript": transcript,
        "num_errors": num_errors,
        "num_words": len(caption),
        "answers": [
            {
                "row": name,
                "rank": row["rank"],
                "top": [
                    {
                        "image": album.picture(entry["image_id"]),
                        "score": entry["score"],
                        "is_right": entry["image_id"] == row["image_id"],
                    }
                    for entry in row["top"]
                ],
            }
            for name, row in rows.items()
        ],
    }


def examples_page(
    title: str, row: str, examples: Path, image: Callable[[str], bytes], notice: str
) -> str:
    """The examples of one row as a page of its own, without the recordings.

    Args:
        title: Of the page.
        row: Whose answers are shown.
        examples: `reports/evaluation/<table>/examples.json`.
        image: Gives a picture's bytes by its image id.
        notice: About generated corpora; may be empty.

    Raises:
        BrewlineError: there are no examples of this row, or a picture cannot be read.
    """
    album = Album("picture-", image)
    arranged = [
        arrange_example(f"example-{number}", rows, [row], album, None)
        for number, rows in enumerate(read_examples(examples, [row]), start=1)
    ]
    return render(
        "examples.html.j2",
        title=title,
        synthetic_notice=notice,
        examples=arranged,
        images=list(album.pictures.values()),
    )
