"""Case `probe` of `evaluate.py`: the classifiers that hear emotions in vectors."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from brewline.config.probes import ProbeParams
from brewline.evaluation.bootstrap import Bootstrap
from brewline.probing.classifier import STRENGTHS
from brewline.probing.folds import protocol_folds, split_by_speaker
from brewline.probing.inputs import ProbedFeature, Recordings
from brewline.probing.probe import run_probe
from brewline.probing.ravdess import LABEL_SETS

WIDTH = 768
# Of each actor and emotion.
TAKES = 8
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
PARAMS = ProbeParams(
    data="ravdess",
    rows={"random": "random"},
    labels=["paper4", "strict4", "all8"],
    protocols=["emobox", "paper", "serab"],
    speaker_folds=6,
    seeds=[0],
)


def recordings(takes: int) -> Recordings:
    """So many of each actor and emotion, and half of them neutral; RAVDESS has eight."""
    told = [
        (emotion, f"{actor:02d}")
        for actor in range(1, 25)
        for emotion in EMOTIONS
        for _ in range(max(1, takes // 2) if emotion == "neutral" else takes)
    ]
    ids = [f"u{number}" for number in range(len(told))]
    return Recordings(ids, [one for one, _ in told], [one for _, one in told], ids)


def ours(given: Recordings, vectors: np.ndarray) -> None:
    """Everything that the stage computes of one feature."""
    feature = ProbedFeature("random/fused", [vectors], checked=True)
    run_probe(given, [feature], PARAMS, Bootstrap(1000, 0, 0.95))


def by_hand(given: Recordings, vectors: np.ndarray) -> None:
    """The fits that choose a penalty, and the last one; no check and no interval."""
    for labels in PARAMS.labels:
        counted_as = LABEL_SETS[labels]
        rows = [row for row, one in enumerate(given.emotions) if one in counted_as]
        truth = np.array([counted_as[given.emotions[row]] for row in rows])
        own, speakers = vectors[rows], [given.speakers[row] for row in rows]
        contents = [given.contents[row] for row in rows]
        for protocol in PARAMS.protocols:
            for fold in protocol_folds(protocol, speakers, PARAMS.speaker_folds):
                split = split_by_speaker(fold, speakers, contents, 0)
                models = {
                    strength: make_pipeline(
                        StandardScaler(), LogisticRegression(C=strength, max_iter=1000)
                    )
                    for strength in STRENGTHS
                }
                reached = {
                    strength: model.fit(own[split.fit], truth[split.fit]).score(
                        own[split.validation], truth[split.validation]
                    )
                    for strength, model in models.items()
                }
                best = models[max(reached, key=lambda strength: reached[strength])]
                best.fit(own[split.train], truth[split.train]).predict(own[split.test])


def vectors_of(given: Recordings) -> np.ndarray:
    """Random numbers, in which nothing tells emotions apart: the hard case; (N, `WIDTH`)."""
    shape = (len(given.utterance_ids), WIDTH)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def seconds(work: Callable[[Recordings, np.ndarray], None], takes: int) -> tuple[float, float]:
    """On the clock, and of processors."""
    given = recordings(takes)
    vectors = vectors_of(given)
    clock, used = time.perf_counter(), time.process_time()
    work(given, vectors)
    return time.perf_counter() - clock, time.process_time() - used


def run_once() -> None:
    """All that is measured, at full size."""
    seconds(ours, TAKES)


def measure_probe() -> dict[str, Any]:
    """Compares with the fits alone, and with one recording of each actor and emotion."""
    our_s, our_cpu_s = seconds(ours, TAKES)
    base_s, base_cpu_s = seconds(by_hand, TAKES)
    _, small_cpu_s = seconds(ours, 1)
    return {
        "case": "probe",
        "ours_s": round(our_s, 1),
        "ours_cpu_s": round(our_cpu_s, 1),
        "by_hand_s": round(base_s, 1),
        "by_hand_cpu_s": round(base_cpu_s, 1),
        "growth": round(our_cpu_s / small_cpu_s, 1),
    }
