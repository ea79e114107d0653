"""A made-up project that can be searched and served: tiny random backbones, shards and models."""

import json
import shutil
from pathlib import Path

import numpy as np
import report_world
import world
import yaml

from brewline.config import Params, load_params
from brewline.core.files import read_json, sha256_tree, write_json
from brewline.models.names import model_folder
from brewline.tables.manifest import MANIFEST
from brewline.tables.parquet import read_table, write_table
from brewline.tables.transcripts import OK, TRANSCRIPTS

CORPUS = "mini-lncoco"
NUM_IMAGES = 6
STATE_WIDTH = 32
FULL, PROMPTED, ZERO_SHOT = (f"{CORPUS}-{name}" for name in ("full", "prompted", "zero-shot"))
# The experiments whose first model has weights, and what it reached on dev, says its card.
MODELS = {FULL: 0.6, PROMPTED: 0.5}


def make_world(root: Path, small: bool = False) -> Params:
    """Writes the project.

    Args:
        root: An empty folder.
        small: One table of three experiments, and no second seed.
    """
    values = yaml.safe_load((report_world.PROJECT / "params.yaml").read_text(encoding="utf-8"))
    values["asr"]["max_tokens"] = 8
    values["validate"] = world.tone_limits()
    if small:
        experiments = {name: values["experiments"][name] for name in (ZERO_SHOT, PROMPTED, FULL)}
        rows = {name.removeprefix(f"{CORPUS}-"): name for name in experiments}
        values["experiments"] = experiments
        values["tables"] = {CORPUS: {"data": CORPUS, "rows": rows, "baseline": "zero-shot"}}
        values |= {"probes": {}, "probed_corpora": [], "sound_tables": {}}
        values["recipes"]["mini"]["seeds"] = [0]
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    shutil.copy(report_world.PROJECT / "versions.yaml", root)
    params = load_params(root / "params.yaml")
    report_world.make_world(root, params, NUM_IMAGES)
    _caption(root / f"data/manifest/{CORPUS}.parquet")
    _transcribe(root)
    _make_backbones(root / "models/backbones")
    for split in ("dev", "test"):
        _make_shard(root, split)
    _index_shards(root)
    _make_models(root, params)
    for split in ("dev", "test"):
        for number in range(2 * NUM_IMAGES):
            for name, content in (("images/{}.jpg", report_world.drawing),
                                  ("audio/{}.ogg", report_world.tone)):  # fmt: skip
                path = root / "data/raw" / CORPUS / name.format(f"{split}-{number}")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content(number))
    return params


def _caption(manifest: Path) -> None:
    """Gives each utterance the caption that it has in the shards."""
    rows = read_table(manifest)
    for row in rows:
        row["caption"] = caption_of(row["utterance_id"].rpartition("-")[2])
    write_table(manifest, MANIFEST, rows)


def _transcribe(root: Path) -> None:
    """Gives each utterance the transcript that it has in the shards."""
    rows = [
        dict.fromkeys(TRANSCRIPTS.names)
        | {
            "utterance_id": row["utterance_id"],
            "split": row["split"],
            "text": transcript_of(row["utterance_id"].rpartition("-")[2]),
            "language": "en",
            "num_windows": 1,
            "num_frames": 20,
            "status": OK,
            "asr_model": "made up",
        }
        for row in read_table(root / f"data/manifest/{CORPUS}.parquet")
    ]
    write_table(root / f"data/transcripts/{CORPUS}.parquet", TRANSCRIPTS, rows)


def transcript_of(number: int | str) -> str:
    """The transcript of an utterance."""
    return f"a thing number {number}"


def caption_of(number: int | str) -> str:
    """The caption of an utterance."""
    return f"A <thing> number {number}."


def _make_backbones(folder: Path) -> None:
    world.make_whisper(folder / "whisper.pt")
    world.make_clip(folder / "clip")
    names = read_json(folder / "backbones.json")
    for role, file in (("whisper", "whisper.pt"), ("clip", "clip")):
        names[role]["sha256"] = sha256_tree(folder / file)
    write_json(folder / "backbones.json", names)


def _make_shard(root: Path, split: str) -> None:
    """One shard, two utterances for each image, with states."""
    from brewline.samples.shards import encode_states, shard_name, write_shard

    rng = np.random.default_rng(0)
    samples, states = [], []
    for number in range(2 * NUM_IMAGES):
        facts = {
            "image_id": f"{split}-image-{number // 2}",
            "transcript": transcript_of(number),
            "caption": caption_of(number),
            "num_frames": 20,
            "avg_logprob": -0.5,
        }
        key = f"{split}-{number}"
        image = report_world.drawing(number // 2)
        samples.append({"__key__": key, "jpg": image, "json": json.dumps(facts).encode()})
        frames = rng.standard_normal((20, STATE_WIDTH)).astype(np.float16)
        states.append({"__key__": key, "npy": encode_states(frames)})
    for kind, rows in (("shards", samples), ("states", states)):
        folder = root / "data" / kind / CORPUS
        folder.mkdir(parents=True, exist_ok=True)
        write_shard(folder / shard_name(split, 0), rows)


def _index_shards(root: Path) -> None:
    from brewline.samples.shards import shard_name, write_index

    counts = {shard_name(split, 0): 2 * NUM_IMAGES for split in ("dev", "test")}
    for kind in ("shards", "states"):
        write_index(root / "data" / kind / CORPUS, counts)


def _make_models(root: Path, params: Params) -> None:
    """A full model and one without an acoustic channel, as they were before training."""
    import torch
    from safetensors.torch import save_file

    from brewline.models.backbones import load_clip
    from brewline.models.brewclip import BrewClip
    from brewline.models.card import load_backbone_hashes

    backbone = load_clip(root / "models/backbones/clip")
    hashes = load_backbone_hashes(root / "models/backbones/backbones.json")
    for experiment, score in MODELS.items():
        facts = report_world.model_facts(params, experiment, 0)
        torch.manual_seed(0)
        learn = facts["recipe"]["learn_temperature"]
        switches = params.variant_of(experiment)
        model = BrewClip(backbone, switches, (STATE_WIDTH,), learn_temperature=learn)
        folder = model_folder(experiment, "seed-0", root)
        results = {"dev": {"dev/mean_recall_at_1": score}, "backbones": hashes}
        write_json(folder / "model.json", facts | results)
        save_file(model.trained_tensors(), folder / "model.safetensors")
    # Only the corpus that has shards here.
    for name, one in params.experiments.items():
        if one.data != CORPUS:
            shutil.rmtree(root / "models" / name)
