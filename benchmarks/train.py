"""Speed of training: ours against what the authors of BrewCLIP do, on the same files.

Theirs reads a recording and a picture from a file each, decodes and resizes the picture, runs
Whisper's encoder over 30 s of sound, places prompts in a loop over the samples, and trains with
`nn.TransformerEncoder`, in every step and in fp32; a `DataLoader` reads ahead. Ours reads shards,
with the states that stage `transcribe` has made (whose time is not counted: it makes them once, on
its way to the transcripts), and trains by `brewline.training.loop.train`, in fp32 too. Both are
counted from the first file that is opened, with nothing decoded yet, and with the files taken out
of the system's cache. Weights and sounds are random.

`mini`: the miniature world's sizes. `vitb32_base`: those of ViT-B/32 and Whisper `base`, with
pictures of 640 x 480. `growth`: ours alone at `mini`, by batch size. Samples a second.

`loader`: batches alone, with pictures, texts and states, against a `Dataset` that reads each from a
file; two rounds over pictures with five captions each, by one and by two workers. Samples a second.

`loader_states`: ready batches of 32 x 1,500 states of 512 numbers, against one thread that makes
padded fp32 of them. Batches a second.

    python benchmarks/train.py [--json] [--cases mini ...]
"""

import argparse
import io
import itertools
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import soundfile
import torch
import torch.nn.functional as F
import whisper
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from whisper.model import AudioEncoder

from brewline.config import load_params
from brewline.config.recipes import RecipeParams
from brewline.config.runtime import RuntimeParams
from brewline.config.variants import AcousticParams, VariantParams
from brewline.core.system import keep_freed_memory, peak_memory_mb
from brewline.media.pictures import shrink_jpeg
from brewline.models.backbones import ClipBackbone, make_backbone
from brewline.models.inputs import InputTransforms
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator
from brewline.samples.decoded_pictures import DecodedPictures
from brewline.samples.iteration import prefetch
from brewline.samples.shards import encode_states, write_index, write_shard
from brewline.samples.training_reader import TrainingReader
from brewline.training.loop import TrainingData, TrainingJob, train
from brewline.training.tasks.retrieval import Retrieval

CASES = ("mini", "vitb32_base", "growth", "loader", "loader_states")
PROMPTS = 4
ROUNDS = 2
WINDOW = 1500
SAMPLES_PER_STATE = 320
WORDS = ("a", "the", "big", "small", "red", "green", "box", "ball", "left", "of", "and", "um")
PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")


@dataclass(frozen=True)
class Size:
    """A model, the data it is trained on, and how long.

    `whisper` are width, heads and layers of its encoder; `frames` the bounds of how many states a
    recording has; `plain_steps` what the authors' way is timed for.
    """

    vision: dict[str, int]
    text: dict[str, int]
    embedding: int
    whisper: tuple[int, int, int]
    acoustic: AcousticParams
    picture: tuple[int, int]
    frames: tuple[int, int]
    num_pictures: int
    takes: int
    batch: int
    steps: int
    plain_steps: int

    @property
    def variant(self) -> VariantParams:
        """The one that the paper is about."""
        return VariantParams(text="asr", acoustic=self.acoustic, prompts=PROMPTS, alpha=0.1)


def acoustic(feedforward_width: int, pool_frames: int) -> AcousticParams:
    """The acoustic branch of a case."""
    return AcousticParams(
        layers=1,
        heads=8,
        feedforward_width=feedforward_width,
        dropout=0.1,
        pool_frames=pool_frames,
        padding_mask="valid",
    )


SIZES = {
    "mini": Size(
        vision={"image_size": 96, "layers": 5, "width": 128, "patch_size": 16, "head_width": 32},
        text={"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 3},
        embedding=128,
        whisper=(128, 2, 3),
        acoustic=acoustic(512, 4),
        picture=(384, 288),
        frames=(150, 800),
        num_pictures=120,
        takes=3,
        batch=32,
        steps=24,
        plain_steps=1,
    ),
    "vitb32_base": Size(
        vision={"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        text={"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
        embedding=512,
        whisper=(512, 8, 6),
        acoustic=acoustic(4096, 1),
        picture=(640, 480),
        frames=(100, 400),
        num_pictures=30,
        takes=5,
        batch=32,
        steps=2,
        plain_steps=1,
    ),
}


@dataclass(frozen=True)
class Sample:
    """A line of the authors' table: where an utterance's files are."""

    recording: Path
    picture: Path
    states: Path
    text: str
    image: int


def draw(number: int, size: tuple[int, int]) -> bytes:
    """A picture with coarse and fine structure; one of 640 x 480 takes as much as a photo."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.float32)
    pixels = pixels + rng.normal(scale=8.0, size=pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def make_world(folder: Path, size: Size) -> list[Sample]:
    """Writes the same utterances as single files and as shards."""
    rng = np.random.default_rng(0)
    table: list[Sample] = []
    shards: list[dict[str, Any]] = []
    states: list[dict[str, Any]] = []
    for image in range(size.num_pictures):
        picture = folder / f"{image}.jpg"
        picture.write_bytes(draw(image, size.picture))
        small = shrink_jpeg(picture.read_bytes(), PARAMS.shard)
        for take in range(size.takes):
            name, num_frames = f"u{image}-{take}", int(rng.integers(*size.frames))
            text = " ".join(rng.choice(WORDS, int(rng.integers(8, 24))))
            heard = rng.normal(size=(num_frames, size.whisper[0])).astype(np.float16)
            one = Sample(folder / f"{name}.wav", picture, folder / f"{name}.npy", text, image)
            sound = rng.normal(scale=0.1, size=num_frames * SAMPLES_PER_STATE)
            soundfile.write(one.recording, sound, 16000, subtype="PCM_16")
            np.save(one.states, heard)
            facts = {"image_id": f"i{image}", "transcript": text, "caption": None}
            facts |= {"num_frames": num_frames, "avg_logprob": None}  # type: ignore[dict-item]
            sample = {"__key__": name, "json": json.dumps(facts).encode()}
            shards.append({**sample, "jpg": small})
            states.append({"__key__": name, "npy": encode_states(heard)})
            table.append(one)
    for kind, samples in {"shards": shards, "states": states}.items():
        where = folder / kind
        where.mkdir()
        for split, part in {"train": samples, "dev": samples[:2]}.items():
            write_shard(where / f"{split}-000000.tar", part)
        write_index(where, {"train-000000.tar": len(samples), "dev-000000.tar": 2})
    return table


def forget(folder: Path) -> None:
    """Takes the files of a folder out of the system's cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def backbone_of(size: Size) -> ClipBackbone:
    """A random CLIP."""
    torch.manual_seed(0)
    clip = open_clip.CLIP(size.embedding, vision_cfg=size.vision, text_cfg=size.text)
    preprocess = image_transform_v2(PreprocessCfg(size=size.vision["image_size"]), is_train=False)
    return make_backbone(clip, open_clip.SimpleTokenizer(), preprocess)


def recipe(size: Size, steps: int) -> RecipeParams:
    """The paper's, in fp32."""
    paper = PARAMS.recipes["paper"]
    assert paper is not None
    changes = {"steps": steps, "evaluate_every": steps, "batch_size": size.batch}
    changes |= {"warmup_steps": 1, "precision": "fp32"}
    return RecipeParams.model_validate(paper.model_dump() | changes)


def runtime() -> RuntimeParams:
    """Ours, on a processor, with no checkpoint but the last."""
    return PARAMS.runtime.model_copy(update={"device": "cpu", "checkpoint_every_s": 1e6})


def time_ours(size: Size, folder: Path, table: Sequence[Sample]) -> float:
    """Samples a second of `train`, from its start to the last update."""
    steps = recipe(size, size.steps)
    backbone = backbone_of(size)
    forget(folder)
    ended = start = time.perf_counter()

    def on_row(row: dict[str, Any]) -> None:
        nonlocal ended
        if "loss" in row:
            ended = time.perf_counter()

    with tempfile.TemporaryDirectory() as work:
        task = Retrieval(size.variant, steps, backbone, decoded_in(Path(work), size))
        train(
            TrainingJob(task, steps, 0),
            TrainingData.from_shards(folder / "shards", folder / "states"),
            Path(work),
            runtime(),
            on_row=on_row,
            progress_bar=False,
        )
    return size.batch * size.steps / (ended - start)


class Files(Dataset[tuple[Tensor, Tensor, Tensor, int]]):
    """A sample from its own files: sound or states, pixels, tokens, and which picture it is."""

    def __init__(self, table: Sequence[Sample], backbone: ClipBackbone, hears: bool) -> None:
        self._table, self._backbone, self._hears = table, backbone, hears

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, int]:
        one = self._table[index]
        if self._hears:
            sound, _ = soundfile.read(one.recording, dtype="float32")
            heard = torch.from_numpy(sound)
        else:
            heard = torch.from_numpy(np.load(one.states)).float()
        pixels = self._backbone.preprocess(Image.open(one.picture))
        return heard, pixels, self._backbone.tokenizer([one.text])[0], one.image


def together(samples: Sequence[tuple[Tensor, Tensor, Tensor, int]]) -> tuple[Tensor, ...]:
    """A batch: what is heard is padded, all else has one size."""
    heard, pixels, tokens, images = zip(*samples, strict=True)
    padded = nn.utils.rnn.pad_sequence(list(heard), batch_first=True)
    return padded, torch.stack(pixels), torch.stack(tokens), torch.tensor(images)


class Plain(nn.Module):
    """BrewCLIP as its authors' code has it."""

    def __init__(self, clip: Any, size: Size) -> None:
        super().__init__()
        text, width = size.text["width"], size.whisper[0]
        self.clip = clip
        self.whisper = AudioEncoder(80, WINDOW, *size.whisper).requires_grad_(False)
        self.prompts = nn.Parameter(torch.randn(PROMPTS, text) * 0.02)
        self.to_image = nn.Linear(text, size.vision["width"])
        self.log_scale = nn.Parameter(torch.tensor(2.659))
        self.project = nn.Linear(width, text)
        self.first = nn.Parameter(torch.randn(text))
        wide, heads = size.acoustic.feedforward_width, size.acoustic.heads
        # With dropout, torch would keep all weights of the attention, and take far longer.
        layer = nn.TransformerEncoderLayer(text, heads, wide, 0.0, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(
            layer, 1, nn.LayerNorm(text), enable_nested_tensor=False
        )
        self.out = nn.Linear(text, size.embedding)

    def encode_text(self, tokens: Tensor) -> Tensor:
        clip = self.clip
        rows = []
        for row in clip.token_embedding(tokens):
            rows.append(torch.cat([row[:1], self.prompts, row[1:-PROMPTS]]))
        x = torch.stack(rows) + clip.positional_embedding
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask))
        ends = (tokens.argmax(dim=-1) + PROMPTS).clamp(max=tokens.shape[1] - 1)
        return x[torch.arange(len(x)), ends] @ clip.text_projection

    def encode_image(self, pixels: Tensor) -> Tensor:
        visual = self.clip.visual
        x = visual._embeds(pixels)
        prompts = visual.ln_pre(self.to_image(self.prompts)).expand(len(x), -1, -1)
        x = visual.transformer(torch.cat([x, prompts], dim=1))
        return F.normalize(visual._pool(x)[0] @ visual.proj, dim=-1)

    def encode_sound(self, sound: Tensor) -> Tensor:
        with torch.no_grad():
            padded = whisper.pad_or_trim(sound, 2 * WINDOW * whisper.audio.HOP_LENGTH)
            states = self.whisper(whisper.log_mel_spectrogram(padded))
        lead = torch.cat([self.first[None], self.prompts]).expand(len(states), -1, -1)
        x = torch.cat([lead, self.project(states)], dim=1)
        return self.out(self.encoder(x)[:, 0])


def contrast(a: Tensor, b: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """The masked contrastive loss."""
    logits = (scale * a @ b.T).masked_fill(same, -torch.inf)
    labels = torch.arange(len(a))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def time_plain(size: Size, folder: Path, table: Sequence[Sample]) -> float:
    """Samples a second of the authors' way, from the first file to the last update."""
    backbone = backbone_of(size)
    model = Plain(backbone.clip, size).train()
    backbone.clip.eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=1e-4, weight_decay=1e-6)
    forget(folder)
    start = time.perf_counter()
    files = Files(table, backbone, hears=True)
    batches = batches_of_files(files, size.batch, workers=1)
    for sound, pixels, tokens, ids in itertools.islice(batches, size.plain_steps):
        acoustic, text = model.encode_sound(sound), model.encode_text(tokens)
        images = model.encode_image(pixels)
        same = (ids[:, None] == ids[None]).fill_diagonal_(False)
        scale = model.log_scale.exp()
        pair = F.normalize(acoustic, dim=-1), F.normalize(text, dim=-1)
        inner = contrast(*pair, scale, same)
        outer = contrast(F.normalize(text + acoustic, dim=-1), images, scale, same)
        optimiser.zero_grad()
        (0.1 * inner + 0.9 * outer).backward()
        nn.utils.clip_grad_norm_(trained, 4.0)
        optimiser.step()
    return size.batch * size.plain_steps / (time.perf_counter() - start)


def batches_of_files(files: Files, batch: int, workers: int) -> Iterator[Any]:
    """Batches in a shuffled order, round after round."""
    # Started the fastest way: what another one takes to import would count.
    options: dict[str, Any] = {"num_workers": workers, "multiprocessing_context": "fork"}
    loader = DataLoader(files, batch, shuffle=True, collate_fn=together, drop_last=True, **options)
    return (one for _ in itertools.count() for one in loader)


def load_ours(size: Size, folder: Path, table: Sequence[Sample], workers: int) -> float:
    """Samples a second of reading and collating alone, on so many cores."""
    keep_to(workers)
    with tempfile.TemporaryDirectory() as work:
        return size.batch * rate(loading(size, folder, Path(work)), size.steps)


def loading(size: Size, folder: Path, work: Path) -> Iterator[Any]:
    """Our batches, with nothing decoded yet."""
    collator = Collator(transforms_of(size), size.variant, decoded_in(work, size))
    reader = TrainingReader(folder / "shards", folder / "states")
    starts = itertools.count(0, size.batch)

    def make() -> Any:
        start = next(starts)
        return collator.collate(reader.read(0, start, start + size.batch))

    forget(folder)
    return prefetch(make)


def load_files(size: Size, folder: Path, table: Sequence[Sample], workers: int) -> float:
    """Samples a second of a `DataLoader` alone, with so many workers on as many cores."""
    keep_to(workers)
    files = Files(table, backbone_of(size), hears=False)
    forget(folder)
    return size.batch * rate(batches_of_files(files, size.batch, workers), size.steps)


def load_states(size: Size, folder: Path, table: Sequence[Sample]) -> float:
    """Ready batches of states a second, once they were read; memory is kept as `train` does it."""
    keep_freed_memory()
    collator = Collator(transforms_of(size), size.variant)
    reader = TrainingReader(folder / "shards", folder / "states")
    starts = itertools.count(0, size.batch)

    def make() -> Any:
        start = next(starts)
        return collator.utterance_inputs(reader.read(0, start, start + size.batch))

    batches = prefetch(make)
    rate(batches, size.num_pictures // size.batch)
    return rate(batches, size.steps)


def load_padded(size: Size, folder: Path, table: Sequence[Sample]) -> float:
    """The same by one thread that makes fp32 of each row, and pads them."""
    chosen = itertools.cycle(table)

    def make() -> Any:
        arrays = [np.load(next(chosen).states) for _ in range(size.batch)]
        longest = max(len(array) for array in arrays)
        states = torch.zeros(size.batch, longest, size.whisper[0])
        for row, array in zip(states, arrays, strict=True):
            row[: len(array)] = torch.from_numpy(array.astype(np.float32))
        return states

    batches = prefetch(make)
    rate(batches, size.num_pictures // size.batch)
    return rate(batches, size.steps)


def transforms_of(size: Size) -> InputTransforms:
    """How our batches are made."""
    return input_transforms(backbone_of(size), size.variant)


def decoded_in(work: Path, size: Size) -> DecodedPictures:
    """Keeps decoded pictures in a folder, as `train` does."""
    side, max_mb = size.vision["image_size"], PARAMS.runtime.image_cache_mb
    return DecodedPictures(work / "pictures", side, max_mb)


def keep_to(cores: int) -> None:
    """Uses so many of the cores alone."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    torch.set_num_threads(cores)


def rate(batches: Iterator[Any], count: int) -> float:
    """So many batches, by the seconds that they take."""
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count / (time.perf_counter() - start)


@dataclass(frozen=True)
class Race:
    """Two ways of doing one thing, which take turns; each is a process of its own every time."""

    name: str
    size: Size
    plain: Callable[..., float] | None
    ours: Callable[..., float]
    threads: int
    rounds: int = ROUNDS

    def run(self) -> dict[str, Any]:
        """The best of the rounds of each; and the peak memory of ours, in MiB."""
        best: dict[str, float] = {}
        ways = {"baseline": self.plain, "ours": self.ours}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            table = make_world(folder, self.size)
            for _, (way, function) in itertools.product(range(self.rounds), ways.items()):
                if function is None:
                    continue
                with ProcessPoolExecutor(
                    1, mp_context=multiprocessing.get_context("spawn")
                ) as pool:
                    found = pool.submit(alone, function, self.size, folder, table, self.threads)
                    rate, peak_mb = found.result()
                best[way] = max(best.get(way, 0), rate)
        row: dict[str, Any] = {"case": self.name}
        row |= {f"{way}_per_s": round(value, 2) for way, value in best.items()}
        if self.plain is not None:
            row["ratio"] = round(best["ours"] / best["baseline"], 2)
        return {**row, "peak_mb": round(peak_mb)}


def alone(
    function: Callable[..., float], size: Size, folder: Path, table: Sequence[Sample], threads: int
) -> tuple[float, float]:
    """What a way gives in this process, and its peak memory."""
    torch.set_num_threads(threads)
    return function(size, folder, table), peak_memory_mb()


def races(case: str) -> Iterator[Race]:
    """What a case compares."""
    mini, base = SIZES["mini"], SIZES["vitb32_base"]
    if case == "mini":
        yield Race("mini", mini, time_plain, time_ours, threads=1)
    elif case == "vitb32_base":
        # A step of theirs takes minutes.
        yield Race("vitb32_base", base, time_plain, time_ours, threads=2, rounds=1)
    elif case == "growth":
        for batch in (16, 32, 64, 128):
            sized = replace(mini, batch=batch, steps=mini.steps * mini.batch // batch)
            yield Race(f"growth, batch {batch}", sized, None, time_ours, threads=1, rounds=1)
    elif case == "loader":
        sized = replace(base, num_pictures=64, steps=20)
        for workers in (1, 2):
            ways = [partial(way, workers=workers) for way in (load_files, load_ours)]
            yield Race(f"loader, {workers} workers", sized, *ways, threads=1)
    elif case == "loader_states":
        sized = replace(base, frames=(WINDOW, WINDOW + 1), num_pictures=64, takes=1, steps=40)
        yield Race("loader_states", sized, load_padded, load_states, threads=1)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    arguments = parser.parse_args()
    for case in arguments.cases:
        for race in races(case):
            row = race.run()
            if arguments.json:
                print(json.dumps(row), flush=True)
            else:
                print("   ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
