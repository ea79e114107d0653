"""Time of one training step: ours against what one would write with open_clip and torch alone.

Both train the same variant on the same generated utterances, from JPEG bytes and text to the
update, with a random CLIP of the miniature's size. The baseline decodes and tokenises in every
step, encodes all 77 positions and every image of the batch, and runs `nn.TransformerEncoder`.
Both compute in fp32 in one thread, which other programs on the machine disturb least.

    python benchmarks/train_step.py [--json] [--steps 20]
"""

import argparse
import io
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn

from brewline.config.recipes import RecipeParams
from brewline.config.runtime import RuntimeParams
from brewline.config.variants import AcousticParams, VariantParams
from brewline.core.system import peak_memory_mb
from brewline.models.backbones import ClipBackbone, make_backbone
from brewline.samples.shards import Utterance
from brewline.samples.training_reader import TrainingOrder
from brewline.training.loop import TrainingData, TrainingJob, train
from brewline.training.tasks.retrieval import Retrieval

CASES = ("prompted", "full")
NUM_IMAGES = 200
TAKES = 3
STATE_WIDTH = 128
PROMPTS = 4
WARM_UP_STEPS = 16
IMAGE_CACHE_MB = 512
WORDS = ("a", "the", "big", "small", "red", "green", "box", "ball", "left", "of", "and", "um")

ACOUSTIC = AcousticParams(
    layers=1, heads=8, feedforward_width=512, dropout=0.1, pool_frames=4, padding_mask="valid"
)


def settings(steps: int) -> RecipeParams:
    """The miniature's, in fp32 on both sides, with nothing but steps."""
    values = {
        "seeds": [0],
        "steps": steps,
        "batch_size": 48,
        "optimiser": "adam",
        "learning_rate": 1e-3,
        "weight_decay": 1e-6,
        "warmup_steps": 1,
        "schedule": "linear",
        "grad_clip": 4.0,
        "temperature": 0.07,
        "learn_temperature": True,
        "same_image": "mask",
        "loss": "info_nce",
        "precision": "fp32",
        "evaluate_every": steps,
    }
    return RecipeParams.model_validate(values)


def variant(case: str) -> VariantParams:
    """The switches of a case."""
    if case == "full":
        return VariantParams(text="asr", acoustic=ACOUSTIC, prompts=PROMPTS, alpha=0.1)
    return VariantParams(text="asr", prompts=PROMPTS)


def make_backbone_of_miniature_size() -> ClipBackbone:
    """A random CLIP."""
    torch.manual_seed(0)
    vision = {"image_size": 96, "layers": 5, "width": 128, "patch_size": 16, "head_width": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 3}
    clip = open_clip.CLIP(128, vision_cfg=vision, text_cfg=text)
    preprocess = image_transform_v2(PreprocessCfg(size=96), is_train=False)
    return make_backbone(clip, open_clip.SimpleTokenizer(), preprocess)


def make_utterances() -> list[Utterance]:
    """Utterances of 3 to 16 s about noise in JPEG, three for each image."""
    rng = np.random.default_rng(0)
    utterances = []
    for image in range(NUM_IMAGES):
        blocks = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        blocks.resize((384, 288)).save(buffer, "JPEG", quality=92)
        for take in range(TAKES):
            num_frames = int(rng.integers(150, 800))
            utterances.append(
                Utterance(
                    utterance_id=f"u{image}-{take}",
                    image_id=f"i{image}",
                    image=buffer.getvalue(),
                    transcript=" ".join(rng.choice(WORDS, int(rng.integers(8, 40)))),
                    caption=None,
                    num_frames=num_frames,
                    states=rng.normal(size=(num_frames, STATE_WIDTH)).astype(np.float16),
                )
            )
    return utterances


def in_order(utterances: list[Utterance], start: int, stop: int) -> list[Utterance]:
    """Those from one number to another of an endless order: round after round, each in another."""
    order = TrainingOrder([len(utterances)], seed=0)
    return [utterances[place.row] for place in order.places(start, stop)]


def time_ours(case: str, utterances: list[Utterance], steps: int) -> list[float]:
    """Seconds of each step of `brewline.training.loop.train`, after some to warm up."""
    data = TrainingData(
        lambda seed, start, stop: in_order(utterances, start, stop),
        lambda split: utterances[:8],
    )
    moments: list[float] = []
    recipe, backbone = settings(WARM_UP_STEPS + steps), make_backbone_of_miniature_size()
    task = Retrieval(variant(case), recipe, backbone, IMAGE_CACHE_MB)
    with tempfile.TemporaryDirectory() as folder:
        train(
            TrainingJob(task, recipe, 0),
            data,
            Path(folder),
            RuntimeParams(
                parallel_stages=1,
                engine="processes",
                ray_address="local",
                device="auto",
                download_workers=1,
                inspect_workers=1,
                inspect_decode_limit_s=60.0,
                transcribe_workers=1,
                shard_workers=1,
                transcribe_batch_limit_s=60.0,
                max_transcription_failure_rate=0.0,
                train_workers=1,
                train_processes=1,
                train_part_size=None,
                checkpoint_every_s=1e6,
                embed_batch_size=48,
                image_cache_mb=IMAGE_CACHE_MB,
            ),
            on_row=lambda row: moments.append(time.perf_counter()) if "loss" in row else None,
            progress_bar=False,
        )
    return np.diff(moments)[-steps:].tolist()


class Plain(nn.Module):
    """BrewCLIP as one would write it from the paper."""

    def __init__(self, clip: Any, case: str) -> None:
        super().__init__()
        self.clip = clip
        self.prompts = nn.Parameter(torch.randn(PROMPTS, 128) * 0.02)
        self.to_image = nn.Linear(128, 128)
        self.log_scale = nn.Parameter(torch.tensor(2.659))
        self.full = case == "full"
        if self.full:
            self.project = nn.Linear(STATE_WIDTH, 128)
            self.first = nn.Parameter(torch.randn(128))
            layer = nn.TransformerEncoderLayer(128, 8, 512, 0.1, "gelu", batch_first=True)
            self.encoder = nn.TransformerEncoder(
                layer, 1, nn.LayerNorm(128), enable_nested_tensor=False
            )
            self.out = nn.Linear(128, 128)

    def encode_text(self, tokens: Tensor) -> Tensor:
        clip = self.clip
        x = clip.token_embedding(tokens)
        prompts = self.prompts.expand(len(x), -1, -1)
        x = torch.cat([x[:, :1], prompts, x[:, 1:-PROMPTS]], dim=1) + clip.positional_embedding
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask))
        ends = (tokens.argmax(dim=-1) + PROMPTS).clamp(max=tokens.shape[1] - 1)
        return x[torch.arange(len(x)), ends] @ clip.text_projection

    def encode_image(self, pixels: Tensor) -> Tensor:
        visual = self.clip.visual
        x = visual._embeds(pixels)
        prompts = visual.ln_pre(self.to_image(self.prompts)).expand(len(x), -1, -1)
        x = visual.transformer(torch.cat([x, prompts], dim=1))
        return F.normalize(visual._pool(x)[0] @ visual.proj, dim=-1)

    def encode_states(self, states: Tensor, padding: Tensor) -> Tensor:
        lead = torch.cat([self.first[None], self.prompts]).expand(len(states), -1, -1)
        x = torch.cat([lead, self.project(states)], dim=1)
        ignored = F.pad(padding, (lead.shape[1], 0), value=False)
        return self.out(self.encoder(x, src_key_padding_mask=ignored)[:, 0])


def contrast(a: Tensor, b: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """The masked contrastive loss."""
    logits = (scale * a @ b.T).masked_fill(same, -torch.inf)
    labels = torch.arange(len(a))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def plain_states(batch: list[Utterance]) -> tuple[Tensor, Tensor]:
    """States in groups of four, padded, with the mask of what is padding."""
    rows = []
    for utterance in batch:
        states = torch.from_numpy(utterance.states).float()
        rows.append(F.avg_pool1d(states.T[None], ACOUSTIC.pool_frames, ceil_mode=True)[0].T)
    states = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return states, torch.arange(states.shape[1]) >= lengths[:, None]


def time_plain(case: str, utterances: list[Utterance], steps: int) -> list[float]:
    """Seconds of each step of the plain loop, after a few to warm up."""
    backbone = make_backbone_of_miniature_size()
    model = Plain(backbone.clip, case).train()
    backbone.clip.eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=1e-3, weight_decay=1e-6)
    seconds = []
    for number in range(3 + steps):
        start = time.perf_counter()
        batch = in_order(utterances, 48 * number, 48 * (number + 1))
        pictures = [Image.open(io.BytesIO(one.image or b"")) for one in batch]
        images = model.encode_image(torch.stack([backbone.preprocess(p) for p in pictures]))
        spoken = text = model.encode_text(backbone.tokenizer([one.transcript for one in batch]))
        ids = np.array([one.image_id for one in batch])
        same = torch.from_numpy(ids[:, None] == ids[None]).fill_diagonal_(False)
        scale = model.log_scale.exp()
        loss = torch.zeros(())
        if model.full:
            acoustic = model.encode_states(*plain_states(batch))
            spoken = text + acoustic
            pair = F.normalize(acoustic, dim=-1), F.normalize(text, dim=-1)
            loss = 0.1 * contrast(*pair, scale, same)
        loss = loss + 0.9 * contrast(F.normalize(spoken, dim=-1), images, scale, same)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 4.0)
        optimiser.step()
        seconds.append(time.perf_counter() - start)
    return seconds[-steps:]


def measure(job: tuple[str, Callable[..., list[float]], int]) -> tuple[float, float]:
    """Median seconds of a step, and the peak memory (MiB) of this process."""
    case, run, steps = job
    torch.set_num_threads(1)
    seconds = run(case, make_utterances(), steps)
    return statistics.median(seconds), peak_memory_mb()


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed")
    arguments = parser.parse_args()
    # A process of its own for each, because peak memory never falls.
    context = multiprocessing.get_context("spawn")
    for case in CASES:
        with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
            jobs = [(case, run, arguments.steps) for run in (time_plain, time_ours)]
            (baseline_s, _), (ours_s, peak_mb) = pool.map(measure, jobs)
        row = {
            "case": case,
            "baseline_s": round(baseline_s, 4),
            "ours_s": round(ours_s, 4),
            "ratio": round(baseline_s / ours_s, 2),
            "peak_mb": round(peak_mb),
        }
        if arguments.json:
            print(json.dumps(row), flush=True)
        else:
            print(
                f"{case:10} plain {1000 * baseline_s:6.0f} ms   ours {1000 * ours_s:6.0f} ms   "
                f"{row['ratio']:.1f} times faster, {row['peak_mb']} MiB"
            )


if __name__ == "__main__":
    main()
