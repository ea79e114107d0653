"""Checkpoints of Whisper in the formats of others, brought into openai-whisper's.

A folder in transformers' format has `config.json`, the weights as `model.safetensors` or as several
files that `model.safetensors.index.json` lists, and mostly `generation_config.json` and
`vocab.json` (https://huggingface.co/docs/transformers/model_doc/whisper). Both formats hold the
same tensors under other names. Distilled models have fewer layers of the decoder, and nothing else.

A folder in CTranslate2's format, faster-whisper's, has `config.json` and `model.bin`; see
`whisper_ctranslate2`.

openai-whisper's file is a dictionary of `dims` and `model_state_dict`; ours has `alignment_heads`
too, (layer, head) of the decoder, where they are known: word times are read from them.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brewline.core.errors import BrewlineError
from brewline.models.weight_files import weights_among
from brewline.models.whisper_ctranslate2 import MODEL, read_ctranslate2

CONFIG = "config.json"
_GENERATION = "generation_config.json"
_VOCABULARIES = ("vocab.json", "tokenizer.json")
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")

# Sizes of the vocabularies that Whisper has: for English, for 99 languages, and for 100.
_NUM_TOKENS = (51864, 51865, 51866)
# Above this share of tokens that are others, it is another vocabulary.
_MAX_OTHER_TOKENS = 0.01

# openai-whisper's name of a size, and transformers'.
_DIMENSIONS = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}
# Parts of a tensor's name: transformers', and openai-whisper's. The first that fits a part counts.
_PARTS = {
    "layers": "blocks",
    "self_attn": "attn",
    "encoder_attn": "cross_attn",
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "final_layer_norm": "mlp_ln",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "out",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
}
# Whole names, where a tensor lies outside the layers.
_OUTSIDE = {
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "encoder.layer_norm.weight": "encoder.ln_post.weight",
    "encoder.layer_norm.bias": "encoder.ln_post.bias",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
    "decoder.embed_tokens.weight": "decoder.token_embedding.weight",
    "decoder.layer_norm.weight": "decoder.ln.weight",
    "decoder.layer_norm.bias": "decoder.ln.bias",
}
# What gives the scores of tokens: in Whisper the embedding of tokens again.
_PROJECTION = "proj_out.weight"
_EMBEDDING = "decoder.token_embedding.weight"


def files_of_model(names: Collection[str], where: str) -> list[str]:
    """Of the files of a folder or of a repository, those that make a model.

    Args:
        names: Of all the files.
        where: What an error calls their place.

    Raises:
        BrewlineError: there is no whole model in safetensors.
    """
    shards = sorted(filter(_SHARD.fullmatch, names))
    weights = weights_among(
        # An index holds nothing without its parts.
        names if shards else {*names} - {_INDEX},
        where,
        "model of transformers in safetensors, nor of CTranslate2",
        [CONFIG],
        [_WEIGHTS, _INDEX, MODEL],
        "; it is an adapter: merge it into its model, and save that"
        if "adapter_config.json" in names
        else "; save it again with transformers' `save_pretrained`",
    )
    if weights == MODEL:
        return [CONFIG, MODEL]
    beside = [name for name in (_GENERATION, *_VOCABULARIES) if name in names]
    return [CONFIG, *beside, weights, *(shards if weights == _INDEX else [])]


def convert_whisper(folder: Path, target: Path) -> None:
    """Writes a model of transformers or of CTranslate2 as a checkpoint of openai-whisper.

    Tensors keep their type; those of 8 bits become what they stand for.

    Args:
        folder: With the files that `files_of_model` names.
        target: The file.

    Raises:
        BrewlineError: it is no Whisper, is damaged, or differs from what openai-whisper can run.
    """
    if (folder / MODEL).exists():
        dimensions, tensors = read_ctranslate2(folder / MODEL)
        _refuse_other_size(MODEL, dimensions["n_vocab"])
        listed = folder / CONFIG
    else:
        dimensions, tensors = _dimensions(_read_config(folder / CONFIG)), dict(_tensors(folder))
        _refuse_other_vocabulary(folder, dimensions["n_vocab"])
        listed = folder / _GENERATION
    expected = _expected(dimensions)
    found = _tied(tensors)
    _check_tensors(found, expected)
    checkpoint: dict[str, Any] = {
        "dims": dimensions,
        "model_state_dict": {name: found[name] for name in expected},
    }
    heads = _alignment_heads(listed, dimensions)
    torch.save(checkpoint | ({"alignment_heads": heads} if heads else {}), target)


def _expected(dimensions: Mapping[str, int]) -> dict[str, Tensor]:
    """The tensors of such a model of openai-whisper, without their numbers."""
    from whisper.model import AudioEncoder, TextDecoder

    sizes = [*dimensions.values()]
    # They take their sizes in the order of the dimensions.
    with torch.device("meta"):
        parts = {"encoder": AudioEncoder(*sizes[:5]), "decoder": TextDecoder(*sizes[5:])}
    return dict(nn.ModuleDict(parts).state_dict())


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BrewlineError(f"{path.name} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise BrewlineError(f"{path.name} is no JSON object")
    return config


def _dimensions(config: Mapping[str, Any]) -> dict[str, int]:
    if config.get("model_type") != "whisper":
        raise BrewlineError(
            f"{CONFIG}: model_type is {config.get('model_type')!r}, not 'whisper'", "settings"
        )
    sizes = {ours: config.get(theirs) for ours, theirs in _DIMENSIONS.items()}
    for ours, size in sizes.items():
        if type(size) is not int or size < 1:
            raise BrewlineError(f"{CONFIG}: {_DIMENSIONS[ours]} is {size!r}, not a size")
    found: dict[str, int] = {name: int(size) for name, size in sizes.items() if size is not None}
    width = found["n_audio_state"]
    fixed = {
        "activation_function": "gelu",
        "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
        "scale_embedding": False,
    }
    for name, value in fixed.items():
        if config.get(name, value) != value:
            raise BrewlineError(
                f"{CONFIG}: {name} is {config[name]!r}; openai-whisper can run {value!r} only",
                "settings",
            )
    _refuse_other_size(CONFIG, found["n_vocab"])
    return found


def _refuse_other_size(where: str, num_tokens: int) -> None:
    if num_tokens not in _NUM_TOKENS:
        raise BrewlineError(
            f"{where}: vocab_size is {num_tokens}: the model has another vocabulary than "
            f"Whisper, whose tokenizers have {', '.join(map(str, _NUM_TOKENS))} tokens",
            "settings",
        )


def _refuse_other_vocabulary(folder: Path, num_tokens: int) -> None:
    """One that was trained anew may be as large as Whisper's, and stands for other texts."""
    from whisper.tokenizer import get_encoding

    for name in _VOCABULARIES:
        if not (folder / name).exists():
            continue
        known: Any = _read_config(folder / name)
        if name != "vocab.json":
            model = known.get("model")
            known = model.get("vocab") if isinstance(model, dict) else None
        # Not all kinds of tokenizers have one to look at.
        if not isinstance(known, dict):
            continue
        letters = _letters_of_bytes()
        encoding = get_encoding("gpt2" if num_tokens == _NUM_TOKENS[0] else "multilingual")
        others = sum(
            known.get("".join(letters[byte] for byte in token)) != number
            for number in range(encoding.eot_token)
            for token in [encoding.decode_single_token_bytes(number)]
        )
        if others > _MAX_OTHER_TOKENS * encoding.eot_token:
            raise BrewlineError(
                f"{name}: {others:,} of {encoding.eot_token:,} tokens are not those of Whisper; a "
                "model with another vocabulary cannot be read",
                "settings",
            )
        return


def _letters_of_bytes() -> list[str]:
    """How the byte-level vocabularies of GPT-2 write each byte: as itself, where that can be seen,
    and the others in turn as letters from U+0100 on.
    """
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return [chr(byte if byte in seen else next(hidden)) for byte in range(256)]


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """All tensors, by the names of openai-whisper."""
    from safetensors import SafetensorError, safe_open

    names = [_WEIGHTS]
    if not (folder / _WEIGHTS).exists():
        listed = _read_config(folder / _INDEX).get("weight_map")
        parts: list[Any] = [*listed.values()] if isinstance(listed, dict) else [None]
        if not all(isinstance(part, str) and _SHARD.fullmatch(part) for part in parts):
            raise BrewlineError(f"{_INDEX} does not say which files hold the weights")
        names = sorted(set(parts))
    for name in names:
        if not (folder / name).is_file():
            raise BrewlineError(f"{_INDEX} lists {name}, which is missing")
        try:
            with safe_open(folder / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - it is no dictionary
                    yield _name(key), file.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise BrewlineError(f"{name} is not a whole safetensors file: {error}") from None


def _name(theirs: str) -> str:
    """The name that openai-whisper has for a tensor of transformers."""
    name = theirs.removeprefix("model.")
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    return ".".join(_PARTS.get(part, part) for part in name.split("."))


def _tied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Takes scores of tokens for their embedding, which they are in Whisper."""
    projection = tensors.pop(_PROJECTION, None)
    if projection is None:
        return tensors
    embedding = tensors.setdefault(_EMBEDDING, projection)
    if not torch.equal(embedding, projection):
        raise BrewlineError(
            f"{_PROJECTION} is not the embedding of the tokens, which openai-whisper takes for it",
            "settings",
        )
    return tensors


def _check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name in sorted(found.keys() ^ expected.keys()):
        what = "lacks" if name in expected else "has, beside those of Whisper,"
        raise BrewlineError(f"the model {what} the tensor {name} (as openai-whisper calls it)")
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape or not tensor.is_floating_point():
            raise BrewlineError(
                f"the tensor {name} (as openai-whisper calls it) is {tuple(tensor.shape)} of "
                f"{tensor.dtype}, not numbers of {tuple(expected[name].shape)}"
            )


def _alignment_heads(path: Path, dimensions: Mapping[str, int]) -> list[list[int]]:
    """Those of the model; a distilled one may name heads of layers that it has no more."""
    listed = (_read_config(path).get("alignment_heads") if path.exists() else None) or []
    sizes = (dimensions["n_text_layer"], dimensions["n_text_head"])
    try:
        pairs = [(int(layer), int(head)) for layer, head in listed]
    except (TypeError, ValueError):
        raise BrewlineError(f"{path.name}: alignment_heads are no pairs of numbers") from None
    return [[*pair] for pair in pairs if all(0 <= a < b for a, b in zip(pair, sizes, strict=True))]
