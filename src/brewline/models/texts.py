"""Texts as rows of token ids: with room for prompts, cut to the context or in windows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import torch
from torch import Tensor

from brewline.config.variants import LongTexts

# Of a window, what it shares with the next one at least.
_OVERLAP = 1 / 4


@dataclass(frozen=True)
class TextLayout:
    """Where the tokens of a text stand: [start..., prompts..., words..., end, padding...].

    What stands around the words is read from what the tokeniser itself makes of texts.

    Args:
        tokenizer: Of open_clip: a list of texts, and how many tokens, to ids (B, L).
        context_length: L, the most tokens of a text.
    """

    tokenizer: Callable[..., Tensor]
    context_length: int

    @cached_property
    def _frame(self) -> tuple[list[int], int, int]:
        """The ids before the words, the one that ends them, and that of padding."""
        nothing, word = self.tokenizer(["", "a"], self.context_length).tolist()
        num_before = next(
            place for place, (one, other) in enumerate(zip(nothing, word, strict=True))
            if one != other
        )  # fmt: skip
        return nothing[:num_before], nothing[num_before], nothing[-1]

    @property
    def num_before(self) -> int:
        """How many tokens stand before the words, and before the prompts."""
        return len(self._frame[0])

    def words(self, text: str) -> list[int]:
        """The ids of all words of a text, however long it is."""
        start, end, _ = self._frame
        # No tokeniser makes more tokens than there are bytes.
        row: list[int] = self.tokenizer([text], len(text.encode()) + len(start) + 2)[0].tolist()
        words = row[len(start) :]
        return words[: words.index(end)] if end in words else words

    def room(self, num_prompts: int) -> int:
        """How many words fit beside so many prompts."""
        return self.context_length - num_prompts - self.num_before - 1

    def windows(self, num_words: int, num_prompts: int, long_texts: LongTexts) -> Sequence[slice]:
        """The words of each row that a text becomes.

        Windows are evenly spaced, as few as possible, each as long as there is room, and share a
        quarter of their words with the next one at least.
        """
        room = self.room(num_prompts)
        if long_texts == "truncate" or num_words <= room:
            return [slice(0, min(num_words, room))]
        beyond = num_words - room
        num_more = ceil(beyond / max(1, room - ceil(_OVERLAP * room)))
        starts = [round(number * beyond / num_more) for number in range(num_more + 1)]
        return [slice(start, start + room) for start in starts]

    def rows(
        self, text: str, num_prompts: int, long_texts: LongTexts, padded: bool = False
    ) -> Tensor:
        """The rows of a text, (R, L), with padding in the prompts' places.

        Args:
            text: Of any length.
            num_prompts: How many prompts go between start and words.
            long_texts: What is read of a long one.
            padded: Whether rows are filled up to the context; else they stop at the end token.
        """
        start, end, padding = self._frame
        words = self.words(text)
        parts = self.windows(len(words), num_prompts, long_texts)
        rows = [[*start, *[padding] * num_prompts, *words[part], end] for part in parts]
        if padded:
            rows = [row + [padding] * (self.context_length - len(row)) for row in rows]
        return torch.tensor(rows)
