"""How well a corpus was heard: error rates by split, speaker and length, and where errors are."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from brewline.quality.expectations import Expectation, complaints
from brewline.speech.error_rates import Errors, Heard, Pair, Rate, align

# Where lengths of recordings, in seconds, are told apart.
_BOUNDS_S = (2, 5, 10, 20, 30, 60)
_MAX_PAIRS = 20
_MAX_SPEAKERS = 100
MAX_WORST = 50

Row = Mapping[str, Any]


@dataclass
class Assessment:
    """Everything about the transcripts of a corpus.

    `splits`, `speakers` and `lengths` are rates by group; `substitutions` the words most often
    taken for others, and `gaps` those most often left out or put in: (said, heard, times); `worst`
    the recordings with most errors a word; `errors` those of every recording with a caption.
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
    errors: list[Errors] = field(default_factory=list)

    @property
    def failed(self) -> list[Expectation]:
        """The expectations that are not met."""
        return [one for one in self.expectations if not one.success]

    def complaint(self, corpus: str) -> str:
        """One sentence about the expectations that are not met."""
        return f"{corpus} was not transcribed as expected: {complaints(self.failed)}"

    def as_json(self) -> dict[str, Any]:
        """As `results.json` has it; the errors of each recording are a table of their own."""

        def rates(groups: Mapping[str, Rate]) -> dict[str, Any]:
            return {
                name: asdict(rate) | {"wer": rate.wer, "cer": rate.cer}
                for name, rate in groups.items()
            }

        rest = asdict(replace(self, errors=[]))
        del rest["errors"]
        return rest | {
            "splits": rates(self.splits),
            "speakers": rates(self.speakers),
            "lengths": rates(self.lengths),
        }


def assess(
    manifest: Sequence[Row], transcripts: Sequence[Row], expectations: list[Expectation]
) -> Assessment:
    """Compares what was heard with what was said, where the corpus says it.

    Args:
        manifest: Its rows.
        transcripts: The table's rows, in any order; utterances without one are left out.
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
    heard_as = {row["utterance_id"]: row for row in transcripts}
    edits: Counter[tuple[str, str, str]] = Counter()
    pairs = (
        Pair(row["utterance_id"], row["caption"], one["text"], one["language"])
        for row in manifest
        if row["caption"] and (one := heard_as.get(row["utterance_id"]))
    )
    for heard in align(pairs):
        row = by_id[heard.utterance_id]
        for groups, name in (
            (found.splits, row["split"]),
            (found.speakers, row["speaker_id"]),
            (found.lengths, length_name(row["duration_s"])),
        ):
            groups.setdefault(name, Rate()).add(heard)
        edits.update(heard.edits)
        counts = heard.num_words, heard.word_errors, heard.num_characters, heard.character_errors
        found.errors.append(Errors(heard.utterance_id, *counts))
        found.worst.append(heard)
        if len(found.worst) >= 4 * MAX_WORST:
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
    return [one for one in order[:MAX_WORST] if one.word_errors]


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
