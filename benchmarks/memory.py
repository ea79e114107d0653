"""What a training step of the paper's model takes of a GPU's memory, computed and not measured.

`full` with ViT-L/14 and the states of Whisper `base`, in bf16, runs on tensors that have a size and
no content. Counted are what the forward pass keeps for the backward pass, with attention as a GPU's
fused kernel keeps it, the weights in both precisions, what the optimiser has, and the batch; for
what comes and goes within a layer, and for CUDA itself, `--reserve` is set aside. It says
which `runtime.train_part_size`, a power of two, fits a card, with and without
`runtime.train_recompute`.

    python benchmarks/memory.py [--json] [--card 24] [--batch 1024]
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from brewline.config.variants import AcousticParams, VariantParams
from brewline.models import towers
from brewline.models.backbones import make_backbone
from brewline.models.brewclip import BrewClip
from brewline.models.inputs import PictureInputs, RaggedStates, UtteranceInputs
from brewline.models.layers import layers_run, run_layer

GB = 1e9
STATE_WIDTH = 512
SIDE = 224
# Tokens of a text with its prompts, and states of a recording: captions of 10 words in 6 s, and
# whatever fills both contexts.
CASES = {"captions": (20, 300), "narratives": (77, 1500)}
ACOUSTIC = AcousticParams(
    layers=1, heads=8, feedforward_width=4096, dropout=0.1, pool_frames=1, padding_mask="valid"
)
FULL = VariantParams(text="asr", acoustic=ACOUSTIC, prompts=4, alpha=0.1)


class Fused(torch.autograd.Function):
    """What the fused attention of a GPU keeps: inputs, output, and a number for each row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mixed = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, mixed, query.new_empty(query.shape[:3]).float())
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError("only what is kept is looked at")


def attend(attention: nn.MultiheadAttention, query: Any, key: Any, value: Any, _: Any) -> Tensor:
    """In the place of `brewline.models.attention.attend`."""
    mixed = Fused.apply(query, key, value).transpose(1, 2).flatten(2)  # type: ignore[no-untyped-call]
    return nn.functional.linear(mixed, attention.out_proj.weight, attention.out_proj.bias)


class Kept:
    """Counts what is kept for the backward pass, each memory once, and no weights."""

    def __init__(self, model: nn.Module) -> None:
        self._weights = {p.untyped_storage()._cdata for p in model.parameters()}
        self._kept: dict[int, Any] = {}

    def add(self, tensor: Tensor) -> Tensor:
        """Counts a tensor's memory."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._weights:
            # Held, so that no other memory gets its number.
            self._kept[storage._cdata] = storage
        return tensor

    @property
    def num_bytes(self) -> int:
        """Of all that was counted."""
        return sum(storage.nbytes() for storage in self._kept.values())

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Inside, a forward pass is run."""

        def run(layer: Any, block: Any, *arguments: Any) -> Tensor:
            # A layer that is computed again holds what it takes by itself.
            self.add(arguments[0])
            return run_layer(layer, block, *arguments)

        hooks = torch.autograd.graph.saved_tensors_hooks(self.add, lambda tensor: tensor)
        with patch.object(towers, "run_layer", run), patch.object(towers, "attend", attend), hooks:
            yield


@dataclass(frozen=True)
class Sizes:
    """Bytes: of an utterance's kept tensors, of its input, and of all that is there anyway."""

    kept: float
    given: int
    fixed: int


def make_model() -> BrewClip:
    """The paper's model, without content."""
    vision = {"image_size": SIDE, "layers": 24, "width": 1024, "patch_size": 14}
    text = {"context_length": 77, "vocab_size": 49408, "width": 768, "heads": 12, "layers": 12}
    clip = open_clip.CLIP(768, vision_cfg=vision, text_cfg=text, quick_gelu=True)
    preprocess = image_transform_v2(PreprocessCfg(size=SIDE), is_train=False)
    backbone = make_backbone(clip, open_clip.SimpleTokenizer(), preprocess)
    with unset_fake_temporarily():
        # Looks at what the tokeniser makes of words, once.
        assert backbone.layout.num_before == 1
    return BrewClip(backbone, FULL, STATE_WIDTH, learn_temperature=True)


def make_inputs(count: int, num_tokens: int, num_states: int) -> tuple[UtteranceInputs, Any]:
    """Of so many utterances, each with a picture of its own."""
    num_rows = count * num_states
    states = RaggedStates(
        torch.empty(num_rows, STATE_WIDTH, dtype=torch.float16),
        1,
        torch.ones(num_rows),
        torch.arange(num_rows),
        (count, num_states),
    )
    mask = torch.ones(count, num_states, dtype=torch.bool)
    tokens = torch.zeros(count, num_tokens, dtype=torch.long)
    pictures = PictureInputs(count, torch.empty(count, 3, SIDE, SIDE, dtype=torch.uint8))
    return UtteranceInputs(count, tokens, states=states, frame_mask=mask), pictures


def kept_of(model: BrewClip, count: int, case: tuple[int, int], recompute: bool) -> int:
    """What the forward pass of so many utterances keeps."""
    utterances, pictures = make_inputs(count, *case)
    kept = Kept(model)
    with torch.autocast("cpu", torch.bfloat16), kept.counting(), layers_run(recompute, False):
        model.encode_utterances(utterances)
        model.encode_images(pictures)
    return kept.num_bytes


def sizes_of(case: tuple[int, int], recompute: bool) -> Sizes:
    """Computes them."""
    with FakeTensorMode():
        model = make_model()
        model.keep_frozen_in(torch.bfloat16)
        model.train()
        two, four = (kept_of(model, count, case, recompute) for count in (2, 4))
        full = sum(4 * p.numel() for p in model.parameters())
        half = sum(two.nbytes for _, _, two in model._frozen)
        # A gradient and Adam's two averages.
        trained = 12 * sum(p.numel() for p in model.trained_parameters().values())
    num_tokens, num_states = case
    given = 8 * num_tokens + 2 * STATE_WIDTH * num_states + 3 * SIDE**2
    return Sizes((four - two) / 2, given, full + half + trained)


def main() -> None:
    """Computes what fits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--card", type=float, default=24, help="memory in 1e9 bytes")
    parser.add_argument("--batch", type=int, default=1024, help="of one GPU")
    parser.add_argument("--reserve", type=float, default=3, help="in 1e9 bytes")
    arguments = parser.parse_args()
    for name, case in CASES.items():
        for recompute in (False, True):
            sizes = sizes_of(case, recompute)
            fixed = sizes.fixed + arguments.batch * sizes.given + arguments.reserve * GB
            room = arguments.card * GB - fixed
            fits = [
                2**n for n in range(20) if 2**n * sizes.kept <= room and 2**n <= arguments.batch
            ]
            row = {
                "case": name,
                "train_recompute": recompute,
                "kept_mb_per_utterance": round(sizes.kept / 1e6, 1),
                "fixed_gb": round(fixed / GB, 1),
                "whole_batch_gb": round((fixed + arguments.batch * sizes.kept) / GB, 1),
                "largest_part": max(fits, default=0),
            }
            if arguments.json:
                print(json.dumps(row), flush=True)
            else:
                print("   ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
