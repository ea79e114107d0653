"""Time of a training step on clips: with frames' vectors that were computed once, and without.

Both train the same encoder of sounds by nearest match, on the same generated clips of 10 s with L
frames, from FLAC to the update, with a random CLIP ViT; how much is gained depends on how many
patches its image tower sees, for sounds are heard in as many whatever it is. The baseline decodes
and embeds the L frames of each clip in every step, by the same frozen tower. Computing the vectors
once is timed apart. Both run in the same process; the best of several rounds counts.

    python benchmarks/clip_step.py [--json] [--frames 4] [--rounds 3] [--patch 16]
"""

import argparse
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import soundfile
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor

from brewline.config.recipes import RecipeParams
from brewline.config.variants import VariantParams
from brewline.core.ranks import ALONE
from brewline.models.backbones import ClipBackbone, make_backbone
from brewline.models.sounds import ClipBatch, SoundModel
from brewline.samples.utterance import Frame, Utterance
from brewline.training.step import Step
from brewline.training.tasks.audio_image import AudioImage

BATCH = 8
SECONDS = 10.0
IMAGE_SIZE = 224
RATE_HZ = 16_000
# A third of the depth and width of a ViT-B, which a processor does in seconds.
VISION = {"image_size": IMAGE_SIZE, "layers": 4, "width": 256}
SOUND = {
    "encoder": "clip",
    "patch": [32, 32],
    "stride": [32, 32],
    "max_duration_s": SECONDS,
    "frequency_mask": 32,
    "time_mask": 200,
    "segments": 4,
    "pairing": {"rule": "nearest", "warm_phase": 0},
}
RECIPE = {
    "seeds": [0],
    "steps": 100,
    "batch_size": BATCH,
    "optimiser": "adam",
    "learning_rate": 1e-4,
    "weight_decay": 1e-6,
    "warmup_steps": 1,
    "schedule": "linear",
    "grad_clip": 4.0,
    "temperature": 0.07,
    "learn_temperature": True,
    "same_image": "mask",
    "loss": "info_nce",
    "precision": "fp32",
    "evaluate_every": 100,
}


def make_small_backbone(patch: int) -> ClipBackbone:
    """A random CLIP with patches of a side in pixels."""
    torch.manual_seed(0)
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    clip = open_clip.CLIP(256, vision_cfg={**VISION, "patch_size": patch}, text_cfg=text)
    preprocess = image_transform_v2(PreprocessCfg(size=IMAGE_SIZE), is_train=False)
    return make_backbone(clip, open_clip.SimpleTokenizer(), preprocess)


def make_clip(number: int, num_frames: int) -> Utterance:
    """Noise, and pictures of noise that is smooth enough to be a JPEG."""
    rng = np.random.default_rng(number)
    sound = io.BytesIO()
    samples = rng.normal(0, 0.1, round(SECONDS * RATE_HZ))
    soundfile.write(sound, samples, RATE_HZ, format="FLAC")
    frames = []
    for place in range(num_frames):
        small = rng.integers(0, 255, (16, 20, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(small).resize((360, 288)).save(buffer, "JPEG")
        frames.append(Frame((place + 0.5) * SECONDS / num_frames, buffer.getvalue()))
    return Utterance(
        f"c{number}", None, None, "", None, 0, sound=sound.getvalue(), frames=tuple(frames)
    )


class EmbeddingEachStep(AudioImage):
    """The baseline: frames are decoded with each batch, and embedded in each step."""

    def begin(self, model: Any, read_train: Any) -> None:
        """Nothing is computed beforehand."""

    def collate(self, utterances: Any) -> Any:
        """Inputs as ours, and pictures in place of vectors."""
        sounds = self._collator.sounds(utterances)
        numbers = torch.arange(len(utterances))
        return ClipBatch(sounds, numbers), self._collator.pictures(utterances)

    def forward(self, model: Any, batch: Any) -> dict[str, Tensor]:
        """As ours, once frames are embedded."""
        clips, pictures = batch
        shape = (len(clips.clip_ids), -1, model.embedding_size)
        vectors = model.encode_pictures(pictures).view(shape)
        return super().forward(model, ClipBatch(clips.sounds, clips.clip_ids, frames=vectors))


def seconds_of_a_step(task: AudioImage, model: SoundModel, clips: list[Utterance]) -> float:
    """From clips to gradients and an update."""
    step = Step(task, model, torch.float32, torch.amp.GradScaler("cpu", enabled=False), ALONE)
    optimiser = torch.optim.Adam(model.trained_parameters().values(), lr=1e-4, fused=True)
    start = time.perf_counter()
    model.train()
    step([task.collate(clips)], 0, 1)
    optimiser.step()
    return time.perf_counter() - start


def measure(num_frames: int, rounds: int, patch: int) -> dict[str, float]:
    """The best of several rounds of each, in turns."""
    torch.set_num_threads(1)
    backbone = make_small_backbone(patch)
    switches = VariantParams.model_validate({"prompts": 0, "sound": SOUND})
    recipe = RecipeParams.model_validate(RECIPE)
    clips = [make_clip(number, num_frames) for number in range(BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        ours = AudioImage(switches, recipe, backbone, Path(folder) / "frames/x", 512)
        theirs = EmbeddingEachStep(switches, recipe, backbone, Path(folder) / "none", 512)
        model = ours.make_model(clips[0])
        start = time.perf_counter()
        ours.begin(model, lambda: clips)
        once = time.perf_counter() - start
        # Spectrograms are kept from the first step on, by both.
        times: dict[str, list[float]] = {"ours": [], "theirs": []}
        for number in range(rounds + 1):
            for name, task in (("ours", ours), ("theirs", theirs)):
                found = seconds_of_a_step(task, model, clips)
                times[name] += [found] * bool(number)
    best = {name: min(found) for name, found in times.items()}
    return {
        "cached_s": best["ours"],
        "embedding_each_step_s": best["theirs"],
        "ratio": best["theirs"] / best["ours"],
        "computing_once_s": once,
    }


def main() -> None:
    """Prints the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patch", type=int, default=16, help="of the image tower, as in B/16")
    options = parser.parse_args()
    found = measure(options.frames, options.rounds, options.patch)
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"{BATCH} clips of {SECONDS:g} s, {options.frames} frames each: "
        f"{found['cached_s']:.2f} s a step with vectors that were computed once "
        f"(in {found['computing_once_s']:.2f} s), {found['embedding_each_step_s']:.2f} s with "
        f"frames embedded in each: {found['ratio']:.1f} times"
    )


if __name__ == "__main__":
    main()
