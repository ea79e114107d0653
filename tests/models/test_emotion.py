"""Fine-tuning on emotions: what is learned, from where it starts, and who is held out."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import COLOURS, FULL, STATE_WIDTH, ZERO_SHOT, make_world

from brewline.config import load_params
from brewline.config.experiments import FineTuningParams
from brewline.core.errors import BrewlineError
from brewline.models.brewclip import BrewClip
from brewline.models.card import ModelCard
from brewline.models.folder import Trained, load_emotion_model, load_model, save_model
from brewline.samples.shards import encode_states, write_index, write_shard
from brewline.samples.utterance import BadSampleError
from brewline.training.fold_data import Labelled, fold_cards, fold_data, read_labelled, split_of
from brewline.training.loop import TrainingJob, train
from brewline.training.tasks.emotion import Emotion

# Of RAVDESS, for each colour of the tiny world; the others are in no label set of four.
EMOTIONS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
CLASSES = ["neutral", "happy", "sad", "angry"]
TUNING = FineTuningParams(labels="paper4", protocol="by_speaker", speaker_folds=4)


@pytest.fixture(scope="module")
def spoken():
    """Eight speakers, each of whom says each of five emotions twice."""
    world = make_world(num_images=5)
    return [
        replace(
            one,
            utterance_id=f"{speaker}-{number}",
            speaker_id=f"{speaker:02d}",
            emotion=EMOTIONS[number // 2],
            # No two alike; the tone says what is felt.
            states=(one.states + np.float16(0.01 * speaker)),
        )
        for speaker in range(8)
        for number, one in enumerate(world)
    ]


@pytest.fixture
def card():
    return ModelCard(
        experiment="tuned",
        task="emotion",
        corpus="spoken",
        trained_on="spoken",
        variant="full",
        switches=FULL,
        backbones={"clip": "c", "whisper": "w"},
        seed=0,
    )


@pytest.fixture
def recipe(recipe):
    return recipe.model_copy(update={"steps": 150, "batch_size": 16, "learning_rate": 1e-2})


def make_task(recipe, backbone, switches=FULL):
    return Emotion(switches, recipe, backbone, "paper4", CLASSES)


def test_every_fold_has_a_card_and_nobody_is_on_two_sides(card, spoken):
    cards = list(fold_cards(card, TUNING, spoken))
    assert [one.fine_tuned.fold for one in cards] == [0, 1, 2, 3]
    assert {one.place.as_posix() for one in cards} == {f"seed-0/fold-{n}" for n in range(4)}
    assert all(one.fine_tuned.classes == CLASSES for one in cards)
    tested = []
    for one in cards:
        split = split_of(one, spoken)
        by_part = [
            {spoken[row].speaker_id for row in rows}
            for rows in (split.fit, split.validation, split.test)
        ]
        assert sum(map(len, by_part)) == len(set.union(*by_part)) == 8
        tested += split.test.tolist()
    assert sorted(tested) == list(range(len(spoken)))


def test_the_same_samples_under_another_name_are_not_trained_on(card, spoken):
    first = next(fold_cards(card, TUNING, spoken))
    split = split_of(first, spoken)
    twin = replace(spoken[split.test[0]], utterance_id="twin", speaker_id="07")
    again = split_of(first, [*spoken, twin])
    assert len(spoken) not in {*again.fit, *again.validation, *again.test}


def test_one_emotion_alone_cannot_be_learned(card, spoken):
    calm = [one for one in spoken if one.emotion in ("neutral", "calm")]
    with pytest.raises(BrewlineError, match="finds neutral alone in spoken"):
        list(fold_cards(card, TUNING, calm))


def test_training_goes_on_in_the_order_of_a_run_that_was_left_alone(card, spoken):
    split = split_of(next(fold_cards(card, TUNING, spoken)), spoken)
    data = fold_data(Labelled(spoken), split)
    seen = data.read_training(0, 0, 130)
    for place in (10, 59, 60, 100):
        (again,) = data.read_training(0, place, place + 1)
        assert again is seen[place]
    # An epoch has everybody once.
    size = len({one.utterance_id for one in seen})
    assert len({one.utterance_id for one in seen[:size]}) == size


def test_recordings_are_heard_as_they_are_and_changed_each_as_likely(card, spoken):
    changed = [
        replace(one, augmented=tuple(one.states[: 3 + way] for way in range(3))) for one in spoken
    ]
    split = split_of(next(fold_cards(card, TUNING, changed)), changed)
    data = fold_data(Labelled(changed), split)
    seen = data.read_training(0, 0, 4000)
    original = {one.utterance_id: one for one in changed}
    ways = Counter()
    for one in seen:
        own = original[one.utterance_id]
        ways[
            next(n for n, way in enumerate((own.states, *own.augmented)) if way is one.states)
        ] += 1
        assert one.num_frames == (own.num_frames if one is own else len(one.states))
    assert all(count == pytest.approx(1000, rel=0.12) for count in ways.values()), ways
    # Who goes on hears the same, and who is chosen on is heard as he is.
    assert data.read_training(0, 700, 701)[0].states is seen[700].states
    assert all(one is original[one.utterance_id] for one in data.read_split("dev"))


def test_emotions_are_learned_from_a_model_of_retrieval(card, spoken, recipe, backbone, tmp_path):
    torch.manual_seed(1)
    start = BrewClip(backbone, FULL, (STATE_WIDTH,), learn_temperature=recipe.learn_temperature)
    own = next(fold_cards(card, TUNING, spoken))
    split = split_of(own, spoken)
    runtime = load_params().runtime.model_copy(update={"device": "cpu"})
    tensors = start.trained_tensors()

    def run(learning_rate, folder):
        (tmp_path / folder).mkdir()
        chosen = recipe.model_copy(update={"learning_rate": learning_rate})
        job = TrainingJob(make_task(chosen, backbone), chosen, 0, tensors)
        return train(job, fold_data(Labelled(spoken), split), tmp_path / folder, runtime)

    trained = run(1e-2, "work")
    assert trained.dev["dev/balanced_accuracy"] > 0.9
    # A rate of almost nothing leaves what it started from; the pictures' side never changes.
    still = run(1e-12, "still").model.trained_tensors()
    for name, tensor in tensors.items():
        assert torch.allclose(still[f"brewclip.{name}"], tensor, atol=1e-6), name
    learned = trained.model.trained_tensors()
    assert not torch.equal(learned["brewclip.prompt_tokens"], tensors["prompt_tokens"])
    pictures = "prompts_to_image.weight"
    assert torch.equal(learned[f"brewclip.{pictures}"], tensors[pictures])
    recipe_facts = recipe.model_dump(exclude={"seeds"})
    own = own.model_copy(update={"recipe": recipe_facts})
    save_model(tmp_path / "model", own, trained)
    loaded, again = load_emotion_model(tmp_path / "model", backbone, card.backbones)
    assert again.fine_tuned == own.fine_tuned
    task = make_task(recipe, backbone)
    tested = [spoken[row] for row in split.test]
    said = task.measure(loaded, tested, "test")
    assert said["test/accuracy"] > 0.9
    with pytest.raises(BrewlineError, match="does not fit its own card"):
        load_model(tmp_path / "model", backbone, card.backbones)


def write_corpus(folder, utterances, bad=()):
    """Shards of a corpus, and its states, of which some are damaged."""
    samples, states = [], []
    for one in utterances:
        facts = {name: getattr(one, name) for name in ("image_id", "transcript", "caption")}
        facts |= {name: getattr(one, name) for name in ("num_frames", "speaker_id", "emotion")}
        content = json.dumps(facts | {"avg_logprob": None}).encode()
        samples.append({"__key__": one.utterance_id, "json": content})
        states.append({"__key__": one.utterance_id, "npy": encode_states(one.states)})
        if one.utterance_id in bad:
            states[-1]["npy"] = states[-1]["npy"][:150]
    for kind, rows in {"shards": samples, "states": states}.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        count = write_shard(folder / kind / "train-000000.tar", rows)
        write_index(folder / kind, {"train-000000.tar": count})


def test_damaged_states_are_skipped_in_training_and_nowhere_else(
    card, spoken, recipe, backbone, tmp_path
):
    split = split_of(next(fold_cards(card, TUNING, spoken)), spoken)
    places = tmp_path / "shards", tmp_path / "states"
    runtime = load_params().runtime.model_copy(update={"device": "cpu"})
    short = recipe.model_copy(update={"steps": 5, "evaluate_every": 5})
    job = TrainingJob(make_task(short, backbone), short, 0, None)
    for side in ("fit", "validation", "test"):
        bad = spoken[getattr(split, side)[0]].utterance_id
        write_corpus(tmp_path, spoken, [bad])
        labelled = read_labelled(*places, "paper4")
        # Nobody changes sides because somebody cannot be read.
        own = split_of(next(fold_cards(card, TUNING, labelled.utterances)), labelled.utterances)
        assert all(np.array_equal(vars(own)[name], rows) for name, rows in vars(split).items())
        (tmp_path / side).mkdir()
        if side == "validation":
            with pytest.raises(BadSampleError, match=f"no encoder states for '{bad}'"):
                train(job, fold_data(labelled, own), tmp_path / side, runtime)
            continue
        trained = train(job, fold_data(labelled, own), tmp_path / side, runtime)
        assert [*trained.skipped] == ([bad] if side == "fit" else [])
        if side == "test":
            with pytest.raises(BadSampleError, match=f"no encoder states for '{bad}'"):
                labelled.take(own.test)


def test_only_what_was_fine_tuned_answers(card, backbone, recipe, tmp_path):
    model = BrewClip(backbone, ZERO_SHOT.model_copy(update={"prompts": 2}))
    plain = card.model_copy(
        update={"switches": model.switches, "recipe": recipe.model_dump(exclude={"seeds"})}
    )
    save_model(tmp_path / "model", plain, Trained(model, 1, {}, []))
    with pytest.raises(BrewlineError, match="was not trained on emotions"):
        load_emotion_model(tmp_path / "model", backbone, card.backbones)
    assert len(COLOURS) == len(EMOTIONS)
