"""Speed and memory of evaluation on vectors of SpokenCOCO's size: 5,000 images, 25,000 recordings.

`ranks_5k_25k`: the ranks of both directions, against what public code does for them: the product of
the vectors, and a full argsort of it and of its transpose, in torch and in NumPy; and against the
product alone. Shortest of some rounds, in turns, so that all see the same machine.

`score_5k_25k`: what stage `score` does with a model whose dev and test are of that size each, from
files to files, without recording in MLflow: with one sample of the bootstrap, and with 1,000.

`probe`: every label set of emotions under each published protocol (six folds and one and one) on
1,440 vectors of 768 random numbers, with the checks and intervals, against the fits alone that it
consists of, written as a user would: scikit-learn's pipeline in a loop over the same folds and
penalties, without checks and intervals.

`growth` is the time against that of a tenth of the images and recordings (of `probe`: of processors
and an eighth of the recordings). Of ranks it may be a hundred, as the product's is. Peak memory
is that of a process that does nothing else, vectors included.

    python benchmarks/evaluate.py [--json] [--images 5000] [--cases ranks_5k_25k ...]
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from cases.probe import measure_probe, run_once

from brewline.config import load_params
from brewline.config.experiments import TableParams
from brewline.evaluation.outputs import write_evaluation
from brewline.evaluation.query_facts import read_query_facts
from brewline.evaluation.ranks import rank_both_ways
from brewline.evaluation.score import ModelVectors, score_table
from brewline.evaluation.texts import read_texts, read_word_errors
from brewline.evaluation.vectors import SplitEmbeddings, load_vectors, save_vectors
from brewline.speech.error_rates import Errors
from brewline.tables.facts import RECORDINGS
from brewline.tables.manifest import MANIFEST
from brewline.tables.parquet import write_table
from brewline.tables.transcripts import OK, TRANSCRIPTS, WORD_ERRORS, WORD_ERRORS_FILE

PROJECT = Path(__file__).parents[1]
CASES = ("ranks_5k_25k", "score_5k_25k", "probe")
TAKES = 5
DIMENSION = 768
ROUNDS = 3
SAMPLES = 1000
WORDS = ["a", "small", "red", "dog", "runs", "over", "the", "green", "grass", "two", "old", "boats"]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, D) of length one, in float32."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_vectors(split: str, num_images: int) -> SplitEmbeddings:
    """Images drawn at random, and five recordings near each; in no order."""
    rng = np.random.default_rng(0)
    images = unit(rng.normal(size=(num_images, DIMENSION)))
    image_U = rng.permutation(np.repeat(np.arange(num_images), TAKES))
    near = images[image_U] + 5 * unit(rng.normal(size=(len(image_U), DIMENSION)))
    image_ids = [f"{split}-image-{number}" for number in range(num_images)]
    return SplitEmbeddings(
        [f"{split}-{number}" for number in range(len(image_U))],
        [image_ids[image] for image in image_U],
        unit(near),
        image_ids,
        images,
    )


def image_positions(vectors: SplitEmbeddings) -> np.ndarray:
    """Where the image of each recording stands; (U,)."""
    position = {name: number for number, name in enumerate(vectors.image_ids)}
    return np.array([position[name] for name in vectors.utterance_image_ids])


def run_product(vectors: SplitEmbeddings) -> None:
    """The product that everything here rests on."""
    vectors.utterance_embeddings @ vectors.image_embeddings.T


def run_ours(vectors: SplitEmbeddings) -> tuple[np.ndarray, np.ndarray]:
    """The rank of the image, and of the best recording."""
    forward, backward = rank_both_ways(
        vectors.utterance_embeddings,
        vectors.image_embeddings,
        vectors.utterance_image_ids,
        vectors.image_ids,
    )
    return forward.best, backward.best


def run_numpy(vectors: SplitEmbeddings) -> tuple[np.ndarray, np.ndarray]:
    """A full argsort each way."""
    image_U = image_positions(vectors)
    scores_UI = vectors.utterance_embeddings @ vectors.image_embeddings.T
    found = np.argsort(-scores_UI, axis=1) == image_U[:, None]
    forward = 1 + found.argmax(axis=1)
    order_IU = np.argsort(-scores_UI.T, axis=1)
    found = image_U[order_IU] == np.arange(len(vectors.image_ids))[:, None]
    return forward, 1 + found.argmax(axis=1)


def run_torch(vectors: SplitEmbeddings) -> tuple[np.ndarray, np.ndarray]:
    """The same in torch, as open_clip and BrewCLIP do it."""
    import torch

    image_U = torch.from_numpy(image_positions(vectors))
    utterances, images = map(
        torch.from_numpy, (vectors.utterance_embeddings, vectors.image_embeddings)
    )
    scores_UI = utterances @ images.T
    ranking = torch.argsort(scores_UI, dim=1, descending=True)
    forward = 1 + torch.where(ranking == image_U[:, None])[1]
    ranking = torch.argsort(scores_UI.T, dim=1, descending=True)
    found = image_U[ranking] == torch.arange(len(vectors.image_ids))[:, None]
    return forward.numpy(), 1 + found.int().argmax(dim=1).numpy()


def timed(run: Callable[[], Any]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_mb_of(case: str, num_images: int) -> int:
    """Peak memory of a process of its own that runs a case once, in MiB.

    To be asked for first: a process begins with the peak of the one that started it.
    """
    command = [sys.executable, __file__, "--memory", case, "--images", str(num_images)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_ranks(num_images: int) -> dict[str, Any]:
    """Compares the ways to rank."""
    peak_mb = peak_mb_of("ranks_5k_25k", num_images)
    vectors, small = (make_vectors("test", number) for number in (num_images, num_images // 10))
    ours = run_ours(small)
    for other in (run_numpy, run_torch):
        assert all(map(np.array_equal, ours, other(small))), other.__name__
    ways = {"product": run_product, "ours": run_ours, "numpy": run_numpy, "torch": run_torch}
    rounds = [
        {name: timed(lambda run=run: run(vectors)) for name, run in ways.items()}
        for _ in range(ROUNDS)
    ]
    best = {name: min(one[name] for one in rounds) for name in ways}
    small_s = min(timed(lambda: run_ours(small)) for _ in range(ROUNDS))
    return {
        "case": "ranks_5k_25k",
        **{f"{name}_s": round(seconds, 3) for name, seconds in best.items()},
        "times_torch": round(best["torch"] / best["ours"], 2),
        "times_numpy": round(best["numpy"] / best["ours"], 2),
        "products": round(best["ours"] / best["product"], 2),
        "growth": round(best["ours"] / small_s, 1),
        "peak_mb": peak_mb,
    }


def make_project(folder: Path, num_images: int) -> None:
    """The files that stage `score` reads: vectors of one model, manifest, transcripts and facts."""
    splits = {split: make_vectors(split, num_images) for split in ("dev", "test")}
    save_vectors(folder / "vectors.safetensors", splits)
    rng = random.Random(0)
    manifest, transcripts, facts, errors = [], [], [], []
    for split, vectors in splits.items():
        for number, name in enumerate(vectors.utterance_ids):
            words = rng.choices(WORDS, k=rng.randrange(6, 16))
            manifest.append(
                {
                    "utterance_id": name,
                    "corpus": "bench",
                    "split": split,
                    "image_id": vectors.utterance_image_ids[number],
                    "audio_path": f"{name}.wav",
                    "speaker_id": str(number % 100),
                    "caption": " ".join(words),
                    "duration_s": 2 + number % 50 / 10,
                    "sample_rate_hz": 16_000,
                    "num_channels": 1,
                    "audio_sha256": name,
                }
            )
            transcripts.append(
                {
                    "utterance_id": name,
                    "split": split,
                    "text": " ".join(words),
                    "language": "en",
                    "num_windows": 1,
                    "num_frames": 100,
                    "status": OK,
                    "asr_model": "bench",
                }
            )
            levels = {"level_dbfs": -20.0, "noise_dbfs": -30.0 - number % 40}
            facts.append({"path": f"{name}.wav", "sha256": name, **levels})
            errors.append(asdict(Errors(name, len(words), number % 5, 50, number % 9)))
    write_table(folder / "data/manifest/bench.parquet", MANIFEST, manifest)
    write_table(folder / "data/transcripts/bench.parquet", TRANSCRIPTS, transcripts)
    write_table(folder / "data/facts/bench/recordings.parquet", RECORDINGS, facts)
    write_table(folder / "reports/transcription/bench" / WORD_ERRORS_FILE, WORD_ERRORS, errors)


def run_score(folder: Path, samples: int) -> None:
    """What stage `score` does with a table of one row."""
    params = load_params(PROJECT / "params.yaml").evaluate
    params = params.model_copy(update={"bootstrap_samples": samples})
    table = TableParams(data="bench", rows={"one": "one"})
    models = iter([ModelVectors("one", "one/seed-0", load_vectors(folder / "vectors.safetensors"))])
    texts, errors = read_texts("bench", folder), read_word_errors("bench", folder)
    facts = read_query_facts("bench", folder)
    evaluation = score_table(models, texts, facts, errors, table, [*table.rows], params)
    write_evaluation(evaluation, folder / "metrics.json", folder / "evaluation")


def measure_score(num_images: int) -> dict[str, Any]:
    """Times what the stage does, with and without intervals."""
    peak_mb = peak_mb_of("score_5k_25k", num_images)
    with tempfile.TemporaryDirectory() as large, tempfile.TemporaryDirectory() as small:
        make_project(Path(large), num_images)
        make_project(Path(small), num_images // 10)
        plain_s = timed(lambda: run_score(Path(large), 1))
        ours_s = timed(lambda: run_score(Path(large), SAMPLES))
        small_s = timed(lambda: run_score(Path(small), SAMPLES))
    return {
        "case": "score_5k_25k",
        "without_bootstrap_s": round(plain_s, 2),
        "ours_s": round(ours_s, 2),
        "growth": round(ours_s / small_s, 1),
        "peak_mb": peak_mb,
    }


def run_for_memory(case: str, num_images: int) -> None:
    """Runs a case once, and prints the peak memory of this process in MiB."""
    if case == "ranks_5k_25k":
        run_ours(make_vectors("test", num_images))
    elif case == "probe":
        run_once()
    else:
        with tempfile.TemporaryDirectory() as folder:
            make_project(Path(folder), num_images)
            run_score(Path(folder), SAMPLES)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    print(peak // 2**20 if sys.platform == "darwin" else peak // 2**10)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--images", type=int, default=5000, help="of ranks and score")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--memory", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        run_for_memory(arguments.memory, arguments.images)
        return
    measures = {
        "ranks_5k_25k": measure_ranks,
        "score_5k_25k": measure_score,
        "probe": lambda _: {"peak_mb": peak_mb_of("probe", 0), **measure_probe()},
    }
    for case in arguments.cases:
        line = measures[case](arguments.images)
        if arguments.json:
            print(json.dumps(line), flush=True)
        else:
            print("   ".join(f"{name} {value}" for name, value in line.items()), flush=True)


if __name__ == "__main__":
    main()
