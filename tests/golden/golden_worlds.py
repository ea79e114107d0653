"""A small world for each expensive stage: its inputs, the run of its program, what came out.

Nothing that differs from machine to machine is in them: weights and pictures are drawn by NumPy
(PyTorch's normal numbers depend on the processor's vector units), recordings are lossless, models
run in fp32 on one thread, and every parameter that a stage reads is written out here.
"""

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from references import Outputs
from safetensors.numpy import load_file, save_file
from tiny_project import PROJECT, run_stage
from world import encode_audio, make_clip, make_whisper, write_tar

from brewline.config import load_params
from brewline.config.asr import AsrParams
from brewline.core.files import read_json, sha256_tree, write_json
from brewline.evaluation.vectors import load_vectors
from brewline.media.audio import decode, to_mono_16k
from brewline.models.backbones import load_clip
from brewline.models.brewclip import BrewClip
from brewline.models.card import load_backbone_hashes, new_card, save_card
from brewline.samples.shards import encode_states, shard_name, write_index, write_shard
from brewline.speech.batch_plan import cut_into_shards
from brewline.speech.recogniser import Recogniser
from brewline.tables.facts import PICTURES, RECORDINGS
from brewline.tables.features import load_features
from brewline.tables.manifest import MANIFEST
from brewline.tables.parquet import read_table, write_table
from brewline.tables.transcripts import TRANSCRIPTS

CORPUS = "golden"
EMOTION = "emotion"
ENCODED = "golden-layers"
RATE_HZ = 16_000
STATE_WIDTH = 12
# Of states and of large tensors, the reference has every so many frames and numbers.
FRAME_STRIDE = 25
TENSOR_STRIDE = 17
LARGE = 500
COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "black": (9, 9, 9)}
COLOURS |= {"white": (250, 250, 250), "yellow": (240, 240, 10), "brown": (120, 60, 10)}

ASR = {
    "engine": "openai-whisper",
    "language": "en",
    "audio_context": "utterance",
    "states": "valid",
    "batch_size": 3,
    "precision": "fp32",
    "beam_size": 1,
    "max_tokens": 12,
    "temperatures": [0.0],
    "logprob_threshold": -2.0,
    "max_compression_ratio": 2.4,
    "no_speech_threshold": 0.6,
    "max_repeats": 3,
    "vad": "none",
    "word_times": False,
    "on_failure": "keep",
}
BEAMS = {"beam_size": 3, "audio_context": "full", "states": "all"}
SAMPLED = {"temperatures": [0.0, 0.5]}
# Without dropout, whose draws differ between builds of PyTorch.
ACOUSTIC = {"layers": 2, "heads": 4, "feedforward_width": 32, "dropout": 0.0, "pool_frames": 2}
ACOUSTIC |= {"padding_mask": "valid"}
VARIANTS: dict[str, dict[str, Any]] = {
    "prompted": {"text": "asr", "prompts": 2},
    "e2e": {"acoustic": ACOUSTIC, "prompts": 2},
    "full": {"text": "asr", "acoustic": ACOUSTIC, "prompts": 2, "alpha": 0.1},
}
RECIPE = {
    "seeds": [3],
    "steps": 6,
    "batch_size": 8,
    "optimiser": "adam",
    "learning_rate": 3.0e-3,
    "weight_decay": 1.0e-6,
    "warmup_steps": 2,
    "schedule": "linear",
    "grad_clip": 4.0,
    "temperature": 0.07,
    "learn_temperature": True,
    "same_image": "mask",
    "loss": "info_nce",
    "precision": "fp32",
    "evaluate_every": 3,
}
RUNTIME = {
    "device": "cpu",
    "transcribe_workers": 1,
    "train_workers": 1,
    "max_transcription_failure_rate": 1.0,
}


def make_project(folder: Path, shard_size: int) -> None:
    """Writes the parameters and the versions into a folder."""
    values: dict[str, Any] = yaml.safe_load((PROJECT / "params.yaml").read_text())
    values["corpora"] = [CORPUS]
    values["sources"] = {
        CORPUS: {"reader": "folder", "index": "index.csv", "licence": "ours", "files": {}}
    }
    values["asr"] = ASR
    values["shard"] = {
        "utterances_per_shard": shard_size,
        "image_short_side_px": 24,
        "frames_per_clip": 2,
        "jpeg_quality": 92,
    }
    values["variants"], values["recipes"] = VARIANTS, {"none": None, "golden": RECIPE}
    values["experiments"] = {
        name: {
            "task": "retrieval",
            "data": CORPUS,
            "states": CORPUS if "acoustic" in variant else "none",
            "variant": name,
            "recipe": "golden",
            "init": "none",
        }
        for name, variant in VARIANTS.items()
    }
    # Its models are those of `full`.
    values["experiments"][EMOTION] = {
        **values["experiments"]["full"],
        **{"task": "emotion", "recipe": "none", "init": "full"},
    }
    values |= {"tables": {}, "sound_tables": {}, "probes": {}}
    values |= {"probed_corpora": [CORPUS], "augmented_corpora": [CORPUS]}
    encoded = {"data": CORPUS, "encoder": "whisper_layers", "pool_frames": 2}
    values["encoded"] = {ENCODED: encoded}
    values["runtime"] |= RUNTIME
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (folder / "versions.yaml").write_text((PROJECT / "versions.yaml").read_text())


@contextmanager
def one_thread_and_no_tracking(stage: str) -> Iterator[None]:
    """Tracking only watches; it would take longer than the stage itself."""
    module = f"brewline.stages.{stage}"
    __import__(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with patch(f"{module}.live", create=True), patch(f"{module}.record", create=True):
            yield
    finally:
        torch.set_num_threads(threads)


def drawn(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Normal numbers that depend on a name alone."""
    return np.random.default_rng(zlib.crc32(f"golden {name}".encode())).standard_normal(
        shape, np.float32
    )


def weights(name: str, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Weights of a model that is moved by all that it reads."""
    values = drawn(name, shape)
    if len(shape) < 2:
        values = 0.1 * values + ("weight" in name.rpartition(".")[2])
    elif "embedding" not in name:
        values *= 1.5 / np.sqrt(np.prod(shape[1:]))
    return np.asarray(values, np.float16)


# --- inspect


def inspect(folder: Path) -> Outputs:
    """Recordings in several forms, damaged ones, and pictures."""
    make_project(folder, shard_size=2)
    raw = folder / "data/raw" / CORPUS
    raw.mkdir(parents=True)
    files = {f"{name}.wav": content for name, (_, content, _) in recordings().items()}
    one = sound(5, 0.8)
    files["float.wav"] = encode_audio(one, "WAV", "FLOAT")
    files["cancelled.wav"] = encode_audio(np.stack([one, -one], axis=1), "WAV", "PCM_16")
    files["half.wav"] = files["two-s.wav"][: len(files["two-s.wav"]) // 2]
    images = {f"{mode}.png": encoded(picture(0, mode, (96, 72)), "PNG") for mode in ("RGB", "RGBA")}
    images["half.png"] = images["RGB.png"][:200]
    write_tar(raw / "media.tar", files | images)
    lines = ["id,audio,image,split"]
    names = sorted(images)
    for number, name in enumerate(files):
        split = ("train", "dev", "test")[number % 3]
        lines.append(f"u{number},{name},{names[number % len(names)]},{split}")
    (raw / "index.csv").write_text("\n".join(lines) + "\n")
    run_stage(folder, "inspect", CORPUS)
    exact: dict[str, Any] = {}
    numbers: dict[str, NDArray[Any]] = {}
    # There are no videos.
    for kind, schema in (("recordings", RECORDINGS), ("pictures", PICTURES)):
        rows = read_table(folder / f"data/facts/{CORPUS}/{kind}.parquet")
        measured = [field.name for field in schema if str(field.type) == "double"]
        for name in measured:
            cells = [np.nan if row[name] is None else row[name] for row in rows]
            numbers[f"facts/{name}"] = np.array(cells)
        for row in rows:
            # Encoders differ in their bytes, and floats in the last digits of their sums.
            right = hashlib.sha256((files | images)[row["path"]]).hexdigest()
            row["sha256"] = row["sha256"] and row["sha256"] == right
            row["content"] = row["content"] and len(row["content"])
        exact[kind] = [{k: v for k, v in row.items() if k not in measured} for row in rows]
    return Outputs(exact, numbers)


# --- transcribe


def manifest_row(utterance_id: str, split: str, **facts: Any) -> dict[str, Any]:
    row = dict.fromkeys(MANIFEST.names) | {
        "utterance_id": utterance_id,
        "corpus": CORPUS,
        "split": split,
        "audio_path": f"{utterance_id}.wav",
        "speaker_id": "s1",
        "duration_s": 1.0,
        "sample_rate_hz": RATE_HZ,
        "num_channels": 1,
        "audio_sha256": hashlib.sha256(utterance_id.encode()).hexdigest(),
    }
    return row | facts


def sound(number: int, duration_s: float, rate: int = RATE_HZ) -> NDArray[np.float32]:
    """A gliding tone in noise that fades in and out."""
    time_s = np.arange(round(duration_s * rate)) / rate
    tone = np.sin(2 * np.pi * (150 + 40 * number + 60 * time_s) * time_s)
    noise = drawn(f"noise {number}", time_s.shape)
    envelope = 0.2 + 0.8 * np.sin(np.pi * time_s / duration_s) ** 2
    return (0.3 * envelope * (tone + 0.2 * noise)).clip(-1, 1).astype(np.float32)


def recordings() -> dict[str, tuple[str, bytes, dict[str, Any]]]:
    """By id: split, file, and what else the manifest says."""
    stereo = np.stack([sound(5, 0.8, 44_100), sound(6, 0.8, 44_100)], axis=1)
    long = sound(7, 33.0)
    # Where it is cut has to be beyond doubt.
    long[28 * RATE_HZ : 28 * RATE_HZ + 3200] = 0
    return {
        "tone": ("train", encode_audio(sound(1, 0.6), "WAV", "PCM_16"), {"duration_s": 0.6}),
        "two-s": ("train", encode_audio(sound(2, 2.0), "WAV", "PCM_16"), {"duration_s": 2.0}),
        "known": (
            "train",
            encode_audio(sound(3, 1.1), "FLAC", "PCM_16"),
            {"duration_s": 1.1, "transcript": "a text that was there before"},
        ),
        "no-sound": ("train", b"RIFF", {}),
        "two-windows": ("dev", encode_audio(long, "FLAC", "PCM_16"), {"duration_s": 33.0}),
        "one-s": ("test", encode_audio(sound(4, 1.0), "WAV", "PCM_16"), {}),
        "stereo": (
            "test",
            encode_audio(stereo, "FLAC", "PCM_16", 44_100),
            {"duration_s": 0.8, "sample_rate_hz": 44_100, "num_channels": 2},
        ),
    }


def write_recordings(folder: Path, without: str | None = None) -> list[dict[str, Any]]:
    """Writes the recordings, all but one of them if wanted, and the manifest; gives its rows."""
    rows = []
    for utterance_id, (split, content, facts) in recordings().items():
        if utterance_id == without:
            continue
        rows.append(manifest_row(utterance_id, split, **facts))
        path = folder / "data/raw" / CORPUS / f"{utterance_id}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    write_table(folder / f"data/manifest/{CORPUS}.parquet", MANIFEST, rows)
    return rows


def make_golden_whisper(path: Path) -> None:
    """The tiny world's Whisper, with other numbers in it."""
    make_whisper(path)
    checkpoint = torch.load(path, weights_only=True)
    tensors = checkpoint["model_state_dict"]
    for name, tensor in tensors.items():
        # Those of the encoder are sinusoids.
        if name != "encoder.positional_embedding":
            tensors[name] = torch.from_numpy(weights(name, tuple(tensor.shape)))
    # They are its output too: with larger ones it would say one token for ever.
    tensors["decoder.token_embedding.weight"] *= 0.25
    torch.save(checkpoint, path)
    for name in ("backbones.json", "encoders.json"):
        write_json(path.with_name(name), {"whisper": {"name": "golden", "sha256": "0" * 64}})


def transcribe(folder: Path) -> Outputs:
    """The stage's table and states; beside it, what else the recogniser can be asked for."""
    make_project(folder, shard_size=2)
    write_recordings(folder)
    checkpoint = folder / "models/backbones/whisper.pt"
    make_golden_whisper(checkpoint)
    exact: dict[str, Any] = {}
    numbers: dict[str, NDArray[Any]] = {}
    with one_thread_and_no_tracking("transcribe"):
        run_stage(folder, "transcribe", CORPUS)
        rows = read_table(folder / f"data/transcripts/{CORPUS}.parquet")
        _take_rows("stage", rows, exact, numbers)
        states = folder / "data/states" / CORPUS
        exact["index"] = index_of(states)
        for entry in exact["index"]:
            for name, content in members(states / entry["file"]):
                frames = np.load(io.BytesIO(content), allow_pickle=False)
                _take_states(f"stage/{entry['file']}/{name}", frames, exact, numbers)
        for name, changes in {"beams": BEAMS, "sampled": SAMPLED}.items():
            _take_recognitions(name, checkpoint, AsrParams(**ASR | changes), exact, numbers)
    return Outputs(exact, numbers)


def _take_recognitions(
    run: str,
    checkpoint: Path,
    settings: AsrParams,
    exact: dict[str, Any],
    numbers: dict[str, NDArray[Any]],
) -> None:
    waveforms = {
        name: to_mono_16k(decode(content))
        for name, (_, content, _) in recordings().items()
        # Draws are seeded by the waveform, and that of a resampled one differs in its last bits.
        if name != "no-sound" and not (run == "sampled" and name == "stereo")
    }
    found = Recogniser(checkpoint, settings, "cpu").recognise(list(waveforms.values()))
    rows = [vars(one) | {"utterance_id": key} for key, one in zip(waveforms, found, strict=True)]
    for row in rows:
        _take_states(f"{run}/{row['utterance_id']}", row.pop("states"), exact, numbers)
    _take_rows(run, rows, exact, numbers)


def _take_rows(
    run: str, rows: list[dict[str, Any]], exact: dict[str, Any], numbers: dict[str, NDArray[Any]]
) -> None:
    measured = ("avg_logprob", "no_speech_prob", "compression_ratio")
    for key in measured:
        column = [np.nan if row[key] is None else row[key] for row in rows]
        numbers[f"table/{key}/{run}"] = np.array(column)
    exact[f"table/{run}"] = [{k: v for k, v in row.items() if k not in measured} for row in rows]


def _take_states(
    name: str, frames: NDArray[Any], exact: dict[str, Any], numbers: dict[str, NDArray[Any]]
) -> None:
    exact[f"states/{name}"] = [str(frames.dtype), *frames.shape]
    numbers[f"states/{name}"] = frames[::FRAME_STRIDE]


def index_of(folder: Path) -> list[dict[str, Any]]:
    """The index of a folder of shards; hashes, which no other machine may have, only checked."""
    entries: list[dict[str, Any]] = read_json(folder / "index.json")
    for entry in entries:
        content = (folder / entry["file"]).read_bytes()
        entry["sha256"] = hashlib.sha256(content).hexdigest() == entry["sha256"]
    return entries


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a tar, in their order."""
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file and member.mtime == 0
            yield member.name, file.read()


# --- shard


def picture(number: int, mode: str, size: tuple[int, int]) -> Image.Image:
    """A slope of colours with a pattern in it."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 // width, y * 255 // height, (x // 4 + y // 3 + number) % 2 * 200]
    planes += [np.full_like(x, 128)] * (mode == "RGBA")
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8), mode)


def encoded(image: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


def shard(folder: Path) -> Outputs:
    """Pictures that are made smaller, kept, converted or missing, and one that is dropped."""
    make_project(folder, shard_size=2)
    pictures = {
        "large": encoded(picture(0, "RGB", (96, 72)), "PNG"),
        "small": encoded(picture(1, "RGB", (30, 24)), "JPEG"),
        "clear": encoded(picture(2, "RGBA", (20, 26)), "PNG"),
        "high": encoded(picture(3, "RGB", (50, 90)), "JPEG"),
    }
    write_tar(
        folder / "data/raw" / CORPUS / "pictures.tar",
        {f"{name}.img": content for name, content in pictures.items()},
    )
    splits = {"u1": "train", "u2": "train", "u3": "train", "u4": "dev", "u5": "test", "u6": "test"}
    images = {"u1": "large", "u2": "small", "u3": "clear", "u4": "high", "u5": None, "u6": "large"}
    manifest, transcripts = [], []
    for number, (key, split) in enumerate(splits.items()):
        image = images[key]
        facts = {"image_id": image, "image_path": image and f"{image}.img"}
        facts |= {"caption": f"Caption {number}, “quoted”." if number != 2 else None}
        facts |= {"emotion": "calm", "intensity": "strong"} if key == "u5" else {}
        manifest.append(manifest_row(key, split, **facts))
        transcripts.append(
            {
                "utterance_id": key,
                "split": split,
                "text": "" if key == "u2" else f"text {number}",
                "avg_logprob": None if key == "u3" else -0.25 * number,
                "no_speech_prob": None if key == "u3" else 0.125,
                "compression_ratio": None if key == "u3" else 0.5,
                "temperature": None if key == "u3" else 0.0,
                "num_windows": 1,
                "num_frames": 50,
                "status": {"u2": "failed", "u6": "dropped"}.get(key, "ok"),
                "reason": {"u2": "error", "u6": "crash"}.get(key),
                "asr_model": "imported" if key == "u3" else "golden",
            }
        )
    write_table(folder / f"data/manifest/{CORPUS}.parquet", MANIFEST, manifest)
    write_table(folder / f"data/transcripts/{CORPUS}.parquet", TRANSCRIPTS, transcripts)
    with one_thread_and_no_tracking("shard"):
        run_stage(folder, "shard", CORPUS)
    shards = folder / "data/shards" / CORPUS
    exact: dict[str, Any] = {"index": index_of(shards)}
    numbers: dict[str, NDArray[Any]] = {}
    for entry in exact["index"]:
        exact[entry["file"]] = {}
        for name, content in members(shards / entry["file"]):
            if name.endswith(".json"):
                exact[entry["file"]][name] = content.decode()
                continue
            with Image.open(io.BytesIO(content)) as image:
                facts = [image.format, image.mode, *image.size, content in pictures.values()]
                exact[entry["file"]][name] = facts
                numbers[f"pixels/{name}"] = np.array(image)
    return Outputs(exact, numbers)


# --- layers, encode, augment


def make_heard(folder: Path) -> list[dict[str, Any]]:
    """Recordings in several forms, one of them of two windows, and what hears them."""
    make_project(folder, shard_size=2)
    rows = write_recordings(folder, without="no-sound")
    make_golden_whisper(folder / "models/backbones/whisper.pt")
    return rows


def layers(folder: Path) -> Outputs:
    """What each layer makes of recordings."""
    make_heard(folder)
    with one_thread_and_no_tracking("layers"):
        run_stage(folder, "layers", CORPUS)
    features = load_features(folder / f"data/layers/{CORPUS}.safetensors")
    shapes = {name: list(array.shape) for name, array in features.arrays.items()}
    exact = {"ids": list(features.utterance_ids), "shapes": shapes}
    return Outputs(exact, {f"layers/{name}": one for name, one in features.arrays.items()})


def encode(folder: Path) -> Outputs:
    """All frames of each layer, but for a recording that transcription has dropped."""
    rows = make_heard(folder)
    nothing = dict.fromkeys(TRANSCRIPTS.names)
    facts = {"text": "", "num_windows": 1, "num_frames": 1, "asr_model": "golden"}
    statuses = ["dropped" if number == 1 else "ok" for number in range(len(rows))]
    transcripts = [
        {**nothing, **facts, "utterance_id": row["utterance_id"], "split": row["split"]}
        | {"status": status}
        for row, status in zip(rows, statuses, strict=True)
    ]
    write_table(folder / f"data/transcripts/{CORPUS}.parquet", TRANSCRIPTS, transcripts)
    with one_thread_and_no_tracking("encode"):
        run_stage(folder, "encode", ENCODED)
    states = folder / "data/states" / ENCODED
    exact: dict[str, Any] = {"index": index_of(states)}
    numbers: dict[str, NDArray[Any]] = {}
    for entry in exact["index"]:
        for name, content in members(states / entry["file"]):
            frames = np.load(io.BytesIO(content), allow_pickle=False)
            _take_states(f"{entry['file']}/{name}", frames, exact, numbers)
    return Outputs(exact, numbers)


def augment(folder: Path) -> Outputs:
    """The states of recordings in several forms, as they are and changed."""
    rows = make_heard(folder)
    plain, counts = folder / "data/states" / CORPUS, {}
    plain.mkdir(parents=True)
    for shard in cut_into_shards(folder / f"data/manifest/{CORPUS}.parquet", 2):
        own = [row["utterance_id"] for row in rows[shard.start : shard.stop]]
        samples = [{"__key__": one, "npy": encode_states(np.ones((2, 3), "f2"))} for one in own]
        counts[shard.name] = write_shard(plain / shard.name, samples)
    write_index(plain, counts)
    with one_thread_and_no_tracking("augment"):
        run_stage(folder, "augment", CORPUS)
    found = folder / f"data/states/{CORPUS}-augmented"
    exact: dict[str, Any] = {"index": index_of(found)}
    numbers: dict[str, NDArray[Any]] = {}
    for entry in exact["index"]:
        for name, content in members(found / entry["file"]):
            frames = np.load(io.BytesIO(content), allow_pickle=False)
            _take_states(name, frames, exact, numbers)
    return Outputs(exact, numbers)


# --- train


def make_golden_clip(folder: Path) -> None:
    """The tiny world's CLIP, with other numbers in it."""
    make_clip(folder / "clip")
    path = folder / "clip/open_clip_model.safetensors"
    tensors = {name: weights(name, tensor.shape) for name, tensor in load_file(path).items()}
    # Words have to matter more than their places.
    for name in ("positional_embedding", "visual.positional_embedding"):
        tensors[name] *= np.float16(0.1)
    save_file(tensors, path)
    names = {"clip": {"name": "golden", "sha256": sha256_tree(folder / "clip")}}
    names["whisper"] = {"name": "golden", "sha256": "0" * 64}
    write_json(folder / "backbones.json", names)


def make_samples(folder: Path) -> None:
    """Shards and states in which colour decides words, sound and pixels."""
    counts: dict[str, int] = {}
    for split, num_shards in {"train": 2, "dev": 1, "test": 1}.items():
        for number in range(num_shards):
            name = shard_name(split, number)
            samples, states = [], []
            for place, (colour, rgb) in enumerate(COLOURS.items()):
                key = f"{split}-{number}-{colour}"
                noise = 6 * drawn(key, (40, 48, 3))
                pixels = (np.array(rgb) + noise).clip(0, 255).astype(np.uint8)
                facts = {
                    "image_id": f"{split}-{colour}",
                    "transcript": f" A {colour} thing, take {number}.",
                    "caption": f"something {colour}",
                    "num_frames": 4 + place,
                    "avg_logprob": -0.1 * place,
                }
                samples.append(
                    {
                        "__key__": key,
                        # Without loss, whatever its field is called.
                        "jpg": encoded(Image.fromarray(pixels), "PNG"),
                        "json": json.dumps(facts).encode(),
                    }
                )
                frames = 0.3 * drawn(f"states {key}", (4 + place, STATE_WIDTH))
                frames[:, place] += 2
                states.append({"__key__": key, "npy": encode_states(frames.astype(np.float16))})
            for kind, rows in (("shards", samples), ("states", states)):
                (folder / "data" / kind / CORPUS).mkdir(parents=True, exist_ok=True)
                counts[name] = write_shard(folder / "data" / kind / CORPUS / name, rows)
    for kind in ("shards", "states"):
        write_index(folder / "data" / kind / CORPUS, counts)


def train(folder: Path) -> Outputs:
    """A few steps of a variant of each kind."""
    make_project(folder, shard_size=8)
    make_golden_clip(folder / "models/backbones")
    make_samples(folder)
    exact: dict[str, Any] = {}
    numbers: dict[str, NDArray[Any]] = {}
    for variant in VARIANTS:
        with one_thread_and_no_tracking("train"):
            run_stage(folder, "train", variant)
            _take_model(folder, variant, exact, numbers)
    return Outputs(exact, numbers)


def _take_model(
    folder: Path, variant: str, exact: dict[str, Any], numbers: dict[str, NDArray[Any]]
) -> None:
    (made,) = (folder / "models" / variant).iterdir()
    facts = read_json(made / "model.json")
    # Hashes that no other machine may have.
    facts["data"], facts["backbones"] = sorted(facts["data"]), sorted(facts["backbones"])
    exact[variant] = {"folder": made.name, "card": facts, "tensors": {}}
    rows = [json.loads(line) for line in (made / "history.jsonl").read_text().splitlines()]
    exact[variant]["rows"] = [sorted(row) for row in rows]
    for key in sorted({key for row in rows for key in row}):
        numbers[f"history/{variant}/{key}"] = np.array([row.get(key, np.nan) for row in rows])
    for name, tensor in load_file(made / "model.safetensors").items():
        if name.endswith("self_attn.in_proj_bias"):
            # Softmax does not see the keys' bias: its gradient is rounding, which Adam scales up.
            queries, _, values = np.split(tensor, 3)
            tensor = np.concatenate([queries, values])
        exact[variant]["tensors"][name] = list(tensor.shape)
        stride = TENSOR_STRIDE if tensor.size > LARGE else 1
        numbers[f"tensors/{variant}/{name}"] = tensor.ravel()[::stride]


# --- embed


def embed(folder: Path) -> Outputs:
    """What models of each kind, whose weights are drawn, make of dev and test."""
    make_project(folder, shard_size=8)
    make_golden_clip(folder / "models/backbones")
    make_samples(folder)
    params = load_params(folder / "params.yaml")
    hashes = load_backbone_hashes(folder / "models/backbones/backbones.json")
    backbone = load_clip(folder / "models/backbones/clip")
    exact: dict[str, Any] = {}
    numbers: dict[str, NDArray[Any]] = {}
    for experiment in (*VARIANTS, EMOTION):
        made_as = "full" if experiment == EMOTION else experiment
        card = new_card(params, made_as, hashes).model_copy(update={"seed": 3})
        model = BrewClip(backbone, card.switches, (STATE_WIDTH,), learn_temperature=True)
        shapes = {name: tuple(p.shape) for name, p in model.trained_parameters().items()}
        drawn_tensors = {n: np.asarray(0.2 * drawn(n, shape)) for n, shape in shapes.items()}
        made = folder / "models" / experiment / "seed-3"
        save_card(made, card)
        save_file(drawn_tensors, made / "model.safetensors")
        with one_thread_and_no_tracking("embed"):
            run_stage(folder, "embed", experiment)
        path = folder / "data/embeddings" / CORPUS / experiment / "seed-3.safetensors"
        if experiment == EMOTION:
            features = load_features(path)
            exact[experiment] = [list(features.utterance_ids), sorted(features.arrays)]
            numbers |= {
                f"embeddings/{experiment}/{kind}": vectors[:: len(COLOURS)]
                for kind, vectors in features.arrays.items()
            }
            continue
        for split, found in load_vectors(path, with_channels=True).items():
            name = f"{experiment}/{split}"
            exact[name] = [found.utterance_ids, found.utterance_image_ids, found.image_ids]
            numbers[f"embeddings/{name}/utterances"] = found.utterance_embeddings
            numbers[f"embeddings/{name}/images"] = found.image_embeddings
            numbers |= {
                f"embeddings/{name}/{channel}": vectors
                for channel, vectors in found.channels.items()
            }
    return Outputs(exact, numbers)


STAGES: Mapping[str, Callable[[Path], Outputs]] = {
    "inspect": inspect,
    "transcribe": transcribe,
    "shard": shard,
    "layers": layers,
    "augment": augment,
    "encode": encode,
    "train": train,
    "embed": embed,
}
