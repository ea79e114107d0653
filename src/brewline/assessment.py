"""How well a corpus was heard: error rates by split, speaker and length, and where errors are."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from brewline.archives import MediaStore
from brewline.pages import Players, compare_words, render
from brewline.quality.suite import Expectation, complaints

# Where lengths of recordings, in seconds, are told apart.
_BOUNDS_S = (2, 5, 10, 20, 30, 60)
_MAX_PAIRS = 20
_MAX_SPEAKERS = 100
_MAX_WORST = 50
# Pairs of texts that are aligned at a time.
_AT_A_TIME = 5000

Row = Mapping[str, Any]


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


@dataclass
class Assessment:
    """Everything about the transcripts of a corpus.

    `splits`, `speakers` and `lengths` are rates by group; `substitutions` the words most often
    taken for others, and `gaps` those most often left out or put in: (said, heard, times); `worst`
    the recordings with most errors a word.
    """

    counts: dict[str, int]
    reasons: dict[str, int]
    temperatures: dict[str, int]
    expectations: list[Expectation]
    splits: dict[str, Rate] = field(default_factory=dict)
    speakers: dict[str, Rate] = field(default_factory=dict)
    lengths: dict[str, Rate] = field(default_factory=dict)
    substitutions: list[tuple[str, str, int]] = field(default_factory=list)
    gaps: list[tuple[str, str, int]] = field(default_factory=list)
    worst: list[Heard] = field(default_factory=list)

    @property
    def failed(self) -> list[Expectation]:
        """The expectations that are not met."""
        return [one for one in self.expectations if not one.success]

    def complaint(self, corpus: str) -> str:
        """One sentence about the expectations that are not met."""
        return f"{corpus} was not transcribed as expected: {complaints(self.failed)}"

    def as_json(self) -> dict[str, Any]:
        """As `results.json` has it."""

        def rates(groups: Mapping[str, Rate]) -> dict[str, Any]:
            return {
                name: asdict(rate) | {"wer": rate.wer, "cer": rate.cer}
                for name, rate in groups.items()
            }

        return asdict(self) | {
            "splits": rates(self.splits),
            "speakers": rates(self.speakers),
            "lengths": rates(self.lengths),
        }


def assess(
    manifest: Sequence[Row], transcripts: Sequence[Row], expectations: list[Expectation]
) -> Assessment:
    """Compares what was heard with what was said, where the corpus says it.

    Recordings without a caption, or whose caption has no words, have no rates; a text that is lost
    counts as one with every word missing.

    Args:
        manifest: Its rows.
        transcripts: The table's rows, in the same order.
        expectations: What came of `expect_transcripts`.
    """
    found = Assessment(
        counts=dict(Counter(row["status"] for row in transcripts)),
        reasons=dict(Counter(row["reason"] for row in transcripts if row["reason"])),
        temperatures={
            f"{temperature:g}": count
            for temperature, count in sorted(
                Counter(
                    row["temperature"] for row in transcripts if row["temperature"] is not None
                ).items()
            )
        },
        expectations=expectations,
    )
    by_id = {row["utterance_id"]: row for row in manifest}
    edits: Counter[tuple[str, str, str]] = Counter()
    for heard in _heard(manifest, transcripts):
        row = by_id[heard.utterance_id]
        for groups, name in (
            (found.splits, row["split"]),
            (found.speakers, row["speaker_id"]),
            (found.lengths, length_name(row["duration_s"])),
        ):
            groups.setdefault(name, Rate()).add(heard)
        edits.update(heard.edits)
        found.worst.append(heard)
        if len(found.worst) >= 4 * _MAX_WORST:
            found.worst = _worst(found.worst)
    found.worst = _worst(found.worst)
    found.substitutions = _commonest(edits, ("substitute",))
    found.gaps = _commonest(edits, ("delete", "insert"))
    by_rate = sorted(found.speakers.items(), key=lambda item: (-item[1].wer, item[0]))
    found.speakers = dict(by_rate[:_MAX_SPEAKERS])
    found.lengths = {name: found.lengths[name] for name in _length_names() if name in found.lengths}
    return found


def _worst(heard: Iterable[Heard]) -> list[Heard]:
    order = sorted(heard, key=lambda one: (-one.wer, -one.word_errors, one.utterance_id))
    return [one for one in order[:_MAX_WORST] if one.word_errors]


def _commonest(
    edits: Counter[tuple[str, str, str]], kinds: Sequence[str]
) -> list[tuple[str, str, int]]:
    counts = [(count, edit) for edit, count in edits.items() if edit[0] in kinds]
    counts.sort(key=lambda pair: (-pair[0], pair[1]))
    return [(said, heard, count) for count, (_, said, heard) in counts[:_MAX_PAIRS]]


def _length_names() -> list[str]:
    pairs = zip((0, *_BOUNDS_S), _BOUNDS_S, strict=False)
    return [*(f"{low} to {high} s" for low, high in pairs), f"over {_BOUNDS_S[-1]} s"]


def length_name(duration_s: float) -> str:
    """Names the group of recordings of about that length."""
    return _length_names()[sum(duration_s > bound for bound in _BOUNDS_S)]


def _heard(manifest: Sequence[Row], transcripts: Sequence[Row]) -> Iterator[Heard]:
    from whisper.normalizers import EnglishTextNormalizer

    normalise = EnglishTextNormalizer()
    pairs = []
    for row, transcript in zip(manifest, transcripts, strict=True):
        if row["caption"] is None:
            continue
        said = " ".join(normalise(row["caption"]).split())
        if said:
            heard = " ".join(normalise(transcript["text"]).split())
            pairs.append((row["utterance_id"], said, heard))
    for start in range(0, len(pairs), _AT_A_TIME):
        yield from _aligned(pairs[start : start + _AT_A_TIME])


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
    players = Players(store, _MAX_WORST)
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
