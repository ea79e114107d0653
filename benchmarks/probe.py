"""Speed of the probe of emotions.

`all`: every label set under each published protocol (six folds and one and one) on 1,440 vectors of
768 random numbers, with the checks, against the fits alone that it consists of, written as a user
would: scikit-learn's pipeline in a loop over the same folds and penalties. Random vectors are the
hard case: nothing separates them.

    python benchmarks/probe.py [--json]
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from brewline.config.probes import ProbeParams
from brewline.core.system import peak_memory_mb
from brewline.evaluation.bootstrap import Bootstrap
from brewline.probing.classifier import STRENGTHS
from brewline.probing.folds import protocol_folds, split_by_speaker
from brewline.probing.inputs import ProbedFeature, Recordings
from brewline.probing.probe import run_probe
from brewline.probing.ravdess import LABEL_SETS

WIDTH = 768
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
PARAMS = ProbeParams(
    data="ravdess",
    rows={"random": "random"},
    labels=["paper4", "strict4", "all8"],
    protocols=["emobox", "paper", "serab"],
    speaker_folds=6,
    seeds=[0],
)


def recordings() -> Recordings:
    """As many of each actor and emotion as RAVDESS has."""
    told = [
        (emotion, f"{actor:02d}")
        for actor in range(1, 25)
        for emotion in EMOTIONS
        for _ in range(4 if emotion == "neutral" else 8)
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


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    """On the clock, and of processors."""
    clock, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - used


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    given = recordings()
    shape = (len(given.utterance_ids), WIDTH)
    vectors = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    our_s, our_cpu_s = seconds(lambda: ours(given, vectors))
    base_s, base_cpu_s = seconds(lambda: by_hand(given, vectors))
    found = {
        "case": "all",
        "seconds": round(our_s, 1),
        "cpu_seconds": round(our_cpu_s, 1),
        "baseline_seconds": round(base_s, 1),
        "baseline_cpu_seconds": round(base_cpu_s, 1),
        "ratio": round(base_s / our_s, 2),
        "peak_mb": round(peak_memory_mb()),
    }
    print(json.dumps(found) if as_json else found)


if __name__ == "__main__":
    main()
