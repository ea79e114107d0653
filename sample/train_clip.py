"""Trains the miniature CLIP on pictures and plain captions that are disjoint from the corpora.

The class and the tokenizer are open_clip's. Rows of the vocabulary that no training caption uses
stay zero. Two auxiliary heads, dropped afterwards, make the image tower learn in minutes what
contrast alone would take hours for at this batch size: one names what is in the picture, the other
what lies under each patch.
"""

import json
import lzma
import math
import multiprocessing
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from drawing import draw_scene, thing_boxes
from language import listing_caption, plain_caption, sentence
from open_clip import CLIP, CLIPTextCfg, CLIPVisionCfg, get_tokenizer
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from parallel import average_gradients, rank, run
from PIL import Image
from safetensors.torch import save as save_safetensors
from scenes import KINDS, PLACES, SIDES, SKIES, Scene, sample_scene

IMAGE_PX = 112
MODEL_CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {
        "image_size": IMAGE_PX,
        "layers": 4,
        "width": 128,
        "head_width": 32,
        "patch_size": 16,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 128,
        "heads": 4,
        "layers": 3,
    },
}
PREPROCESS_CONFIG = {
    "mean": list(OPENAI_DATASET_MEAN),
    "std": list(OPENAI_DATASET_STD),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
CHUNK = 500
TEXT_KINDS = ("plain", "listing", "paragraph")
TEXT_WEIGHTS = (0.3, 0.35, 0.35)
LABELS = [
    *PLACES,
    *SKIES,
    *KINDS,
    *(f"{kind} {colour}" for kind, value in KINDS.items() for colour in value.colours),
    *(f"{kind} {side}" for kind in KINDS for side in SIDES),
]
_LABEL_INDEX = {label: index for index, label in enumerate(LABELS)}
COLOURS = sorted({colour for kind in KINDS.values() for colour in kind.colours})
_KIND_INDEX = {kind: index + 1 for index, kind in enumerate(KINDS)}
_COLOUR_INDEX = {colour: index + 1 for index, colour in enumerate(COLOURS)}
GRID = IMAGE_PX // MODEL_CONFIG["vision_cfg"]["patch_size"]


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train."""

    scenes: int = 12_000
    texts_per_kind: int = 6
    steps: int = 1_650
    batch: int = 128
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: int = 100
    label_weight: float = 0.06
    patch_weight: float = 1.0
    seed: int = 23


def training_scene(index: int) -> tuple[Scene, random.Random]:
    """The scene of that number and the generator that goes on from it."""
    rng = random.Random(f"clip-training/{index}")
    return sample_scene(rng), rng


def training_text(kind: str, scene: Scene, rng: random.Random) -> str:
    """A caption of the kind; a paragraph is several plain captions in a row."""
    if kind == "plain":
        return plain_caption(scene, rng)
    if kind == "listing":
        return listing_caption(scene, rng)
    captions = [plain_caption(scene, rng) for _ in range(rng.randint(2, 4))]
    return " ".join(sentence(caption) for caption in captions)


def make_chunk(task: tuple[Path, int]) -> None:
    """Draws `CHUNK` scenes; stores uint8 [CHUNK, px, px, 3]."""
    folder, chunk = task
    path = folder / f"pictures-{chunk:03d}.npy"
    if path.exists():
        return
    pictures = []
    for index in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        picture = draw_scene(*training_scene(index))
        picture = picture.resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BICUBIC)
        pictures.append(np.asarray(picture))
    np.save(path, np.stack(pictures))


def make_training_pictures(folder: Path, scenes: int, processes: int = 2) -> None:
    """All chunks."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [(folder, chunk) for chunk in range(scenes // CHUNK)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for _ in pool.imap_unordered(make_chunk, tasks):
            pass


def label_indices(scene: Scene) -> list[int]:
    """Which of `LABELS` are true of the scene."""
    names = [scene.place, *([scene.sky] if scene.sky else [])]
    for thing in scene.things:
        names += [thing.kind, f"{thing.kind} {thing.colour}", f"{thing.kind} {thing.side}"]
    return [_LABEL_INDEX[name] for name in names]


def patch_targets(task: int) -> np.ndarray:
    """What lies under each patch of a training picture: (kind, colour), 0 for nothing; [2, G, G].

    A thing takes the patches whose centre is in its box, and the one that its own centre is in.
    """
    scene, rng = training_scene(task)
    targets = np.zeros((2, GRID, GRID), np.int64)
    centres = (np.arange(GRID) + 0.5) / GRID
    boxes = thing_boxes(scene, rng)
    order = sorted(range(len(boxes)), key=lambda i: (scene.things[i].near, boxes[i][3], i))
    for index in order:
        thing, (left, top, right, bottom) = scene.things[index], boxes[index]
        across = (centres >= left) & (centres <= right)
        across[min(int((left + right) / 2 * GRID), GRID - 1)] = True
        down = (centres >= top) & (centres <= bottom)
        down[min(int((top + bottom) / 2 * GRID), GRID - 1)] = True
        covered = down[:, None] & across[None, :]
        targets[0][covered] = _KIND_INDEX[thing.kind]
        targets[1][covered] = _COLOUR_INDEX[thing.colour]
    return targets


class Pairs:
    """The training set in memory: pictures, labels and token rows with compact ids."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        paths = sorted(folder.glob("pictures-*.npy"))[: recipe.scenes // CHUNK]
        pictures = np.concatenate([np.load(path) for path in paths]).transpose(0, 3, 1, 2)
        self.pictures = torch.from_numpy(np.ascontiguousarray(pictures))
        self.labels = torch.zeros(recipe.scenes, len(LABELS))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            patches = pool.map(patch_targets, range(recipe.scenes), chunksize=CHUNK)
        self.patches = torch.from_numpy(np.stack(patches)).flatten(2)
        texts: dict[str, list[str]] = {kind: [] for kind in TEXT_KINDS}
        for index in range(recipe.scenes):
            scene, _ = training_scene(index)
            rng = random.Random(f"clip-text/{index}")
            self.labels[index, label_indices(scene)] = 1.0
            for kind in TEXT_KINDS:
                texts[kind] += [
                    training_text(kind, scene, rng) for _ in range(recipe.texts_per_kind)
                ]
        tokenize = get_tokenizer("ViT-B-32")
        rows = {kind: torch.cat([tokenize(text) for text in texts[kind]]) for kind in TEXT_KINDS}
        used = torch.unique(torch.cat([r.flatten() for r in rows.values()]))
        self.used: torch.Tensor = used
        self.tokens = {
            kind: torch.searchsorted(used, row).view(recipe.scenes, recipe.texts_per_kind, -1)
            for kind, row in rows.items()
        }

    def batch(
        self, indices: torch.Tensor, kind: str, rng: random.Random
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(pictures [B, 3, px, px], tokens [B, L], labels [B, labels], patches [B, 2, P])."""
        tokens = self.tokens[kind][indices, rng.randrange(self.tokens[kind].shape[1])]
        longest = int(tokens.argmax(dim=-1).max()) + 1
        pictures = self.pictures[indices]
        # Shifts of a few pixels keep the tower from learning the pictures by heart.
        pictures = pictures.roll((rng.randint(-4, 4), rng.randint(-4, 4)), dims=(2, 3))
        mean = torch.tensor(PREPROCESS_CONFIG["mean"]).view(3, 1, 1)
        std = torch.tensor(PREPROCESS_CONFIG["std"]).view(3, 1, 1)
        pixels = pictures.float().div_(255).sub_(mean).div_(std)
        return pixels, tokens[:, :longest], self.labels[indices], self.patches[indices]


def _run_blocks(
    blocks: torch.nn.ModuleList, x: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """The residual blocks of a tower, with attention in fp32.

    The processor's bf16 kernel for the gradient of attention takes several times as long.
    """
    size, length, width = x.shape
    for block in blocks:
        attention = block.attn
        inputs = block.ln_1(x)
        qkv = F.linear(inputs, attention.in_proj_weight, attention.in_proj_bias).float()
        qkv = qkv.view(size, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        with torch.autocast("cpu", enabled=False):
            mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=mask)
        x = x + attention.out_proj(mixed.transpose(1, 2).reshape(size, length, width))
        x = x + block.mlp(block.ln_2(x))
    return x


def encode_image(model: CLIP, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [B, 3, px, px] -> embeddings [B, D] and the states of the patches [B, P, W]."""
    visual = model.visual
    x = _run_blocks(visual.transformer.resblocks, visual._embeds(pictures), None)
    return visual._pool(x)[0] @ visual.proj, x[:, 1:]


def encode_text(model: CLIP, tokens: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Tokens [B, L] -> embeddings [B, D], without the padding after the longest text."""
    length = tokens.shape[1]
    x = F.embedding(tokens, rows) + model.positional_embedding[:length]
    x = _run_blocks(model.transformer.resblocks, x, model.attn_mask[:length, :length])
    x = model.ln_final(x)[torch.arange(len(x)), tokens.argmax(dim=-1)]
    return x @ model.text_projection


def parameter_groups(
    named: list[tuple[str, torch.nn.Parameter]], weight_decay: float
) -> list[dict[str, object]]:
    """Matrices decay; gains, biases and embeddings do not."""
    decay = [p for name, p in named if p.ndim > 1 and "embedding" not in name]
    rest = [p for name, p in named if p.ndim <= 1 or "embedding" in name]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def train(folder: Path, recipe: Recipe) -> CLIP:
    """The whole training, on the processor."""
    torch.manual_seed(recipe.seed)
    data = Pairs(folder, recipe)
    model = CLIP(
        MODEL_CONFIG["embed_dim"],
        CLIPVisionCfg(**MODEL_CONFIG["vision_cfg"]),
        CLIPTextCfg(**MODEL_CONFIG["text_cfg"]),
    )
    embedding = model.token_embedding.weight.requires_grad_(False)
    rows = torch.nn.Parameter(embedding[data.used])
    heads = torch.nn.ModuleDict(
        {
            "label": torch.nn.Linear(MODEL_CONFIG["embed_dim"], len(LABELS)),
            "kind": torch.nn.Linear(MODEL_CONFIG["vision_cfg"]["width"], len(KINDS) + 1),
            "colour": torch.nn.Linear(MODEL_CONFIG["vision_cfg"]["width"], len(COLOURS) + 1),
        }
    )
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    named += [("rows_embedding", rows), *heads.named_parameters()]
    optimiser = torch.optim.AdamW(
        parameter_groups(named, recipe.weight_decay), lr=recipe.learning_rate, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(
            (step + 1) / recipe.warmup,
            0.01 + 0.5 * (1 + math.cos(math.pi * min(step / recipe.steps, 1))),
        ),
    )
    rng = random.Random(f"clip-batches/{recipe.seed}/{rank()}")
    generator = np.random.default_rng([recipe.seed, rank()])
    started = time.monotonic()
    for step in range(recipe.steps):
        indices = torch.from_numpy(generator.choice(recipe.scenes, recipe.batch, replace=False))
        kind = rng.choices(TEXT_KINDS, weights=TEXT_WEIGHTS)[0]
        losses = batch_losses(model, rows, heads, data.batch(indices, kind, rng))
        loss = losses[0] + recipe.label_weight * losses[1] + recipe.patch_weight * losses[2]
        optimiser.zero_grad()
        loss.backward()
        average_gradients([p for _, p in named])
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if step % 50 == 0 and rank() == 0:
            values = " ".join(f"{value.item():.3f}" for value in losses)
            took = time.monotonic() - started
            print(f"step {step} {kind} contrast/labels/patches {values} {took:.0f}s", flush=True)
    embedding.zero_()
    embedding[data.used] = rows.detach()
    return model


def batch_losses(
    model: CLIP,
    rows: torch.Tensor,
    heads: torch.nn.ModuleDict,
    batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(contrastive loss, label loss summed over the labels, patch loss) of one batch."""
    pictures, tokens, labels, patches = batch
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image, states = encode_image(model, pictures)
        text = encode_text(model, tokens, rows)
        label_logits = heads["label"](image)
        patch_logits = [heads[name](states).float() for name in ("kind", "colour")]
    logits = F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T
    logits = model.logit_scale.exp() * logits
    target = torch.arange(len(logits))
    contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    label_loss = F.binary_cross_entropy_with_logits(label_logits.float(), labels, reduction="sum")
    patch_loss = sum(
        F.cross_entropy(logits.flatten(0, 1), patches[:, place].flatten())
        for place, logits in enumerate(patch_logits)
    )
    return contrast, label_loss / len(labels), patch_loss


def save(model: CLIP, folder: Path) -> None:
    """A folder for open_clip's `local-dir:`, the weights in fp16 and compressed with xz."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL_CONFIG, "preprocess_cfg": PREPROCESS_CONFIG}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    weights = save_safetensors(state, metadata={"format": "pt"})
    (folder / "open_clip_model.safetensors.xz").write_bytes(lzma.compress(weights, preset=9))


def build(weights: Path, scratch: Path, recipe: Recipe) -> None:
    """Training pictures into `scratch`, then weights into `weights`."""
    make_training_pictures(scratch, recipe.scenes)
    print(f"training the CLIP: {asdict(recipe)}", flush=True)
    run(scratch / "meeting", _train_and_save, scratch, recipe, weights / "clip")


def _train_and_save(scratch: Path, recipe: Recipe, folder: Path) -> None:
    model = train(scratch, recipe)
    if rank() == 0:
        save(model, folder)
