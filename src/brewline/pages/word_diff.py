"""A transcript beside a caption, word by word."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Token:
    """A word as written; `tag` says how it differs: mark (another word), del, ins, or ""."""

    text: str
    tag: Literal["", "mark", "del", "ins"] = ""


def _comparable(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())


def compare_words(
    caption: str | None, transcript: str
) -> tuple[list[Token], list[Token], int | None]:
    """Aligns a transcript with the caption word by word, as the word error rate does.

    Case and punctuation are shown, but do not count.

    Returns:
        The words of the caption, those of the transcript, and the number of words put in, left
        out or exchanged; no number where there is no caption.
    """
    import jiwer

    written, heard = (caption or "").split(), transcript.split()
    reference = [word for word in written if _comparable(word)]
    hypothesis = [word for word in heard if _comparable(word)]
    if not reference:
        return [], [Token(word) for word in heard], None
    aligned = jiwer.process_words(
        " ".join(map(_comparable, reference)), " ".join(map(_comparable, hypothesis))
    )
    left, right = [], []
    for chunk in aligned.alignments[0]:
        tags: tuple[Literal["", "mark", "del"], Literal["", "mark", "ins"]] = ("del", "ins")
        if chunk.type in ("equal", "substitute"):
            tags = ("", "") if chunk.type == "equal" else ("mark", "mark")
        words = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        left += [Token(word, tags[0]) for word in words]
        words = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        right += [Token(word, tags[1]) for word in words]
    return left, right, aligned.insertions + aligned.deletions + aligned.substitutions
