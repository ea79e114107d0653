"""A transcript beside a caption, word by word."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from brewline.core.scripts import is_spaceless, split_words

_Tag = Literal["", "mark", "del", "ins"]


@dataclass(frozen=True)
class Token:
    """A word as written; `tag` says how it differs: mark (another word), del, ins, or "".

    `space` is what stands between it and the next word.
    """

    text: str
    tag: _Tag = ""
    space: str = " "


def _comparable(word: str) -> str:
    composed = unicodedata.normalize("NFKC", word.lower())
    return "".join(
        letter for letter in composed if letter.isalnum() or unicodedata.category(letter)[0] == "M"
    )


def compare_words(
    caption: str | None, transcript: str
) -> tuple[list[Token], list[Token], int | None]:
    """Aligns a transcript with the caption word by word, as the word error rate does.

    Case and punctuation are shown, but do not count. In scripts without spaces a sign is a word.

    Returns:
        The words of the caption, those of the transcript, and the number of words put in, left
        out or exchanged; no number where there is no caption.
    """
    import jiwer

    written, heard = split_words(caption or ""), split_words(transcript)
    reference = [word for word in written if _comparable(word)]
    hypothesis = [word for word in heard if _comparable(word)]
    if not reference:
        return [], _tokens([(word, "") for word in heard]), None
    aligned = jiwer.process_words(
        " ".join(map(_comparable, reference)), " ".join(map(_comparable, hypothesis))
    )
    left: list[tuple[str, _Tag]] = []
    right: list[tuple[str, _Tag]] = []
    for chunk in aligned.alignments[0]:
        tags: tuple[_Tag, _Tag] = ("del", "ins")
        if chunk.type in ("equal", "substitute"):
            tags = ("", "") if chunk.type == "equal" else ("mark", "mark")
        words = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        left += [(word, tags[0]) for word in words]
        words = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        right += [(word, tags[1]) for word in words]
    num_errors = aligned.insertions + aligned.deletions + aligned.substitutions
    return _tokens(left), _tokens(right), num_errors


def _tokens(words: Sequence[tuple[str, _Tag]]) -> list[Token]:
    following = (word for word, _ in words[1:])
    return [
        Token(word, tag, " " if after and not is_spaceless(word[-1] + after[0]) else "")
        for (word, tag), after in zip_longest(words, following)
    ]
