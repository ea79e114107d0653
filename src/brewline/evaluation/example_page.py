"""What the models made of some recordings of test: arranged for a page, and as a page."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from brewline.evaluation.outputs import read_examples
from brewline.pages.album import Album
from brewline.pages.render import render
from brewline.pages.word_diff import compare_words


def arrange_example(
    anchor: str,
    rows: Mapping[str, Mapping[str, Any]],
    speech_first: Sequence[str],
    album: Album,
    player: Callable[[str], str] | None,
) -> dict[str, Any]:
    """Arranges what the rows of a table made of one recording, in the words of the templates.

    Args:
        anchor: Unique in the page.
        rows: The recording's entry of `examples.json` for each row of the table.
        speech_first: All rows of the table; the transcript is taken from the first of them that is
            among `rows`.
        album: Takes the pictures.
        player: Gives a recording as a URI by its id; without it there is no player.
    """
    heard = next(rows[row] for row in speech_first if row in rows)
    caption, transcript, num_errors = compare_words(heard["caption"], heard["transcript"])
    return {
        "anchor": anchor,
        "utterance_id": heard["utterance_id"],
        "image": album.picture(heard["image_id"]),
        "audio": player(heard["utterance_id"]) if player else "",
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


def arrange_picture_example(
    anchor: str, rows: Mapping[str, Mapping[str, Any]], album: Album
) -> dict[str, Any]:
    """Arranges what the rows of a table made of one picture, in the words of the templates.

    Args:
        anchor: Unique in the page.
        rows: The picture's entry of `picture_examples.json` for each row.
        album: Takes the picture.
    """
    first = next(iter(rows.values()))
    return {
        "anchor": anchor,
        "image": album.picture(first["image_id"]),
        "answers": [
            {
                "row": name,
                "rank": row["rank"],
                "top": [
                    {**entry, "is_right": entry["image_id"] == row["image_id"]}
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
