"""A made-up project after `score`: files in every format that the report and MLflow read."""

import csv
import functools
import io
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from analysis_world import write_made_analysis
from PIL import Image, ImageDraw

from brewline.config import Params, load_params
from brewline.config.published import PUBLISHED_FILE, load_published
from brewline.config.recipes import NONE
from brewline.config.runtime import TrackingParams
from brewline.core.files import write_json
from brewline.evaluation.bootstrap import Bootstrap
from brewline.evaluation.query_ranks import QueryRanks
from brewline.evaluation.sound_table import (
    SoundModelVectors,
    score_sound_table,
    write_sound_evaluation,
)
from brewline.evaluation.sound_vectors import SoundEmbeddings
from brewline.models.card import new_card
from brewline.models.names import model_folder, model_names
from brewline.probing.inputs import (
    ANSWERED,
    POOLINGS,
    ProbedFeature,
    Recordings,
    TunedFeature,
    layer_name,
    weighted_name,
)
from brewline.probing.outputs import ProbeResults, write_probe
from brewline.probing.probe import run_probe
from brewline.probing.ravdess import gender_of
from brewline.report.page import ReportInputs
from brewline.tables.manifest import MANIFEST, QUARANTINE
from brewline.tables.parquet import write_table
from brewline.tracking.store import open_store

PROJECT = Path(__file__).parents[1]
HOSTILE = '</td><script>alert("x")</script><img src=https://evil.example/a.png> & a dog'
_WORDS = ["a", "small", "red", "car", "is", "parked", "beside", "the", "tall", "tower", "um", "dog"]
_BOOST = {"zero-shot": 0.0, "prompted": 0.14, "e2e": -0.06, "full": 0.17}


def params() -> Params:
    """The parameters of the repository itself."""
    return load_params(PROJECT / "params.yaml")


def make_world(root: Path, given: Params | None = None, num_images: int = 12) -> ReportInputs:
    """Writes a whole project under `root`; equal calls write equal files."""
    chosen = given or params()
    for corpus in chosen.corpora:
        _write_data(root, chosen, corpus, num_images)
    for experiment in chosen.experiments:
        _write_models(root, chosen, experiment)
    for table in chosen.tables:
        _write_evaluation(root, chosen, table, num_images)
    for table in chosen.sound_tables:
        _write_sounds(root, chosen, table)
    for name, probe in chosen.probes.items():
        folder = root / "reports/emotion" / name
        write_probe(probe_results(tuple(probe.rows)), root / f"metrics/probe/{name}.json", folder)
    write_json(
        root / "models/backbones/backbones.json",
        {
            "whisper": {"name": "mini-whisper", "sha256": "a" * 64},
            "clip": {"name": "mini-clip", "sha256": "b" * 64},
        },
    )
    return ReportInputs(
        metrics_dir=root / "metrics",
        evaluation_dir=root / "reports/evaluation",
        sounds_dir=root / "reports/sounds",
        emotion_dir=root / "reports/emotion",
        analysis_dir=root / "reports/analysis",
        models_dir=root / "models",
        manifest_dir=root / "data/manifest",
        quarantine_dir=root / "data/quarantine",
        published=load_published(PROJECT / PUBLISHED_FILE),
        media=fake_media,
    )


@functools.cache
def probe_results(rows: tuple[str, ...], tuned: str | None = None) -> ProbeResults:
    """What a probe of made-up vectors gives: voices carry emotions, texts do not.

    Row `tuned`, where there is one, was fine-tuned on four emotions, and is always right.
    """
    emotions = ("neutral", "calm", "happy", "sad", "angry")
    told = [(emotion, f"{speaker:02d}") for speaker in range(1, 7) for emotion in emotions * 3]
    ids = [f"u{number}" for number in range(len(told))]
    recordings = Recordings(ids, [one for one, _ in told], [one for _, one in told], ids)
    rng = np.random.default_rng(0)
    heard = np.array([emotions.index(one) for one in recordings.emotions])
    voices = 3 * np.eye(5)[heard] + rng.standard_normal((len(ids), 5))
    features = [
        ProbedFeature(f"{row}/{kind}", [vectors.astype(np.float32)], checked=kind == "fused")
        for row in rows
        for kind, vectors in {
            "acoustic": voices,
            "caption": np.ones((len(ids), 5)),
            "caption_fused": voices,
            "fused": voices,
            "text": rng.standard_normal((len(ids), 5)),
        }.items()
    ]
    # As many as stand in another order by their names than by their numbers.
    layers = np.stack([voices.astype(np.float32)] * 12, axis=1)
    for pooling in POOLINGS:
        features += [ProbedFeature(layer_name(pooling, n), [layers[:, n]]) for n in range(12)]
        features.append(ProbedFeature(weighted_name(pooling), [layers]))
    (probe,) = params().probes.values()
    probe = probe.model_copy(update={"speaker_folds": 3})
    counted_as = {"neutral": 0, "calm": 0, "happy": 1, "sad": 2, "angry": 3}
    answers = [dict(zip(ids, map(counted_as.__getitem__, recordings.emotions), strict=True))]
    answered = [TunedFeature(f"{tuned}/{ANSWERED}", "paper4", "by_speaker", answers)]
    return run_probe(
        recordings, features, probe, Bootstrap(20, 0, 0.95), gender_of, answered if tuned else []
    )


def fake_media(corpus: str, path: str) -> bytes:
    """A drawn picture or a tone, by its path."""
    number = int("".join(filter(str.isdigit, path)) or 0)
    return drawing(number) if path.endswith(".jpg") else tone(number)


def drawing(number: int) -> bytes:
    """A JPEG of a few coloured shapes."""
    rng = random.Random(number)
    image = Image.new("RGB", (320, 240), tuple(rng.randrange(120, 240) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 160, 320, 240), fill=tuple(rng.randrange(40, 160) for _ in range(3)))
    for _ in range(4):
        left, top = rng.randrange(280), rng.randrange(190)
        size = rng.randrange(20, 80)
        colour = tuple(rng.randrange(256) for _ in range(3))
        shape = rng.choice([pen.ellipse, pen.rectangle])
        shape((left, top, left + size, top + size), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


@functools.cache
def tone(number: int, suffix: str = "OGG") -> bytes:
    """A second of a tone; kept, because an Ogg stream gets a random serial number."""
    times = np.arange(16_000) / 16_000
    samples = (0.3 * np.sin(2 * np.pi * (200 + 40 * number) * times)).astype(np.float32)
    buffer = io.BytesIO()
    subtype = "OPUS" if suffix == "OGG" else None
    soundfile.write(buffer, samples, 16_000, format=suffix, subtype=subtype)
    return buffer.getvalue()


@functools.cache
def migrated_store() -> bytes:
    """An MLflow database without runs; kept, because its migrations take seconds."""
    settings = TrackingParams(
        experiment="another", system_metrics=False, register_experiments=False
    )
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        open_store(settings, Path(folder))
        return (Path(folder) / "mlflow.db").read_bytes()


def sentence(rng: random.Random) -> str:
    """A caption."""
    return " ".join(rng.choice(_WORDS) for _ in range(rng.randrange(8, 26))).capitalize() + "."


def _misheard(caption: str, rng: random.Random) -> str:
    words = caption.lower().rstrip(".").split()
    heard = [rng.choice(_WORDS) if rng.random() < 0.1 else word for word in words]
    return " ".join(word for word in heard if rng.random() > 0.06)


def _write_data(root: Path, chosen: Params, corpus: str, num_images: int) -> None:
    with_images = corpus in chosen.measured_corpora
    rng = random.Random(corpus)
    rows: list[dict[str, Any]] = []
    for split in ("train", "dev", "test"):
        for number in range(2 * num_images):
            image = number // 2
            rows.append(
                {
                    "utterance_id": f"{split}-{number}",
                    "corpus": corpus,
                    "split": split,
                    "image_id": f"{split}-image-{image}" if with_images else None,
                    "image_path": f"images/{split}-{image}.jpg" if with_images else None,
                    "audio_path": f"audio/{split}-{number}.wav",
                    "speaker_id": f"s{number % 3}",
                    "caption": sentence(rng) if with_images else None,
                    "duration_s": 2.5 + number / 10,
                    "sample_rate_hz": 16_000,
                    "num_channels": 1,
                    "audio_sha256": f"{number:064x}",
                    "emotion": None,
                    "intensity": None,
                }
            )
    write_table(root / f"data/manifest/{corpus}.parquet", MANIFEST, rows)
    reasons = [
        ("silent", "the loudest sample is at -71.3 dBFS"),
        ("truncated", "Ogg page 12 needs 431 bytes more"),
        ("not_audio", f"starts with {HOSTILE!r}"),
        ("silent", "the loudest sample is at -90.0 dBFS"),
    ]
    bad = [
        {
            "utterance_id": f"bad-{number}",
            "split": "train",
            "audio_path": f"audio/bad-{number}.wav",
            "image_path": None,
            "reason": reason,
            "detail": detail,
        }
        for number, (reason, detail) in enumerate(reasons if with_images else [])
    ]
    write_table(root / f"data/quarantine/{corpus}.parquet", QUARANTINE, bad)


def model_facts(chosen: Params, experiment: str, seed: int | None) -> dict[str, Any]:
    """The content of a `model.json`."""
    one = chosen.experiments[experiment]
    if one.recipe == NONE and one.init != NONE:
        init = {"experiment": one.init, "sha256": "e" * 64}
        taken = {"experiment": experiment, "corpus": one.data, "init": init, "states": one.states}
        return model_facts(chosen, one.init, seed) | taken
    facts = new_card(chosen, experiment, {"whisper": "a" * 64, "clip": "b" * 64}).model_dump()
    if seed is None:
        return facts
    hears = chosen.variant_of(experiment).acoustic
    return facts | {
        "seed": seed,
        "num_trained_parameters": 264_193,
        "best_step": 150,
        "data": {"shards": "c" * 64} | ({"states": "d" * 64} if hears else {}),
    }


def history(variant: str, steps: int = 200, every: int = 5) -> list[dict[str, Any]]:
    """The rows of a `history.jsonl`."""
    rng = random.Random(variant)
    rows: list[dict[str, Any]] = []
    for step in range(every, steps + 1, every):
        loss = 0.9 + 2.6 * 0.985**step + rng.gauss(0, 0.06)
        rows.append({"step": step, "loss": loss, "outer_loss": loss, "learning_rate": 1e-3})
        if step % 50 == 0:
            level = 0.4 + _BOOST.get(variant, 0.05) * step / steps + rng.gauss(0, 0.012)
            rows.append(
                {
                    "step": step,
                    "dev/speech_to_image/recall_at_1": level,
                    "dev/image_to_speech/any_hit_recall_at_1": level + 0.06,
                }
            )
    return rows


def choices() -> list[dict[str, Any]]:
    """Two looks at dev of a model that learns from frames; see `frame_choices`."""
    even = {f"dev/choice/frame_{place}": 0.25 for place in (1, 2, 3, 4)}
    first = {"step": 100, "dev/choice/entropy": 1.386, "dev/choice/margin": 0.02, **even}
    uneven = {"dev/choice/frame_1": 0.5, "dev/choice/frame_2": 0.3, "dev/choice/frame_3": 0.2}
    last = {"step": 200, "dev/choice/entropy": 1.03, "dev/choice/margin": 0.05, **uneven}
    return [first, {**last, "dev/choice/changed": 0.4}]


def _write_models(root: Path, chosen: Params, experiment: str) -> None:
    seeds: Sequence[int | None] = chosen.seeds_of(experiment) or [None]
    for name, seed in zip(model_names(chosen, experiment), seeds, strict=True):
        folder = model_folder(experiment, name, root)
        write_json(folder / "model.json", model_facts(chosen, experiment, seed))
        # The curves of models that were taken over stay where they were trained.
        if chosen.experiments[experiment].recipe != NONE:
            one = chosen.experiments[experiment]
            rows = history(one.variant) + choices() * (one.task == "audio_image")
            lines = [json.dumps(row) + "\n" for row in rows]
            (folder / "history.jsonl").write_text("".join(lines))


def _boost(chosen: Params, experiment: str) -> float:
    one = chosen.experiments.get(experiment)
    return _BOOST.get(one.variant, 0.1) if one else 0.1


def _metrics(chosen: Params, experiment: str, num_images: int) -> dict[str, float]:
    boost = _boost(chosen, experiment)
    values: dict[str, float] = {}
    for split in ("dev", "test"):
        for direction, kind in (("speech_to_image", ""), ("image_to_speech", "any_hit_")):
            start = f"{split}/{direction}"
            for k in chosen.evaluate.recall_at:
                value = min(0.97, (0.42 + boost) * k**0.3)
                for name in {f"{start}/recall_at_{k}", f"{start}/{kind}recall_at_{k}"}:
                    values[name] = value
                    values[f"{name}_low"] = value - 0.05
                    values[f"{name}_high"] = min(1.0, value + 0.05)
            for name, value in (
                ("median_rank", 2.0 if boost == 0 else 1.0),
                ("mean_rank", 4 - 5 * boost),
                ("mean_reciprocal_rank", 0.55 + boost),
                ("ndcg_at_10", 0.6 + boost),
            ):
                values[f"{start}/{name}"] = value
                values[f"{start}/{name}_low"] = value - 0.04
                values[f"{start}/{name}_high"] = value + 0.04
            values[f"{start}/num_queries"] = 2 * num_images
            values[f"{start}/gallery_size"] = num_images
    values["num_seeds"] = len(model_names(chosen, experiment))
    values["dev/mean_recall_at_1"] = 0.42 + boost
    return values


def _write_sounds(root: Path, chosen: Params, name: str) -> None:
    """Six clips of two frames and two captions each, of which every model finds some."""
    rng = np.random.default_rng(0)

    def unit(count: int) -> Any:
        vectors = rng.standard_normal((count, 8)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def split() -> SoundEmbeddings:
        twice = [clip for clip in range(6) for _ in range(2)]
        labels = [["dog"] * (place % 2) for place in range(12)]
        ids = [f"clip{clip}" for clip in range(6)]
        return SoundEmbeddings(ids, unit(6), twice, unit(12), unit(12), labels, twice, unit(12))

    table = chosen.sound_tables[name]
    models = [
        SoundModelVectors(row, f"{experiment}/{model}", {"dev": split(), "test": split()})
        for row, experiment in table.rows.items()
        for model in model_names(chosen, experiment)
    ]
    write_sound_evaluation(score_sound_table(models, table, chosen.evaluate), name, root)


def _write_evaluation(root: Path, chosen: Params, name: str, num_images: int) -> None:
    table = chosen.tables[name]
    metrics = {
        row: _metrics(chosen, experiment, num_images) for row, experiment in table.rows.items()
    }
    rates = {"asr": {"dev/asr/wer": 0.117, "test/asr/wer": 0.124}}
    write_json(root / f"metrics/{name}.json", {**metrics, **rates})
    folder = root / "reports/evaluation" / name
    models = {
        f"{experiment}/{model}": {
            k: v for k, v in metrics[row].items() if not k.endswith(("low", "high"))
        }
        for row, experiment in table.rows.items()
        for model in model_names(chosen, experiment)
    }
    write_json(folder / "models.json", models)
    ranks = {
        name: asdict(made_ranks(round(values["dev/mean_recall_at_1"] * num_images), num_images))
        for name, values in models.items()
    }
    write_json(folder / "dev_ranks.json", ranks)
    write_json(folder / "comparisons.json", _comparisons(chosen, name))
    examples = _examples(chosen, name, num_images)
    write_json(folder / "examples.json", examples)
    write_json(folder / "picture_examples.json", _picture_examples(chosen, name))
    write_made_analysis(root, chosen, name, examples, drawing(0))
    _write_buckets(folder / "buckets.csv", [*table.rows])
    with (folder / "recall.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "split", "direction", "k", "recall"])
        for row, experiment in table.rows.items():
            for k in (1, 2, 3, 5, 10, 20):
                level = min(1.0, (0.42 + _boost(chosen, experiment)) * k**0.25)
                writer.writerow([row, "test", "speech_to_image", k, f"{level:.4f}"])
                writer.writerow([row, "test", "image_to_speech", k, f"{min(1, level + 0.05):.4f}"])


def _write_buckets(path: Path, rows: list[str]) -> None:
    found = [
        (20, ("0.31", "0.25", "0.36")),
        (3, ("", "", "")),
        (17, ("0.52", "0.4", "0.61")),
    ]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        ends = ("recall", "low", "high")
        writer.writerow(["kind", "bucket", "row", "num_queries", "num_images", "k", *ends])
        for kind in ("duration_s", "speaker"):
            for number, (count, values) in enumerate(found):
                for row in rows:
                    writer.writerow([kind, f"{kind} {number}", row, count, 3, 1, *values])


def made_ranks(num_hits: int, num_images: int) -> QueryRanks:
    """Both ways the first images are found at once, and the others not among the first fifty."""
    ranks = {
        f"dev-image-{number}": [1 if number < num_hits else 60] * 2 for number in range(num_images)
    }
    return QueryRanks(ranks, ranks)


def _comparisons(chosen: Params, name: str) -> list[dict[str, Any]]:
    table = chosen.tables[name]
    boost = {row: _boost(chosen, experiment) for row, experiment in table.rows.items()}
    return [
        {
            "row": row,
            "baseline": baseline,
            "metric": f"{split}/{metric}",
            "difference": (gap := boost[row] - boost[baseline]),
            "low": gap - 0.045,
            "high": gap + 0.045,
        }
        for split in ("dev", "test")
        for row, baseline in table.pairs
        for metric in ("speech_to_image/recall_at_1", "image_to_speech/any_hit_recall_at_1")
    ]


# Of the recordings that are shown.
KINDS = ("lot", "lot", "differs", "best", "median", "worst")


def _picture_examples(chosen: Params, name: str) -> dict[str, Any]:
    top = [
        {
            "utterance_id": f"test-{number}",
            "image_id": f"test-image-{number // 2}",
            "transcript": HOSTILE,
            "score": 0.5 - number / 10,
        }
        for number in range(5)
    ]
    entries = [
        {"kind": kind, "image_id": f"test-image-{number}", "rank": 1 + number, "top": top}
        for number, kind in enumerate(("lot", "worst"))
    ]
    return dict.fromkeys(chosen.tables[name].rows, entries)


def _examples(chosen: Params, name: str, num_images: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row, experiment in chosen.tables[name].rows.items():
        texts = random.Random(chosen.tables[name].data)
        entries = []
        for number in range(6):
            caption = HOSTILE if number == 0 else sentence(texts)
            hears = chosen.hears(experiment)
            heard = _misheard(caption, texts) if hears else caption
            rng = random.Random(f"{row}{number}")
            right, rank = number // 2, rng.choice([1, 1, 2, 4, 9])
            others = rng.sample([n for n in range(num_images) if n != right], 5)
            ranking = others[:5]
            if rank <= 5:
                ranking.insert(rank - 1, right)
            entries.append(
                {
                    "kind": KINDS[number],
                    "utterance_id": f"test-{number}",
                    "image_id": f"test-image-{right}",
                    "transcript": heard,
                    "caption": caption,
                    "rank": rank,
                    "top": [
                        {"image_id": f"test-image-{image}", "score": 0.61 - place / 37}
                        for place, image in enumerate(ranking[:5])
                    ],
                }
            )
        found[row] = entries
    return found
