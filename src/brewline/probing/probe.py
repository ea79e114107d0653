"""Every feature, label set and protocol of a probe: fitted, asked, and measured.

A run is one model with one seed of the probe. What a run says of the tests of all folds is measured
together, so that each recording counts once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brewline.config.probes import ProbeParams
from brewline.core.errors import BrewlineError
from brewline.evaluation.bootstrap import Bootstrap
from brewline.probing.classifier import Answer, probe, probe_shuffled
from brewline.probing.folds import Split, protocol_folds, random_splits, split_by_speaker
from brewline.probing.inputs import ProbedFeature, Recordings, TunedFeature
from brewline.probing.outputs import MAJORITY, ProbeResults
from brewline.probing.ravdess import LABEL_SETS, classes_of
from brewline.probing.scores import METRICS, accuracy, confusions, interval, majority

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
# How often labels are shuffled.
_SHUFFLES = 10


@dataclass(frozen=True)
class _Problem:
    """A label set under a protocol, of the recordings that have one of its labels.

    `splits` are by seed, a list of folds each; `truth`, `speaker` and `rows` (of all recordings)
    run parallel.
    """

    name: dict[str, str]
    classes: list[str]
    speakers: list[str]
    contents: list[str]
    rows: Ints
    truth: Ints
    speaker: Ints
    splits: dict[int, list[Split]]

    def key(self, metric: str) -> str:
        return f"{self.name['protocol']}/{self.name['labels']}/{metric}"

    @property
    def tested(self) -> Ints:
        first, *_ = self.splits.values()
        return np.sort(np.concatenate([split.test for split in first]))

    def counts(self, said: Ints, group: Ints, num_groups: int) -> Ints:
        """Confusions (G, K, K) of what was said of the tested ones."""
        asked = said >= 0
        return confusions(
            self.truth[asked], said[asked], group[asked], num_groups, len(self.classes)
        )


@dataclass(frozen=True)
class _Run:
    """What one model and seed said: a class for each row, -1 of those that are in no test."""

    model: int
    seed: int
    said: Ints
    answers: list[Answer]


def run_probe(
    recordings: Recordings,
    features: Sequence[ProbedFeature],
    params: ProbeParams,
    bootstrap: Bootstrap,
    gender_of: Callable[[str], str] | None = None,
    tuned: Sequence[TunedFeature] = (),
) -> ProbeResults:
    """Probes every feature under every protocol, with every label set.

    Args:
        recordings: U of them.
        features: Their vectors.
        params: Label sets, protocols and seeds.
        bootstrap: Draws speakers.
        gender_of: Of a speaker, where it is known.
        tuned: What was said already, which is measured beside the probes of its own protocol.

    Raises:
        BrewlineError: the protocol does not fit the speakers, or there is nothing to tell apart.
    """
    results = ProbeResults()
    for labels in params.labels:
        for protocol in params.protocols:
            problem = _make_problem(recordings, labels, protocol, params)
            _score_majority(results, problem)
            answered = {one.name: runs for one, runs in _answered(problem, recordings, tuned)}
            asked = {one.name: _ask(problem, one, params.seeds) for one in features}
            for name, runs in (asked | answered).items():
                _score(results, problem, name, runs, bootstrap)
                _count_groups(results, problem, name, runs, gender_of)
                results.runs += _run_rows(problem, name, runs)
            for feature in features:
                # Once for each label set is enough: what they show is no protocol's.
                if feature.checked and protocol == params.protocols[0]:
                    results.checks.append(_check(problem, feature, asked[feature.name]))
    return results


def _make_problem(
    recordings: Recordings, labels: str, protocol: str, params: ProbeParams
) -> _Problem:
    counted_as = LABEL_SETS[labels]
    rows = np.array([n for n, one in enumerate(recordings.emotions) if one in counted_as], np.int64)
    named = [counted_as[recordings.emotions[row]] for row in rows]
    classes = classes_of(labels, recordings.emotions)
    owner = [recordings.speakers[row] for row in rows]
    speakers, contents = sorted(set(owner)), [recordings.contents[row] for row in rows]
    folds = protocol_folds(protocol, owner, params.speaker_folds)
    return _Problem(
        {"labels": labels, "protocol": protocol},
        classes,
        speakers,
        contents,
        rows,
        np.array([classes.index(one) for one in named]),
        np.array([speakers.index(one) for one in owner]),
        {
            seed: [split_by_speaker(fold, owner, contents, seed) for fold in folds]
            for seed in params.seeds
        },
    )


def _ask(problem: _Problem, feature: ProbedFeature, seeds: Sequence[int]) -> list[_Run]:
    runs = []
    for model, vectors in enumerate(feature.models):
        own = vectors[problem.rows]
        for seed in seeds:
            splits = problem.splits[seed]
            answers = [probe(own, problem.truth, split) for split in splits]
            said = np.full(len(own), -1)
            for split, answer in zip(splits, answers, strict=True):
                said[split.test] = answer.predicted
            runs.append(_Run(model, seed, said, answers))
    return runs


def _answered(
    problem: _Problem, recordings: Recordings, tuned: Sequence[TunedFeature]
) -> Iterator[tuple[TunedFeature, list[_Run]]]:
    """What fine-tuned models said of a problem, of those that learned this one."""
    seed = min(problem.splits)
    for feature in tuned:
        if (feature.labels, feature.protocol) != (problem.name["labels"], problem.name["protocol"]):
            continue
        ids = [recordings.utterance_ids[row] for row in problem.rows[problem.tested]]
        runs = []
        for number, answer_of in enumerate(feature.models):
            if not answer_of.keys() >= set(ids):
                raise BrewlineError(
                    f"{feature.name} has not answered for every recording that "
                    f"{feature.protocol} tests; run `dvc repro`"
                )
            said = np.full(len(problem.rows), -1)
            said[problem.tested] = [answer_of[one] for one in ids]
            runs.append(_Run(number, seed, said, []))
        yield feature, runs


def _run_rows(problem: _Problem, name: str, runs: Sequence[_Run]) -> Iterator[dict[str, Any]]:
    """How many recordings of each tested speaker each run told right."""
    for number, (run, counts_GKK) in enumerate(zip(runs, _by_speaker(problem, runs), strict=True)):
        for speaker, counts in zip(problem.speakers, counts_GKK, strict=True):
            if counts.any():
                yield {
                    "feature": name,
                    **problem.name,
                    "run": number,
                    "model": run.model,
                    "seed": run.seed,
                    "speaker": speaker,
                    "num_recordings": int(counts.sum()),
                    "num_right": int(np.trace(counts)),
                }


def _score_majority(results: ProbeResults, problem: _Problem) -> None:
    first, *_ = problem.splits.values()
    said = majority(problem.truth, [one.train for one in first], [one.test for one in first])
    results.runs += _run_rows(problem, MAJORITY, [_Run(0, min(problem.splits), said, [])])
    nobody = np.zeros(len(said), np.int64)
    (counts,) = problem.counts(said, nobody, 1)
    found = results.metrics.setdefault(MAJORITY, {})
    for name, metric in METRICS.items():
        found[problem.key(name)] = float(metric(counts))
    found[problem.key("num_recordings")] = float(counts.sum())
    found[problem.key("num_speakers")] = float(len(set(problem.speaker[problem.tested])))
    found[problem.key("num_classes")] = float(len(problem.classes))
    found[problem.key("num_duplicates_left_out")] = float(
        sum(len(said) - len(one.train) - len(one.test) for one in first)
    )


def _score(
    results: ProbeResults,
    problem: _Problem,
    name: str,
    runs: Sequence[_Run],
    bootstrap: Bootstrap,
) -> None:
    """Metrics with their intervals and deviations, and the tables of folds and weights."""
    tested = np.unique(problem.speaker[problem.tested])
    counts_RGKK = _by_speaker(problem, runs)[:, tested]
    found = results.metrics.setdefault(name, {"num_seeds": float(len(runs))})
    by_fold = [_fold_counts(problem, run) for run in runs]
    for metric_name, metric in METRICS.items():
        key = problem.key(metric_name)
        values = metric(counts_RGKK.sum(axis=1))
        found[key] = float(values.mean())
        found[f"{key}_low"], found[f"{key}_high"] = interval(counts_RGKK, metric, bootstrap)
        if len(runs) > 1:
            found[f"{key}_std"] = float(values.std(ddof=1))
        if len(by_fold[0]) > 1:
            of_folds = np.mean([metric(counts) for counts in by_fold], axis=0)
            found[f"{key}_fold_std"] = float(of_folds.std(ddof=1))
    for run, counts_FKK in zip(runs, by_fold, strict=True):
        for fold, counts in enumerate(counts_FKK):
            # What was fine-tuned has no penalty that was chosen.
            strength = run.answers[fold].strength if run.answers else None
            split = problem.splits[run.seed][fold]
            results.folds.append(
                {"feature": name, **problem.name, "model": run.model, "seed": run.seed}
                | {"fold": fold, "num_train": len(split.train), "num_test": len(split.test)}
                | {"strength": strength}
                | {metric_name: float(metric(counts)) for metric_name, metric in METRICS.items()}
            )
    learned = [one.layer_weights for run in runs for one in run.answers]
    weights = [one for one in learned if one is not None]
    for layer, weight in enumerate(np.mean(weights, axis=0) if weights else ()):
        results.layer_weights.append(
            {"feature": name, **problem.name, "layer": layer, "weight": float(weight)}
        )


def _by_speaker(problem: _Problem, runs: Sequence[_Run]) -> Ints:
    """Confusions (R, G, K, K) of R runs, by all speakers of the problem."""
    num_speakers = len(problem.speakers)
    return np.stack([problem.counts(run.said, problem.speaker, num_speakers) for run in runs])


def _fold_counts(problem: _Problem, run: _Run) -> Ints:
    fold = np.zeros(len(run.said), np.int64)
    for number, split in enumerate(problem.splits[run.seed]):
        fold[split.test] = number
    return problem.counts(run.said, fold, len(problem.splits[run.seed]))


def _count_groups(
    results: ProbeResults,
    problem: _Problem,
    name: str,
    runs: Sequence[_Run],
    gender_of: Callable[[str], str] | None,
) -> None:
    """How often emotions were taken for others, and accuracy by speaker and gender."""
    counts_GKK = _by_speaker(problem, runs).mean(axis=0)
    row = {"feature": name, **problem.name}
    for truth, said_K in zip(problem.classes, counts_GKK.sum(axis=0), strict=True):
        for said, count in zip(problem.classes, said_K, strict=True):
            results.confusion.append({**row, "truth": truth, "said": said, "count": float(count)})
    groups = {("speaker", one): [number] for number, one in enumerate(problem.speakers)}
    for number, speaker in enumerate(problem.speakers if gender_of else ()):
        assert gender_of is not None
        groups.setdefault(("gender", gender_of(speaker)), []).append(number)
    for (kind, group), members in sorted(groups.items()):
        counts = counts_GKK[members].sum(axis=0)
        # Who is in no test of the protocol has no accuracy.
        if counts.any():
            found = {"num_recordings": int(counts.sum()), "accuracy": float(accuracy(counts))}
            results.groups.append({**row, "kind": kind, "group": group, **found})


def _check(problem: _Problem, feature: ProbedFeature, runs: Sequence[_Run]) -> dict[str, Any]:
    """What the first model's vectors seem worth with shuffled labels, and with known voices."""
    own = feature.models[0][problem.rows]
    mine = [run for run in runs if run.model == 0]
    first, balanced = mine[0], METRICS["balanced_accuracy"]
    shuffled = []
    for seed in range(_SHUFFLES):
        rng = np.random.default_rng([first.seed, seed])
        said = np.full(len(own), -1)
        for split, answer in zip(problem.splits[first.seed], first.answers, strict=True):
            said[split.test] = probe_shuffled(own, problem.truth, split, answer.strength, rng)
        shuffled.append(_Run(0, seed, said, []))
    by_chance = balanced(_by_speaker(problem, shuffled).sum(axis=1))
    by_speaker = float(accuracy(_by_speaker(problem, mine).sum(axis=1)).mean())
    num_tested = len({*problem.speaker[problem.splits[first.seed][0].test]})
    num_parts = max(2, round(len(problem.speakers) / num_tested))
    by_lot = float(np.mean([_by_lot(problem, own, num_parts, run.seed) for run in mine]))
    return {
        "feature": feature.name,
        **problem.name,
        "chance": 1 / len(problem.classes),
        "shuffles": _SHUFFLES,
        "shuffled_balanced_accuracy": float(by_chance.mean()),
        "shuffled_least": float(by_chance.min()),
        "shuffled_most": float(by_chance.max()),
        "accuracy": by_speaker,
        "random_split_accuracy": by_lot,
        "random_split_parts": num_parts,
    }


def _by_lot(problem: _Problem, own: Floats, num_parts: int, seed: int) -> float:
    """Accuracy where the parts are drawn by lot, whoever speaks."""
    said = np.full(len(own), -1)
    for split in random_splits(problem.contents, problem.truth, num_parts, seed):
        said[split.test] = probe(own, problem.truth, split).predicted
    return float((said == problem.truth).mean())
