"""Word and character error rates of transcripts, after Whisper's normalisers.

English has Whisper's English normaliser, which knows spellings, contractions and numbers; every
other language its basic one (lower case, no punctuation). Of that one, only punctuation and symbols
are taken: as it comes it drops marks too, which are the vowels of Hindi and of Thai.

In scripts without spaces a sign counts as a word; see `core.scripts`. Digits count one by one,
however they are grouped: whoever says "seven two nine" is written down as "729", as "7, 2, 9" or in
words, and nobody heard him wrong.
"""

import functools
import importlib.util
import itertools
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from brewline.core.scripts import join_texts, split_words

# Pairs of texts that are aligned at a time.
_AT_A_TIME = 5000
# Digits that begin with a zero and are no part of a fraction, a date or a time: said one by one,
# where the English normaliser would take them for a number and drop the zero.
_DIGITS_FROM_ZERO = re.compile(r"(?<![\w.,:/-])0\d+(?!\w|[.,:/-]\d)")
# More digits than Python makes a number of at once, which the English normaliser does.
_MANY_DIGITS = re.compile(r"\d{1000,}")
# Where the small letter of a plain capital I has no dot, and that of the dotted one is the plain i.
_TURKIC = ("tr", "az")
_TURKIC_CAPITALS = str.maketrans({"I": "\u0131", "\u0130": "i"})


class Pair(NamedTuple):
    """A recording's caption and what was heard; `language` is a code, or None if unknown."""

    utterance_id: str
    caption: str | None
    transcript: str
    language: str | None


@dataclass
class Rate:
    """Errors of a group of recordings, in words and in characters."""

    num_recordings: int = 0
    num_words: int = 0
    word_errors: int = 0
    num_characters: int = 0
    character_errors: int = 0

    @property
    def wer(self) -> float:
        """Word errors for each word that was said."""
        return self.word_errors / max(self.num_words, 1)

    @property
    def cer(self) -> float:
        """Character errors for each character of what was said."""
        return self.character_errors / max(self.num_characters, 1)

    def add(self, heard: "Errors") -> None:
        """Counts one more recording."""
        self.num_recordings += 1
        self.num_words += heard.num_words
        self.word_errors += heard.word_errors
        self.num_characters += heard.num_characters
        self.character_errors += heard.character_errors


@dataclass(frozen=True)
class Errors:
    """How much of what was said in a recording (its caption) was heard otherwise.

    Words are signs where the script has no spaces, and digits each by itself.
    """

    utterance_id: str
    num_words: int
    word_errors: int
    num_characters: int
    character_errors: int

    @property
    def wer(self) -> float:
        """Its own word error rate."""
        return self.word_errors / max(self.num_words, 1)


@dataclass(frozen=True)
class Heard(Errors):
    """A recording with what was said and what was heard, both normalised.

    `edits` are (kind, said, heard): a substitution pairs two words, a deletion has nothing heard,
    an insertion nothing said.
    """

    said: str
    heard: str
    edits: Sequence[tuple[str, str, str]]


def align(pairs: Iterable[Pair]) -> Iterator[Heard]:
    """Normalises and aligns captions with what was heard.

    Recordings without a caption, or whose caption has no words, are left out; a text that is lost
    counts as one with every word missing.
    """
    found = (
        (pair.utterance_id, said, words_of(pair.transcript, pair.language))
        for pair in pairs
        if (said := words_of(pair.caption or "", pair.language))
    )
    while some := list(itertools.islice(found, _AT_A_TIME)):
        yield from _aligned(some)


def words_of(text: str, language: str | None) -> list[str]:
    """The words of a text that are compared.

    Args:
        text: As written.
        language: Its code; only `en` has rules of its own for spellings and numbers.
    """
    if language == "en":
        spread = _MANY_DIGITS.sub(_one_by_one, _DIGITS_FROM_ZERO.sub(_one_by_one, text))
        normal = _normalisers().EnglishTextNormalizer
    else:
        spread = text.translate(_TURKIC_CAPITALS) if language in _TURKIC else text
        normal = _basic_normaliser
    words: list[str] = []
    for word in split_words(_cached(normal)(_quickly_read(spread))):
        if word.isdecimal():
            words += [str(unicodedata.decimal(digit)) for digit in word]
        else:
            # The normaliser writes a single 1 as a word, since it may be a pronoun.
            words.append("1" if language == "en" and word == "one" else word)
    return words


def _one_by_one(digits: re.Match[str]) -> str:
    return " ".join(digits[0])


def _quickly_read(text: str) -> str:
    """Leaves out brackets that nothing closes, and spaces after the first.

    They are no words, and a normaliser reads on to the end of the text for each of them.
    """
    for opening, closing in (("[<", "]>"), ("(", ")")):
        end = 1 + max(map(text.rfind, closing))
        rest = text[end:].translate(dict.fromkeys(map(ord, opening), " "))
        text = text[:end] + rest
    return " ".join(text.split())


@functools.cache
def _cached(make: Callable[[], Callable[[str], str]]) -> Callable[[str], str]:
    return make()


def _basic_normaliser() -> Callable[[str], str]:
    basic = _normalisers().BasicTextNormalizer()
    basic.clean = _without_punctuation
    normaliser: Callable[[str], str] = basic
    return normaliser


def _without_punctuation(text: str) -> str:
    """Composed (NFKC); spaces for punctuation and symbols, nothing for what cannot be seen."""
    return "".join(
        " " if kind[0] in "SP" else "" if kind == "Cf" else letter
        for letter in unicodedata.normalize("NFKC", text)
        for kind in [unicodedata.category(letter)]
    )


def _normalisers() -> Any:
    """Whisper's own, without the rest of its package, which imports torch for seconds."""
    name = "whisper_normalizers"
    if name not in sys.modules:
        package = importlib.util.find_spec("whisper")
        assert package is not None and package.submodule_search_locations
        folder = f"{package.submodule_search_locations[0]}/normalizers"
        spec = importlib.util.spec_from_file_location(name, f"{folder}/__init__.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def _aligned(pairs: Sequence[tuple[str, list[str], list[str]]]) -> Iterator[Heard]:
    import jiwer

    ids = [utterance_id for utterance_id, _, _ in pairs]
    words = jiwer.process_words(
        [" ".join(said) for _, said, _ in pairs], [" ".join(heard) for _, _, heard in pairs]
    )
    said, heard = ([join_texts(pair[side]) for pair in pairs] for side in (1, 2))
    characters = jiwer.process_characters(said, heard)
    for number, utterance_id in enumerate(ids):
        reference, hypothesis = words.references[number], words.hypotheses[number]
        edits = list(_edits(words.alignments[number], reference, hypothesis))
        letters = characters.alignments[number]
        yield Heard(
            utterance_id=utterance_id,
            said=said[number],
            heard=heard[number],
            num_words=len(reference),
            word_errors=len(edits),
            num_characters=len(characters.references[number]),
            character_errors=sum(_length(part) for part in letters if part.type != "equal"),
            edits=edits,
        )


def _length(part: Any) -> int:
    said = part.ref_end_idx - part.ref_start_idx
    heard = part.hyp_end_idx - part.hyp_start_idx
    return int(max(said, heard))


def _edits(
    alignment: Iterable[Any], said: Sequence[str], heard: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """Each wrong word."""
    for part in alignment:
        if part.type == "equal":
            continue
        for offset in range(_length(part)):
            reference = said[part.ref_start_idx + offset] if part.type != "insert" else ""
            hypothesis = heard[part.hyp_start_idx + offset] if part.type != "delete" else ""
            yield part.type, reference, hypothesis
