"""The whole model written down once more, slowly, from the papers and the authors' layout.

In double precision, one utterance, one picture, one head, one row of a batch at a time. It shares
no code with the library: nothing but the model's tensors and their names, and the tokeniser and the
preprocessing that belong to the CLIP.
"""

import io
import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from brewline.config.recipes import SameImage
from brewline.models.backbones import ClipBackbone
from brewline.models.brewclip import BrewClip
from brewline.samples.utterance import Utterance

START, END = 49406, 49407
# What is added to the attention of the row that the embedding is read from: (tower, head, key, how
# much).
Bump = tuple[str, int, int, float] | None


class SlowModel:
    """A model, from a recording's texts and states and a picture's bytes to loss and gradients.

    `trained` are its own copies of what is trained, by name, which get the gradients.
    """

    def __init__(self, backbone: ClipBackbone, model: BrewClip) -> None:
        self.tokenizer: Any = backbone.tokenizer
        self.preprocess = backbone.preprocess
        self.switches = model.switches
        self.tensors = {name: one.detach().double() for name, one in model.state_dict().items()}
        names = model.trained_parameters()
        self.trained = {name: self.tensors[name].requires_grad_() for name in names}
        clip: Any = backbone.clip
        self.num_heads = {
            "text": clip.transformer.resblocks[0].attn.num_heads,
            "image": clip.visual.transformer.resblocks[0].attn.num_heads,
        }
        # What the row in question attends to in the layer that maps are made of, by tower: a list
        # of (L,), one for each head.
        self.weights: dict[str, list[Tensor]] = {}

    def similarity(self, utterance: Utterance, bump: Bump = None) -> float:
        """The cosine of an utterance and its picture."""
        return float(unit(self.utterance(utterance, bump)) @ unit(self.image(utterance, bump)))

    def utterance(self, utterance: Utterance, bump: Bump = None) -> Tensor:
        """What becomes of the channels."""
        return self.fused(self.channels(utterance, bump), utterance.confidence)

    def fused(self, channels: dict[str, Tensor], confidence: float) -> Tensor:
        if len(channels) == 1 or self.switches.fusion == "sum":
            return torch.stack(list(channels.values())).sum(dim=0)
        weight = torch.tensor(0.5).double()
        if self.switches.fusion == "gate":
            line = self.tensors["gate.slope"] * confidence + self.tensors["gate.offset"]
            weight = 1 / (1 + (-line).exp())
        return weight * unit(channels["text"]) + (1 - weight) * unit(channels["acoustic"])

    def channels(self, utterance: Utterance, bump: Bump = None) -> dict[str, Tensor]:
        """F_T and F_A, as far as the model has them."""
        found = {}
        if self.switches.text is not None:
            heard = self.switches.text == "asr"
            found["text"] = self.text(utterance.transcript if heard else utterance.caption, bump)
        if self.switches.acoustic is not None:
            found["acoustic"] = self.acoustic(utterance, bump)
        return found

    def text(self, text: str, bump: Bump = None) -> Tensor:
        """Its beginning, or the mean of windows that are spaced evenly."""
        words = self.tokenizer.encode(text)
        room = len(self.tensors["clip.positional_embedding"]) - self.switches.prompts - 2
        if self.switches.long_texts == "truncate" or len(words) <= room:
            return self.window(words[:room], bump)
        beyond, overlap = len(words) - room, math.ceil(room / 4)
        more = math.ceil(beyond / (room - overlap))
        starts = [round(number * beyond / more) for number in range(more + 1)]
        rows = [self.window(words[start : start + room], bump) for start in starts]
        return torch.stack(rows).mean(dim=0)

    def window(self, words: list[int], bump: Bump = None) -> Tensor:
        """Start, prompts, words, end: with a place each, and each sees those before it."""
        positions = self.tensors["clip.positional_embedding"]
        embeddings = self.tensors["clip.token_embedding.weight"]
        rows = [embeddings[START], *self.prompts(), *embeddings[[*words, END]]]
        x = torch.stack(rows) + positions[: len(rows)]
        x = self.tower(x, "clip.transformer", "text", len(rows) - 1, bump)
        return self.norm(x[-1], "clip.ln_final") @ self.tensors["clip.text_projection"]

    def image(self, utterance: Utterance, bump: Bump = None) -> Tensor:
        """Class token and patches with a place each, and the projected prompts without one."""
        assert utterance.image is not None
        pixels = self.preprocess(Image.open(io.BytesIO(utterance.image))).double()
        kernel = self.tensors["clip.visual.conv1.weight"]
        size = kernel.shape[-1]
        rows = [self.tensors["clip.visual.class_embedding"]]
        for top in range(0, pixels.shape[1], size):
            for left in range(0, pixels.shape[2], size):
                patch = pixels[:, top : top + size, left : left + size]
                rows.append((kernel * patch).sum(dim=(1, 2, 3)))
        x = torch.stack(rows) + self.tensors["clip.visual.positional_embedding"]
        x = torch.cat([x, *(one[None] for one in self.image_prompts(0))])
        x = self.norm(x, "clip.visual.ln_pre")
        x = self.tower(x, "clip.visual.transformer", "image", 0, bump)
        return self.norm(x[0], "clip.visual.ln_post") @ self.tensors["clip.visual.proj"]

    def acoustic(self, utterance: Utterance, bump: Bump = None) -> Tensor:
        """Class token, prompts and frames, none with a place, through post-norm layers."""
        params = self.switches.acoustic
        assert params is not None and utterance.states is not None
        states = torch.from_numpy(utterance.states).double()
        if params.hears_layers:
            frames = [self.mixed(layers) for layers in states]
        else:
            groups = states[: utterance.num_frames].split(params.pool_frames)
            frames = [group.mean(dim=0) for group in groups]
        if params.branch == "cascaded":
            return self.cascaded(frames, bump)
        if params.branch == "brewclip":
            frames = [self.linear(frame, "acoustic.project_in") for frame in frames]
        x = torch.stack([self.tensors["acoustic.class_token"], *self.prompts(), *frames])
        for number in range(params.layers):
            name = f"acoustic.layers.{number}"
            tower = "sound" if number == params.layers - 1 else ""
            mixed = self.attend(x, f"{name}.self_attn", params.heads, 0, tower, bump, causal=False)
            x = self.norm(x + mixed, f"{name}.norm1")
            hidden = torch.nn.functional.gelu(self.linear(x, f"{name}.linear1"))
            x = self.norm(x + self.linear(hidden, f"{name}.linear2"), f"{name}.norm2")
        return self.linear(self.norm(x[0], "acoustic.norm"), "acoustic.project_out")

    def mixed(self, layers: Tensor) -> Tensor:
        """The layers of a frame (L, S) as one."""
        params = self.switches.acoustic
        assert params is not None
        if params.normalise_layers:
            layers = torch.stack([standard(layer) for layer in layers])
        weights = torch.ones(len(layers)).double()
        if params.learn_layers:
            weights = self.tensors["layer_mix.weights"].exp()
        return (weights / weights.sum()) @ layers

    def cascaded(self, frames: list[Tensor], bump: Bump) -> Tensor:
        """Each keyword is the nearest word, and learns as if it were a mixture of all."""
        params, classes = self.switches.acoustic, self.tensors["acoustic.class_tokens"]
        assert params is not None
        x = torch.cat([classes, torch.stack(frames)])
        name = "acoustic.last_attention"
        mixed = self.attend(x, name, params.heads, 0, "sound", bump, causal=False)
        embeddings = self.tensors["clip.token_embedding.weight"]
        words = embeddings[self.tensors["acoustic.vocabulary"].long()]
        said = []
        for number, token in enumerate(classes):
            keyword = self.linear(
                self.norm(token + mixed[number], "acoustic.norm"), "acoustic.project_out"
            )
            keyword = standard(keyword) * self.tensors["acoustic.scale"][number]
            keyword = unit(keyword + self.tensors["acoustic.offset"][number])
            near = torch.stack([keyword @ unit(word) for word in words])
            mixture = (near / 0.1).softmax(dim=0) @ words
            said.append(words[near.argmax()] + mixture - mixture.detach())
        rows = torch.stack([embeddings[START], *said, embeddings[END]])
        x = rows + self.tensors["clip.positional_embedding"][: len(rows)]
        x = self.tower(x, "clip.transformer", "text", len(rows) - 1, bump)
        return self.norm(x[-1], "clip.ln_final") @ self.tensors["clip.text_projection"]

    def prompts(self, layer: int = 0) -> list[Tensor]:
        """Those that enter before a layer."""
        if not self.switches.prompts or layer >= self.switches.prompt_depth:
            return []
        deep = f"deep_prompt_tokens.{layer - 1}"
        return list(self.tensors["prompt_tokens" if layer == 0 else deep])

    def image_prompts(self, layer: int) -> list[Tensor]:
        name = "prompts_to_image" if layer == 0 else f"deep_prompts_to_image.{layer - 1}"
        return [self.linear(one, name) for one in self.prompts(layer)]

    def tower(self, x: Tensor, name: str, tower: str, row: int, bump: Bump) -> Tensor:
        """The pre-norm layers of a tower of CLIP."""
        depth = 1 + max(
            int(one.removeprefix(f"{name}.resblocks.").split(".")[0])
            for one in self.tensors
            if one.startswith(f"{name}.resblocks.")
        )
        for number in range(depth):
            block = f"{name}.resblocks.{number}"
            if number and tower == "text" and (deep := self.prompts(number)):
                x = torch.cat([x[:1], torch.stack(deep), x[1 + len(deep) :]])
            if number and tower == "image" and (deep := self.image_prompts(number)):
                x = torch.cat([x[: -len(deep)], torch.stack(deep)])
            # Maps are made of the last layer but one.
            watched = tower if number == max(0, depth - 2) else ""
            normed, heads = self.norm(x, f"{block}.ln_1"), self.num_heads[tower]
            causal = tower == "text"
            x = x + self.attend(normed, f"{block}.attn", heads, row, watched, bump, causal)
            hidden = self.linear(self.norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
            x = x + self.linear(torch.nn.functional.gelu(hidden), f"{block}.mlp.c_proj")
        return x

    def attend(
        self, x: Tensor, name: str, num_heads: int, row: int, tower: str, bump: Bump, causal: bool
    ) -> Tensor:
        length, width = x.shape
        matrices = self.tensors[f"{name}.in_proj_weight"].chunk(3)
        biases = self.tensors[f"{name}.in_proj_bias"].chunk(3)
        queries, keys, values = (x @ m.T + b for m, b in zip(matrices, biases, strict=True))
        size = width // num_heads
        heads, of_row = [], []
        for head in range(num_heads):
            part = slice(head * size, (head + 1) * size)
            scores = queries[:, part] @ keys[:, part].T / math.sqrt(size)
            if causal:
                hidden = torch.ones(length, length).triu(1).bool()
                scores = scores.masked_fill(hidden, -torch.inf)
            weights = scores.softmax(dim=-1)
            of_row.append(weights[row].detach().clone())
            if bump is not None and bump[:2] == (tower, head):
                weights[row, bump[2]] += bump[3]
            heads.append(weights @ values[:, part])
        if tower:
            self.weights.setdefault(tower, of_row)
        return self.linear(torch.cat(heads, dim=1), f"{name}.out_proj")

    def norm(self, x: Tensor, name: str) -> Tensor:
        deviation = (x.var(dim=-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        scaled = (x - x.mean(dim=-1, keepdim=True)) / deviation
        return scaled * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def loss(self, utterances: Sequence[Utterance], same_image: SameImage = "mask") -> Tensor:
        """Of a batch: alpha times the inner loss, and the rest times the outer one."""
        channels = [self.channels(one) for one in utterances]
        spoken = [
            unit(self.fused(one, utterance.confidence))
            for one, utterance in zip(channels, utterances, strict=True)
        ]
        seen = [unit(self.image(one)) for one in utterances]
        ids = [one.image_id for one in utterances]
        outer = self.contrast(spoken, seen, ids, same_image)
        if self.switches.alpha is None:
            return outer
        inner = self.contrast(
            [unit(one["acoustic"]) for one in channels],
            [unit(one["text"]) for one in channels],
            ids,
            same_image,
        )
        return self.switches.alpha * inner + (1 - self.switches.alpha) * outer

    def contrast(
        self,
        ones: Sequence[Tensor],
        others: Sequence[Tensor],
        ids: Sequence[str | None],
        same_image: SameImage,
    ) -> Tensor:
        """InfoNCE both ways, over what rows of the same picture leave in the sum."""
        scale = self.tensors["log_logit_scale"].exp()
        terms = []
        for left, right in ((ones, others), (others, ones)):
            for place, mine in enumerate(left):
                logits = {
                    other: scale * (mine @ theirs)
                    for other, theirs in enumerate(right)
                    if same_image != "mask" or other == place or ids[other] != ids[place]
                }
                rights = [
                    logit
                    for other, logit in logits.items()
                    if other == place
                    or (same_image == "multi_positive" and ids[other] == ids[place])
                ]
                total = torch.stack(list(logits.values())).exp().sum().log()
                terms.append(total - torch.stack(rights).mean())
        return torch.stack(terms).mean()


def standard(vector: Tensor) -> Tensor:
    return (vector - vector.mean()) / (vector.var(unbiased=False) + 1e-5).sqrt()


def unit(vector: Tensor) -> Tensor:
    return vector / vector.square().sum().sqrt()
