"""The probe of emotions: who is held out, what is learned, and what the numbers mean."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics

from brewline.config.probes import ProbeParams
from brewline.core.errors import BrewlineError
from brewline.evaluation.bootstrap import Bootstrap
from brewline.probing.classifier import learn_layer_weights, probe, standardise
from brewline.probing.folds import Split, protocol_folds, random_splits, split_by_speaker
from brewline.probing.inputs import ProbedFeature, Recordings, TunedFeature, _of_models
from brewline.probing.outputs import MAJORITY, ProbeResults, read_checks, read_rows, write_probe
from brewline.probing.probe import run_probe
from brewline.probing.ravdess import LABEL_SETS, PROTOCOLS, gender_of
from brewline.probing.scores import METRICS, confusions, interval
from brewline.tables.features import Features, holds_features, load_features, save_features

BOOTSTRAP = Bootstrap(200, 0, 0.95)
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


def ravdess(num_actors: int = 24) -> Recordings:
    """RAVDESS as it is published: 60 recordings of each actor, two of which are equal."""
    emotions, speakers = [], []
    for actor in range(1, num_actors + 1):
        for emotion in EMOTIONS:
            for _ in range(4 if emotion == "neutral" else 8):
                emotions.append(emotion)
                speakers.append(f"{actor:02d}")
    ids = [f"u{number}" for number in range(len(emotions))]
    contents = [*ids]
    contents[7] = contents[6]
    return Recordings(ids, emotions, speakers, contents)


RAVDESS = ravdess()


def probe_params(**changes: Any) -> ProbeParams:
    values = {
        "data": "c",
        "rows": {"full": "e"},
        "labels": ["strict4"],
        "protocols": ["by_speaker"],
        "speaker_folds": 3,
        "seeds": [0],
    }
    return ProbeParams(**values | changes)


@pytest.mark.parametrize(("labels", "counts"), [
    ("paper4", {"neutral": 12, "happy": 8, "sad": 8, "angry": 8}),
    ("strict4", {"neutral": 4, "happy": 8, "sad": 8, "angry": 8}),
    ("all8", {one: 4 if one == "neutral" else 8 for one in EMOTIONS}),
])  # fmt: skip
def test_label_sets_count_emotions_as_they_say(labels: str, counts: dict[str, int]) -> None:
    mine = [e for e, s in zip(RAVDESS.emotions, RAVDESS.speakers, strict=True) if s == "01"]
    assert Counter(LABEL_SETS[labels][one] for one in mine if one in LABEL_SETS[labels]) == counts


@pytest.mark.parametrize(
    ("protocol", "sizes"), [("emobox", [240] * 6), ("paper", [360]), ("serab", [300])]
)
def test_the_published_folds_have_the_sizes_that_they_publish(
    protocol: str, sizes: list[int]
) -> None:
    folds = protocol_folds(protocol, RAVDESS.speakers, 2)
    splits = [split_by_speaker(fold, RAVDESS.speakers, RAVDESS.contents, 0) for fold in folds]
    assert [len(split.test) for split in splits] == sizes


def test_of_the_papers_labels_its_test_has_216_recordings_a_third_of_them_neutral() -> None:
    split = split_by_speaker(PROTOCOLS["paper"][0], RAVDESS.speakers, RAVDESS.contents, 0)
    found = [LABEL_SETS["paper4"].get(RAVDESS.emotions[row]) for row in split.test]
    assert Counter(one for one in found if one) == {
        **{"neutral": 72, "happy": 48}, **{"sad": 48, "angry": 48},
    }  # fmt: skip


@pytest.mark.parametrize("protocol", ["emobox", "by_speaker"])
def test_folds_are_disjoint_by_speaker_and_complete(protocol: str) -> None:
    folds = protocol_folds(protocol, RAVDESS.speakers, 5)
    tested = Counter(itertools.chain.from_iterable(fold.test for fold in folds))
    assert tested == dict.fromkeys({*RAVDESS.speakers}, 1)


@pytest.mark.parametrize("protocol", [*PROTOCOLS, "by_speaker"])
def test_no_speaker_and_no_recording_is_on_two_sides(protocol: str) -> None:
    for fold, seed in itertools.product(protocol_folds(protocol, RAVDESS.speakers, 5), (0, 1, 2)):
        split = split_by_speaker(fold, RAVDESS.speakers, RAVDESS.contents, seed)
        assert sorted([*split.fit, *split.validation]) == split.train.tolist()
        assert_apart(split.fit, split.validation)
        assert_apart(split.train, split.test)
        if fold.validation:
            assert {RAVDESS.speakers[row] for row in split.validation} == fold.validation


def assert_apart(one: np.ndarray, other: np.ndarray) -> None:
    assert len(one)
    assert len(other)
    for facts in (RAVDESS.speakers, RAVDESS.contents):
        assert not {facts[row] for row in one} & {facts[row] for row in other}


def test_seeds_choose_on_other_speakers() -> None:
    (fold,) = PROTOCOLS["paper"]
    chosen = set()
    for seed in range(4):
        split = split_by_speaker(fold, RAVDESS.speakers, RAVDESS.contents, seed)
        chosen.add(tuple(sorted({RAVDESS.speakers[row] for row in split.validation})))
    assert len(chosen) > 1
    # A quarter of 18 actors.
    assert {len(speakers) for speakers in chosen} == {4}


def test_a_duplicate_of_another_speaker_leaves_the_training() -> None:
    speakers, contents = ["a", "a", "b", "b", "c", "c"], ["1", "2", "1", "3", "4", "3"]
    (fold, *_) = protocol_folds("by_speaker", speakers, 3)
    assert fold.test == {"a"}
    split = split_by_speaker(fold, speakers, contents, 0)
    assert split.test.tolist() == [0, 1]
    # Row 2 sounds as row 0 does; rows 3 and 5 are equal, and one of them is chosen on.
    assert split.train.tolist() == [3, 4, 5]
    assert not {contents[row] for row in split.fit} & {contents[row] for row in split.validation}


@pytest.mark.parametrize("num_parts", [2, 4, 5])
def test_random_splits_let_speakers_leak_and_no_recording(num_parts: int) -> None:
    labels = np.array([EMOTIONS.index(one) for one in RAVDESS.emotions])
    splits = list(random_splits(RAVDESS.contents, labels, num_parts, 0))
    tested = np.concatenate([split.test for split in splits])
    assert sorted(tested) == list(range(len(RAVDESS.contents)))
    for split in splits:
        contents = [RAVDESS.contents[row] for row in split.test]
        assert not {*contents} & {RAVDESS.contents[row] for row in split.train}
        assert len({RAVDESS.speakers[row] for row in split.train}) == 24
        # Each part has its share of each of them.
        assert max(Counter(labels[split.test]).values()) <= 192 / num_parts + 2
        assert set(labels[split.test]) == set(labels[split.validation]) == set(labels[split.fit])


def test_a_protocol_that_does_not_fit_is_told_why() -> None:
    with pytest.raises(BrewlineError, match="no 19, 20, 21, 22, 23, 24; use by_speaker"):
        protocol_folds("paper", ravdess(18).speakers, 2)
    with pytest.raises(BrewlineError, match="2 speakers cannot be cut into 2 parts"):
        protocol_folds("by_speaker", ["a", "b"], 2)
    with pytest.raises(BrewlineError, match="24 speakers cannot be cut into 25 parts"):
        protocol_folds("by_speaker", RAVDESS.speakers, 25)


# --- the classifier


def small_problem() -> tuple[np.ndarray, Split]:
    """Three classes of twelve rows in turn, and a split of them."""
    rows = np.arange(36)
    return rows % 3, Split(rows[:24], rows[:18], rows[18:24], rows[24:])


def test_separable_features_are_told_apart() -> None:
    labels, split = small_problem()
    noise = np.random.default_rng(0).standard_normal((36, 5)).astype(np.float32)
    vectors = noise + 20 * np.eye(3, 5, dtype=np.float32)[labels]
    answer = probe(vectors, labels, split)
    assert answer.predicted.tolist() == labels[split.test].tolist()
    assert answer.layer_weights is None


@pytest.mark.parametrize("value", [0.0, 0.7, 1e4])
def test_constant_features_give_the_majority(value: float) -> None:
    _, split = small_problem()
    labels = np.array([0, 1, 1, 2] * 9)
    vectors = np.full((36, 5), value, np.float32)
    # What a network's sums differ by is no difference.
    vectors *= 1 + 1e-6 * np.random.default_rng(0).standard_normal(vectors.shape).astype(np.float32)
    assert set(probe(vectors, labels, split).predicted) == {1}


def test_a_test_changes_nothing_of_what_is_learned() -> None:
    labels, split = small_problem()
    vectors = np.random.default_rng(0).standard_normal((36, 5)).astype(np.float32)
    before = probe(vectors, labels, split)
    vectors[split.test[1:]] += 100.0
    labels = labels.copy()
    labels[split.test] = 0
    after = probe(vectors, labels, split)
    assert after.strength == before.strength
    assert after.predicted[0] == before.predicted[0]


def test_the_layer_that_tells_classes_apart_gets_the_weight() -> None:
    labels, split = small_problem()
    layers = np.random.default_rng(0).standard_normal((36, 4, 5)).astype(np.float32)
    layers[:, 2, :3] += 20 * np.eye(3, dtype=np.float32)[labels]
    answer = probe(layers, labels, split)
    assert answer.layer_weights is not None
    assert answer.layer_weights.argmax() == 2
    assert answer.layer_weights.sum() == pytest.approx(1)
    assert answer.predicted.tolist() == labels[split.test].tolist()
    again = learn_layer_weights(standardise(layers, split.fit)[split.fit], labels[split.fit])
    assert np.array_equal(again, answer.layer_weights)


def test_one_emotion_is_nothing_to_learn_from() -> None:
    _, split = small_problem()
    with pytest.raises(BrewlineError, match="two emotions at least"):
        probe(np.zeros((36, 2), np.float32), np.zeros(36, np.int64), split)


# --- what it is worth


def test_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth, said = rng.integers(0, 4, 40), rng.integers(0, 5, 40)
        nobody = np.zeros(40, np.int64)
        (counts,) = confusions(truth, said, nobody, 1, 5)
        with_truth = np.unique(truth)
        expected = {
            "accuracy": sklearn.metrics.accuracy_score(truth, said),
            "balanced_accuracy": sklearn.metrics.recall_score(
                truth, said, labels=with_truth, average="macro"
            ),
            "macro_f1": sklearn.metrics.f1_score(truth, said, labels=with_truth, average="macro"),
        }
        assert {name: float(metric(counts)) for name, metric in METRICS.items()} == pytest.approx(
            expected
        )


@pytest.mark.parametrize("name", METRICS)
def test_an_interval_draws_speakers_with_all_their_recordings_and_runs(name: str) -> None:
    """Against a slow version that gathers the recordings of the drawn speakers one by one."""
    rng = np.random.default_rng(1)
    truth, speaker = rng.integers(0, 3, 60), rng.integers(0, 5, 60)
    said = np.where(rng.random((2, 60)) < 0.2 * speaker, truth, rng.integers(0, 3, (2, 60)))
    counts_RGKK = np.stack([confusions(truth, one, speaker, 5, 3) for one in said])
    found = interval(counts_RGKK, METRICS[name], BOOTSTRAP)
    # Of two runs one is drawn.
    times = np.random.default_rng([BOOTSTRAP.seed, 0]).multinomial(1, [0.5, 0.5], BOOTSTRAP.samples)
    values = []
    for weights, drawn_runs in zip(BOOTSTRAP.weights(5), times, strict=True):
        drawn = [
            row for who, times in enumerate(weights) for row in np.flatnonzero(speaker == who)
            for _ in range(int(times))
        ]  # fmt: skip
        nobody = np.zeros(len(drawn), np.int64)
        of_runs = [
            METRICS[name](confusions(truth[drawn], one[drawn], nobody, 1, 3)[0]) for one in said
        ]
        values.append(of_runs[drawn_runs.argmax()])
    assert found == pytest.approx(BOOTSTRAP.interval(np.array(values)))
    assert found[0] < found[1]


def test_a_channel_alone_is_fused_with_nothing() -> None:
    recordings = Recordings(["a", "b"], ["happy", "sad"], ["1", "2"], ["x", "y"])
    vectors = np.eye(2, dtype=np.float32)
    alone = Features(["a", "b"], {"acoustic": vectors, "fused": vectors})
    (feature,) = _of_models("e2e", [alone], recordings)
    assert (feature.name, feature.checked) == ("e2e/acoustic", True)
    both = Features(["a", "b"], {**alone.arrays, "text": vectors})
    found = {one.name: one.checked for one in _of_models("full", [both], recordings)}
    assert found == {"full/acoustic": False, "full/fused": True, "full/text": False}


def labelled(recordings: Recordings, strength: float, width: int = 12) -> np.ndarray:
    """Vectors in which emotions show by so much, and speakers by more."""
    rng = np.random.default_rng(0)
    emotion = np.array([EMOTIONS.index(one) for one in recordings.emotions])
    speaker = np.array([int(one) for one in recordings.speakers])
    of_emotions = rng.standard_normal((8, width))
    of_speakers = rng.standard_normal((25, width))
    noise = rng.standard_normal((len(emotion), width))
    vectors = strength * of_emotions[emotion] + of_speakers[speaker] + noise
    return vectors.astype(np.float32)


@pytest.fixture(scope="module")
def results() -> ProbeResults:
    recordings = ravdess(6)
    features = [
        ProbedFeature("full/fused", [labelled(recordings, 30.0), labelled(recordings, 0.0)], True),
        ProbedFeature("full/text", [np.ones((len(recordings.emotions), 4), np.float32)]),
        ProbedFeature("whisper/mean/weighted", [labelled(recordings, 30.0).reshape(-1, 3, 4)]),
    ]
    params = probe_params(labels=["paper4", "strict4", "all8"], seeds=[0, 1])
    return run_probe(recordings, features, params, BOOTSTRAP, gender_of)


def test_a_probe_measures_every_feature_with_every_label_set(results: ProbeResults) -> None:
    majority = results.metrics[MAJORITY]
    for labels, share, num in (
        ("paper4", 1 / 3, 216),
        ("strict4", 8 / 28, 168),
        ("all8", 8 / 60, 360),
    ):
        key = f"by_speaker/{labels}"
        assert majority[f"{key}/accuracy"] == pytest.approx(share)
        assert majority[f"{key}/num_recordings"] == num
        # The pair of equal recordings is of one actor.
        assert majority[f"{key}/num_duplicates_left_out"] == 0
        assert results.metrics["full/text"][f"{key}/accuracy"] == pytest.approx(share)
        fused = results.metrics["full/fused"]
        # One model hears everything and the other one nothing.
        assert 0.5 < fused[f"{key}/accuracy"] < 0.8
        assert fused[f"{key}/accuracy_std"] > 0.2
        assert fused[f"{key}/accuracy_low"] <= fused[f"{key}/accuracy"]
        assert fused["num_seeds"] == 4
        weighted = results.metrics["whisper/mean/weighted"]
        assert weighted[f"{key}/accuracy"] > 0.9
        assert weighted[f"{key}/accuracy_fold_std"] < 0.1


def test_shuffled_labels_give_chance_and_random_splits_flatter(results: ProbeResults) -> None:
    assert {one["feature"] for one in results.checks} == {"full/fused"}
    for one in results.checks:
        assert one["shuffled_least"] <= one["chance"] <= one["shuffled_most"]
        assert one["shuffled_balanced_accuracy"] == pytest.approx(one["chance"], abs=0.07)
        assert one["accuracy"] > 0.95
        assert one["random_split_parts"] == 3


def test_a_random_split_hears_voices_again() -> None:
    """Where each says an emotion in a way of his own, only known speakers are understood."""
    recordings = ravdess(6)
    rng, ways = np.random.default_rng(0), {}
    for pair in zip(recordings.speakers, recordings.emotions, strict=True):
        ways.setdefault(pair, rng.standard_normal(16))
    vectors = [ways[p] for p in zip(recordings.speakers, recordings.emotions, strict=True)]
    feature = ProbedFeature("full/fused", [np.array(vectors, np.float32)], checked=True)
    found = run_probe(recordings, [feature], probe_params(), BOOTSTRAP)
    (check,) = found.checks
    assert check["random_split_accuracy"] > check["accuracy"] + 0.3


def test_groups_and_confusions_add_up(results: ProbeResults) -> None:
    mine = [
        row for row in results.groups
        if (row["feature"], row["labels"]) == ("whisper/mean/weighted", "all8")
    ]  # fmt: skip
    assert {row["group"] for row in mine} == {*(f"{n:02d}" for n in range(1, 7)), "male", "female"}
    assert sum(row["num_recordings"] for row in mine) == 2 * 360
    counts = [
        row for row in results.confusion
        if (row["feature"], row["labels"]) == ("full/fused", "paper4")
    ]  # fmt: skip
    assert len(counts) == 16
    assert sum(row["count"] for row in counts) == 216
    of_neutral = [row["count"] for row in counts if row["truth"] == "neutral"]
    assert sum(of_neutral) == 72
    weights = [row["weight"] for row in results.layer_weights if row["labels"] == "all8"]
    assert sum(weights) == pytest.approx(1)
    assert len(weights) == 3


def test_files_say_what_came_out(results: ProbeResults, tmp_path: Path) -> None:
    write_probe(results, tmp_path / "probe/p.json", tmp_path / "out")
    assert read_checks(tmp_path / "out") == results.checks
    folds = read_rows(tmp_path / "out/folds.csv")
    assert len(folds) == len(results.folds)
    assert {row["num_test"] for row in folds if row["labels"] == "all8"} == {"120"}
    with pytest.raises(BrewlineError, match=r"gone\.csv is missing; run `dvc repro probe`"):
        read_rows(tmp_path / "gone.csv")


def test_a_label_set_of_which_one_emotion_occurs_is_refused() -> None:
    happy = [row for row, one in enumerate(RAVDESS.emotions) if one == "happy"]
    one = Recordings(*(
        [part[row] for row in happy]
        for part in (RAVDESS.utterance_ids, RAVDESS.emotions, RAVDESS.speakers, RAVDESS.contents)
    ))  # fmt: skip
    feature = ProbedFeature("full/fused", [np.zeros((len(happy), 2), np.float32)])
    with pytest.raises(BrewlineError, match="'strict4' finds happy alone in this corpus"):
        run_probe(one, [feature], probe_params(), BOOTSTRAP)


# --- the file of features


def test_features_come_back_and_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    save_features(path, Features(["a", "b", "c"], {"mean": array, "odd": array[:, ::2]}))
    found = load_features(path)
    assert found.utterance_ids == ["a", "b", "c"]
    assert np.array_equal(found.arrays["odd"], array[:, ::2])
    assert holds_features(path)
    content = path.read_bytes()
    save_features(path, Features(["a", "b", "c"], {"odd": array[:, ::2], "mean": array}))
    assert path.read_bytes() == content
    path.write_bytes(content[:-8])
    assert not holds_features(path)
    with pytest.raises(BrewlineError, match="is missing or damaged"):
        load_features(path)
    save_features(path, Features(["a", "b"], {"mean": array}))
    with pytest.raises(BrewlineError, match="has 3 vectors of mean for 2 ids"):
        load_features(path)


def tuned_answers(share_wrong: float, seed: int) -> dict[str, int]:
    """What a fine-tuned model says of the paper's test: the truth, but for a share."""
    counted_as = LABEL_SETS["paper4"]
    classes = list(dict.fromkeys(counted_as.values()))
    rng = np.random.default_rng(seed)
    answers = {}
    rows = zip(RAVDESS.utterance_ids, RAVDESS.emotions, RAVDESS.speakers, strict=True)
    for name, emotion, speaker in rows:
        if emotion in counted_as and int(speaker) >= 19:
            truth = classes.index(counted_as[emotion])
            answers[name] = (truth + 1) % 4 if rng.random() < share_wrong else truth
    return answers


def test_what_was_fine_tuned_is_measured_beside_the_probes_of_its_own_problem() -> None:
    vectors = np.random.default_rng(0).normal(size=(len(RAVDESS.emotions), 4)).astype(np.float32)
    params = probe_params(labels=["paper4", "strict4"], protocols=["paper"])
    answers = [tuned_answers(0.25, seed) for seed in range(2)]
    tuned = TunedFeature("tuned/fine-tuned", "paper4", "paper", answers)
    results = run_probe(
        RAVDESS, [ProbedFeature("a", [vectors])], params, BOOTSTRAP, gender_of, [tuned]
    )
    found = results.metrics["tuned/fine-tuned"]
    assert {key.rsplit("/", 1)[0] for key in found} == {"paper/paper4", "num_seeds"}
    wrong = [tuned_answers(0.0, 0)[name] != said for one in answers for name, said in one.items()]
    assert found["paper/paper4/accuracy"] == pytest.approx(1 - np.mean(wrong))
    assert found["num_seeds"] == 2
    of_folds = [row for row in results.folds if row["feature"] == "tuned/fine-tuned"]
    assert [row["num_test"] for row in of_folds] == [216, 216]
    del answers[1]["u1100"]
    with pytest.raises(BrewlineError, match="tuned/fine-tuned has not answered for every rec"):
        run_probe(RAVDESS, [], params, BOOTSTRAP, None, [tuned])


def test_every_run_says_how_many_of_each_speaker_it_told_right(results: ProbeResults) -> None:
    for feature, found in results.metrics.items():
        problems = {key.rsplit("/", 1)[0] for key in found if key.endswith("/accuracy")}
        for problem in problems:
            protocol, labels = problem.split("/")
            rows = [
                row
                for row in results.runs
                if (row["feature"], row["protocol"], row["labels"]) == (feature, protocol, labels)
            ]
            by_run: dict[int, list[int]] = {}
            for row in rows:
                right, count = by_run.setdefault(row["run"], [0, 0])
                by_run[row["run"]] = [right + row["num_right"], count + row["num_recordings"]]
            shares = [right / count for right, count in by_run.values()]
            assert np.mean(shares) == pytest.approx(found[f"{problem}/accuracy"])
