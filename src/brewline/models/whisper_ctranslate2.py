"""Checkpoints of Whisper in CTranslate2's format, as faster-whisper's are published.

`model.bin` (`ctranslate2.specs.model_spec`, binary version 6) is a list of arrays with their names:
those of openai-whisper, but that layers with the same input are stacked, and keys have a bias,
which changes no attention. Arrays of whole numbers come with what they were multiplied by: a number
for each row, or one for all.
"""

import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from brewline.core.errors import BrewlineError

MODEL = "model.bin"
_VERSION = 6
# In the order of their numbers.
_TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)

# The projections that are stacked in a layer's array, and the other arrays of a layer.
_STACKED = {
    "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
    "self_attention/linear_1": ("attn.out",),
    "attention/linear_0": ("cross_attn.query",),
    "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
    "attention/linear_2": ("cross_attn.out",),
    "ffn/linear_0": ("mlp.0",),
    "ffn/linear_1": ("mlp.2",),
    "self_attention/layer_norm": ("attn_ln",),
    "attention/layer_norm": ("cross_attn_ln",),
    "ffn/layer_norm": ("mlp_ln",),
}
_ENDS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
_OUTSIDE = {
    "encoder/conv1/weight": "encoder.conv1.weight",
    "encoder/conv1/bias": "encoder.conv1.bias",
    "encoder/conv2/weight": "encoder.conv2.weight",
    "encoder/conv2/bias": "encoder.conv2.bias",
    "encoder/position_encodings/encodings": "encoder.positional_embedding",
    "encoder/layer_norm/gamma": "encoder.ln_post.weight",
    "encoder/layer_norm/beta": "encoder.ln_post.bias",
    "decoder/embeddings/weight": "decoder.token_embedding.weight",
    "decoder/position_encodings/encodings": "decoder.positional_embedding",
    "decoder/layer_norm/gamma": "decoder.ln.weight",
    "decoder/layer_norm/beta": "decoder.ln.bias",
    "decoder/projection/weight": "proj_out.weight",
}
_IN_LAYER = re.compile(r"(encoder|decoder)/layer_(\d+)/(.+)/(\w+)")


def read_ctranslate2(path: Path) -> tuple[dict[str, int], dict[str, Tensor]]:
    """Reads a `model.bin`.

    Returns:
        The dimensions and the tensors of the model, by the names of openai-whisper; scores of
        tokens, where they are by themselves, as `proj_out.weight`.

    Raises:
        BrewlineError: the file is damaged, or no Whisper.
    """
    try:
        arrays = _arrays(path)
        found = {name: tensor for key in arrays for name, tensor in _renamed(key, arrays)}
        return _dimensions(arrays), found
    except (struct.error, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise BrewlineError(f"{path.name} is not a whole Whisper of CTranslate2: {error}") from None


def _arrays(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:

        def number(form: str) -> int:
            return int(struct.unpack(f"<{form}", file.read(struct.calcsize(form)))[0])

        version, name, _revision = number("I"), _text(file, number), number("I")
        if (version, name) != (_VERSION, "WhisperSpec"):
            raise ValueError(f"it holds {name!r} in version {version}")
        arrays = {}
        for _ in range(number("I")):
            key = _text(file, number)
            shape = [number("I") for _ in range(number("B"))]
            kind, size = _TYPES[number("B")], number("I")
            content = file.read(size)
            if len(content) < size:
                raise ValueError(f"{key} is cut")
            arrays[key] = torch.frombuffer(bytearray(content), dtype=kind).view(shape)
        for _ in range(number("I")):
            alias, key = _text(file, number), _text(file, number)
            arrays[alias] = arrays[key]
            if f"{key}_scale" in arrays:
                arrays[f"{alias}_scale"] = arrays[f"{key}_scale"]
    return arrays


def _text(file: IO[bytes], number: Callable[[str], int]) -> str:
    return file.read(number("H")).rstrip(b"\0").decode()


def _renamed(key: str, arrays: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    tensor = arrays[key]
    scale = arrays.get(f"{key}_scale")
    if scale is not None:
        tensor = tensor.float() / scale.view(-1, *[1] * (tensor.ndim - 1))
    if key in _OUTSIDE:
        yield _OUTSIDE[key], tensor
    match = _IN_LAYER.fullmatch(key)
    if match is None or match[3] not in _STACKED or match[4] not in _ENDS:
        return
    side, layer, part, end = match.groups()
    names = _STACKED[part]
    for name, piece in zip(names, tensor.chunk(len(names)), strict=True):
        if not (name.endswith(".key") and end == "bias"):
            # Copied, so that it is not stored with all that it was stacked with.
            yield f"{side}.blocks.{layer}.{name}.{_ENDS[end]}", piece.clone()


def _dimensions(arrays: dict[str, Tensor]) -> dict[str, int]:
    def num_layers(side: str) -> int:
        return len(
            {match[2] for match in map(_IN_LAYER.fullmatch, arrays) if match and match[1] == side}
        )

    width, n_mels, _ = arrays["encoder/conv1/weight"].shape
    n_vocab, text_width = arrays["decoder/embeddings/weight"].shape
    return {
        "n_mels": n_mels,
        "n_audio_ctx": len(arrays["encoder/position_encodings/encodings"]),
        "n_audio_state": width,
        "n_audio_head": int(arrays["encoder/num_heads"]),
        "n_audio_layer": num_layers("encoder"),
        "n_vocab": n_vocab,
        "n_text_ctx": len(arrays["decoder/position_encodings/encodings"]),
        "n_text_state": text_width,
        "n_text_head": int(arrays["decoder/num_heads"]),
        "n_text_layer": num_layers("decoder"),
    }
