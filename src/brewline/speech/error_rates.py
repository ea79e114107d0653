"""Word and character error rates of transcripts, after Whisper's English normaliser."""

import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# Pairs of texts that are aligned at a time.
_AT_A_TIME = 5000


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

    def add(self, heard: "Heard") -> None:
        """Counts one more recording."""
        self.num_recordings += 1
        self.num_words += heard.num_words
        self.word_errors += heard.word_errors
        self.num_characters += heard.num_characters
        self.character_errors += heard.character_errors


@dataclass(frozen=True)
class Heard:
    """A recording with what was said (its caption) and what was heard, both normalised.

    `edits` are (kind, said, heard): a substitution pairs two words, a deletion has nothing heard,
    an insertion nothing said.
    """

    utterance_id: str
    said: str
    heard: str
    num_words: int
    word_errors: int
    num_characters: int
    character_errors: int
    edits: Sequence[tuple[str, str, str]]

    @property
    def wer(self) -> float:
        """Its own word error rate."""
        return self.word_errors / max(self.num_words, 1)


def align(texts: Iterable[tuple[str, str | None, str]]) -> Iterator[Heard]:
    """Normalises and aligns captions with what was heard.

    Recordings without a caption, or whose caption has no words, are left out; a text that is lost
    counts as one with every word missing.

    Args:
        texts: Utterance id, caption and transcript of each recording.
    """
    pairs = _normalised(texts)
    while some := list(itertools.islice(pairs, _AT_A_TIME)):
        yield from _aligned(some)


def _normalised(texts: Iterable[tuple[str, str | None, str]]) -> Iterator[tuple[str, str, str]]:
    normalise = english_normaliser()
    for utterance_id, caption, transcript in texts:
        said = " ".join(normalise(caption or "").split())
        if said:
            yield utterance_id, said, " ".join(normalise(transcript).split())


def english_normaliser() -> Callable[[str], str]:
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
    normaliser: Callable[[str], str] = sys.modules[name].EnglishTextNormalizer()
    return normaliser


def _aligned(pairs: Sequence[tuple[str, str, str]]) -> Iterator[Heard]:
    import jiwer

    ids, said, heard = (list(column) for column in zip(*pairs, strict=True))
    words = jiwer.process_words(said, heard)
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
