"""The recordings of a fold of task `emotion`: a corpus of any splits, cut anew by speaker.

Such corpora have some thousand short recordings, so that all of them are held in memory.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from brewline.config.experiments import FineTuningParams
from brewline.core.errors import BrewlineError
from brewline.models.card import FineTuned, ModelCard
from brewline.probing.folds import Split, protocol_folds, split_by_speaker
from brewline.probing.ravdess import LABEL_SETS, classes_of
from brewline.samples.shards import read_corpus
from brewline.samples.training_reader import TrainingOrder
from brewline.samples.utterance import BadSampleError, Utterance
from brewline.training.loop import TrainingData


@dataclass(frozen=True)
class Labelled:
    """The recordings whose emotion is in a label set, in the order of the corpus.

    `bad` says, by id, why encoder states that were asked for cannot be read; those have none.
    """

    utterances: Sequence[Utterance]
    bad: Mapping[str, str] = field(default_factory=dict)

    def take(self, rows: Iterable[int]) -> list[Utterance]:
        """Those in some rows.

        Raises:
            BadSampleError: one of them is bad.
        """
        found = [self.utterances[row] for row in rows]
        for one in found:
            if why := self.bad.get(one.utterance_id):
                raise BadSampleError(one.utterance_id, why)
        return found


def read_labelled(shards_dir: Path, states_dir: Path | None, labels: str) -> Labelled:
    """Reads the recordings whose emotion is in a label set.

    Raises:
        BrewlineError: there is none, or one of nobody; or what is said of one cannot be read, so
            that nobody knows on which side of a fold it stands.
    """
    counted_as = LABEL_SETS[labels]
    bad: dict[str, str] = {}

    def note(error: BadSampleError) -> None:
        bad[error.utterance_id] = str(error)

    with_states = {
        one.utterance_id: one
        for one in read_corpus(shards_dir, states_dir, note)
        if one.emotion in counted_as
    }
    found = [
        with_states.get(one.utterance_id, one)
        for one in read_corpus(shards_dir)
        if one.emotion in counted_as
    ]
    if not found or any(one.speaker_id is None for one in found):
        raise BrewlineError(
            f"{shards_dir} has no recordings with emotions of {labels} and speakers; emotions are "
            "learned from corpora like RAVDESS",
            "settings",
        )
    return Labelled(found, bad)


def fold_cards(
    card: ModelCard, tuning: FineTuningParams, utterances: Sequence[Utterance]
) -> Iterator[ModelCard]:
    """A card for each fold of the protocol.

    Raises:
        BrewlineError: the protocol does not fit the speakers, or there is nothing to tell apart.
    """
    emotions = (one.emotion or "" for one in utterances)
    classes = classes_of(tuning.labels, emotions, card.corpus)
    folds = protocol_folds(tuning.protocol, _speakers(utterances), tuning.speaker_folds)
    for fold in range(len(folds)):
        fine_tuned = FineTuned(**tuning.model_dump(), fold=fold, classes=classes)
        yield card.model_copy(update={"fine_tuned": fine_tuned})


def split_of(card: ModelCard, utterances: Sequence[Utterance]) -> Split:
    """The rows of a card's fold; its seed draws the speakers that are chosen on.

    Raises:
        BrewlineError: nobody is left to learn from, or to choose on.
    """
    tuned = card.fine_tuned
    assert tuned is not None and card.seed is not None
    speakers = _speakers(utterances)
    folds = protocol_folds(tuned.protocol, speakers, tuned.speaker_folds)
    split = split_by_speaker(folds[tuned.fold], speakers, _contents(utterances), card.seed)
    if not len(split.fit) or not len(split.validation):
        raise BrewlineError(
            f"fold {tuned.fold} of {card.corpus} leaves nobody to learn from, or to choose on; "
            "take another protocol, or more speaker_folds",
            "settings",
        )
    return split


def _speakers(utterances: Sequence[Utterance]) -> list[str]:
    return [one.speaker_id or "" for one in utterances]


def _contents(utterances: Sequence[Utterance]) -> list[str]:
    """What each one sounds like, as far as the model hears it: equal states, equal samples."""
    return [
        one.utterance_id
        if one.states is None
        else hashlib.sha256(np.ascontiguousarray(one.states).tobytes()).hexdigest()
        for one in utterances
    ]


def _as_heard(utterance: Utterance, seed: int, number: int) -> Utterance:
    """An utterance as it is, or one of its augmentations, each as likely.

    The seed and the number in the training draw it, so that a run which goes on hears the same.
    """
    choice = np.random.default_rng([seed, number]).integers(1 + len(utterance.augmented))
    if not choice:
        return utterance
    states = utterance.augmented[choice - 1]
    return replace(utterance, states=states, num_frames=len(states))


def fold_data(labelled: Labelled, split: Split) -> TrainingData:
    """Training reads the rows that are fitted, dev those that are chosen on."""
    parts = {"train": split.fit, "dev": split.validation}

    def read_training(seed: int, start: int, stop: int) -> list[Utterance]:
        places = TrainingOrder([len(split.fit)], seed).places(start, stop)
        chosen = labelled.take(split.fit[place.row] for place in places)
        return [_as_heard(one, seed, number) for number, one in enumerate(chosen, start)]

    def read(name: str) -> list[Utterance]:
        return labelled.take(parts[name])

    return TrainingData(read_training, read, read)
