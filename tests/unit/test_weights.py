"""Published weights are used with the architecture that they were trained in, or not at all."""

import copy
import re
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import whisper
import world
from huggingface_hub import HfApi
from safetensors.torch import save_file
from whisper.model import ModelDimensions
from whisper.tokenizer import get_encoding

from brewline.config.backbones import BackboneParams, BackbonesParams
from brewline.core.errors import BrewlineError
from brewline.core.files import sha256_tree, write_json
from brewline.download import hub
from brewline.download.version import Version
from brewline.models import clip_format, weights
from brewline.models.whisper_formats import files_of_model
from brewline.speech.faster_whisper import convert
from brewline.speech.tokenizer import tokenizer_for
from brewline.speech.whisper_checkpoint import load_whisper, read_dimensions


def test_weights_that_are_there_are_not_fetched_again(tmp_path: Path) -> None:
    """A variant that changed makes the stage stale, and its check is all that has to be done."""
    world.make_whisper(tmp_path / "whisper.pt")
    world.make_clip(tmp_path / "clip")
    asked = BackbonesParams.model_validate(
        {
            role: {"name": role, "source": str(tmp_path / source), "sha256": None}
            for role, source in (("whisper", "whisper.pt"), ("clip", "clip"))
        }
    )
    folder = tmp_path / "backbones"
    assert not weights.are_prepared(asked, folder)
    weights.prepare_backbones(asked, folder)
    assert weights.are_prepared(asked, folder)
    assert str(tmp_path) not in (folder / "sources.json").read_text()
    other = asked.whisper.model_copy(update={"source": "elsewhere.pt"})
    assert not weights.are_prepared(asked.model_copy(update={"whisper": other}), folder)
    (folder / "whisper.pt").write_bytes(b"damaged")
    assert not weights.are_prepared(asked, folder)


# Whisper in transformers' format


def whisper_model(num_tokens: int = 51865, text_layers: int = 2) -> whisper.Whisper:
    """A tiny model of openai-whisper with random weights."""
    torch.manual_seed(0)
    dims = ModelDimensions(80, 20, 16, 2, 3, num_tokens, 24, 16, 2, text_layers)
    model = whisper.Whisper(dims)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.requires_grad_(False).eval()


# In the words of transformers' own converter, the other way round, tensor by tensor.
BLOCK = {
    "attn.query": "self_attn.q_proj",
    "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "attn_ln": "self_attn_layer_norm",
    "cross_attn.query": "encoder_attn.q_proj",
    "cross_attn.key": "encoder_attn.k_proj",
    "cross_attn.value": "encoder_attn.v_proj",
    "cross_attn.out": "encoder_attn.out_proj",
    "cross_attn_ln": "encoder_attn_layer_norm",
    "mlp_ln": "final_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
}
TOP = {
    "encoder.conv1.": "encoder.conv1.",
    "encoder.conv2.": "encoder.conv2.",
    "encoder.positional_embedding": "encoder.embed_positions.weight",
    "encoder.ln_post.": "encoder.layer_norm.",
    "decoder.token_embedding.": "decoder.embed_tokens.",
    "decoder.positional_embedding": "decoder.embed_positions.weight",
    "decoder.ln.": "decoder.layer_norm.",
}


def as_transformers(model: whisper.Whisper) -> dict[str, torch.Tensor]:
    """Its tensors as `WhisperModel` calls them."""
    found = {}
    for name, tensor in model.state_dict().items():
        block = re.fullmatch(r"(encoder|decoder)\.blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        if block:
            part, number, middle, end = block.groups()
            found[f"{part}.layers.{number}.{BLOCK[middle]}.{end}"] = tensor
            continue
        (old,) = [old for old in TOP if name.startswith(old)]
        found[name.replace(old, TOP[old])] = tensor
    return found


def transformers_config(model: whisper.Whisper, **changes: Any) -> dict[str, Any]:
    dims = model.dims
    return {
        "model_type": "whisper",
        "activation_function": "gelu",
        "scale_embedding": False,
        "num_mel_bins": dims.n_mels,
        "max_source_positions": dims.n_audio_ctx,
        "max_target_positions": dims.n_text_ctx,
        "d_model": dims.n_audio_state,
        "encoder_ffn_dim": 4 * dims.n_audio_state,
        "decoder_ffn_dim": 4 * dims.n_audio_state,
        "encoder_attention_heads": dims.n_audio_head,
        "encoder_layers": dims.n_audio_layer,
        "decoder_attention_heads": dims.n_text_head,
        "decoder_layers": dims.n_text_layer,
        "vocab_size": dims.n_vocab,
    } | changes


def save_transformers(
    folder: Path,
    model: whisper.Whisper,
    prefix: str = "model.",
    parts: int = 1,
    extra: dict[str, torch.Tensor] | None = None,
    **changes: Any,
) -> Path:
    """A folder as transformers' `save_pretrained` writes it."""
    folder.mkdir()
    write_json(folder / "config.json", transformers_config(model, **changes))
    tensors = {f"{prefix}{name}": t.contiguous() for name, t in as_transformers(model).items()}
    tensors |= extra or {}
    names = sorted(tensors)
    if parts == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    weight_map = {}
    for number in range(parts):
        file = f"model-{number + 1:05d}-of-{parts:05d}.safetensors"
        some = names[number::parts]
        save_file({name: tensors[name] for name in some}, folder / file)
        weight_map |= dict.fromkeys(some, file)
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    return folder


def prepared(tmp_path: Path, source: str, sha256: str | None = None) -> Path:
    """What stage `weights` makes of a source of Whisper."""
    target = tmp_path / "backbones/whisper.pt"
    target.parent.mkdir(exist_ok=True)
    weights._prepare_whisper(BackboneParams(name="w", source=source, sha256=sha256), target)
    assert [path.name for path in target.parent.iterdir()] == ["whisper.pt"]
    return target


@pytest.mark.parametrize(
    ("changes", "num_tokens"),
    [
        ({}, 51865),
        ({"prefix": ""}, 51866),
        ({"parts": 3}, 51864),
    ],
)
@pytest.mark.parametrize("text_layers", [1, 3])
def test_a_model_of_transformers_gives_what_it_gave(
    tmp_path: Path, changes: dict[str, Any], num_tokens: int, text_layers: int
) -> None:
    model = whisper_model(num_tokens, text_layers)
    folder = save_transformers(tmp_path / "theirs", model, **changes)
    ours = load_whisper(prepared(tmp_path, str(folder)), torch.device("cpu"))
    assert ours.dims == model.dims
    mel = torch.randn(2, 80, 40, generator=torch.Generator().manual_seed(1))
    tokens = torch.tensor([[50258, 50259, 5, 7], [50258, 50260, 9, 11]])
    states = model.encoder(mel)
    assert torch.equal(ours.encoder(mel), states)
    assert torch.equal(ours.decoder(tokens, states), model.decoder(tokens, states))
    assert read_dimensions(tmp_path / "backbones/whisper.pt") == model.dims


def test_scores_by_the_embedding_may_be_written_out(tmp_path: Path) -> None:
    model = whisper_model()
    tied = {"proj_out.weight": model.decoder.token_embedding.weight.clone()}
    folder = save_transformers(tmp_path / "tied", model, extra=tied)
    prepared(tmp_path, str(folder))
    other = {"proj_out.weight": model.decoder.token_embedding.weight + 1}
    folder = save_transformers(tmp_path / "other", model, extra=other)
    with pytest.raises(BrewlineError, match=r"proj_out\.weight is not the embedding of the tokens"):
        prepared(tmp_path, str(folder))


def test_half_precision_stays(tmp_path: Path) -> None:
    model = whisper_model().half()
    folder = save_transformers(tmp_path / "half", model)
    stored = torch.load(prepared(tmp_path, str(folder)), weights_only=True)["model_state_dict"]
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


def test_alignment_heads_come_along(tmp_path: Path) -> None:
    model = whisper_model(text_layers=2)
    folder = save_transformers(tmp_path / "heads", model)
    # The last one is of a layer that a distilled model has no more.
    write_json(folder / "generation_config.json", {"alignment_heads": [[0, 1], [1, 0], [7, 0]]})
    ours = load_whisper(prepared(tmp_path, str(folder)), torch.device("cpu"))
    assert ours.alignment_heads.to_dense().tolist() == [[False, True], [True, False]]
    write_json(folder / "generation_config.json", {"alignment_heads": [7, "x"]})
    with pytest.raises(
        BrewlineError, match=r"generation_config\.json: alignment_heads are no pairs"
    ):
        prepared(tmp_path, str(folder))


def test_equal_folders_give_equal_bytes_and_their_hash_is_checked(tmp_path: Path) -> None:
    folder = save_transformers(tmp_path / "theirs", whisper_model())
    digest = sha256_tree(folder)
    # What is not read does not count.
    (folder / "README.md").write_text("x")
    first = prepared(tmp_path, str(folder), digest).read_bytes()
    assert prepared(tmp_path, str(folder), digest).read_bytes() == first
    with pytest.raises(BrewlineError, match="expected SHA-256 0000"):
        prepared(tmp_path, str(folder), "0" * 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bart"}, "model_type is 'bart', not 'whisper'"),
        ({"vocab_size": 51900}, "vocab_size is 51900: the model has another vocabulary"),
        ({"activation_function": "relu"}, "activation_function is 'relu'; openai-whisper can run"),
        ({"encoder_ffn_dim": 32}, "encoder_ffn_dim is 32"),
        ({"scale_embedding": True}, "scale_embedding is True"),
        ({"encoder_layers": "3"}, "encoder_layers is '3', not a size"),
        ({"encoder_layers": 4}, "lacks the tensor encoder.blocks.3"),
        ({"decoder_layers": 1}, "has, beside those of Whisper, the tensor decoder.blocks.1"),
        ({"max_target_positions": 25}, "decoder.positional_embedding .* not numbers of \\(25, 16"),
    ],
)
def test_what_openai_whisper_cannot_run_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = save_transformers(tmp_path / "theirs", whisper_model(), **changes)
    with pytest.raises(BrewlineError, match=f"theirs: .*{message}"):
        prepared(tmp_path, str(folder))


def test_damaged_and_partial_folders_are_one_sentence(tmp_path: Path) -> None:
    folder = save_transformers(tmp_path / "theirs", whisper_model(), parts=2)
    source = str(folder)
    whole = (folder / "model-00002-of-00002.safetensors").read_bytes()
    (folder / "model-00002-of-00002.safetensors").write_bytes(whole[:5000])
    with pytest.raises(BrewlineError, match=r"model-00002-of-00002\.safetensors is not a whole"):
        prepared(tmp_path, source)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        BrewlineError, match=r"lists model-00002-of-00002\.safetensors, which is mis"
    ):
        prepared(tmp_path, source)
    for listed in (["x"], {"x": 3}, {"x": "../secret.safetensors"}):
        write_json(folder / "model.safetensors.index.json", {"weight_map": listed})
        with pytest.raises(BrewlineError, match=r"index\.json does not say which files hold"):
            prepared(tmp_path, source)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(BrewlineError, match=r"has no model\.safetensors or .*; save it again with"):
        prepared(tmp_path, source)
    (folder / "config.json").write_text("{")
    (folder / "model.safetensors").write_bytes(whole)
    with pytest.raises(BrewlineError, match=r"config\.json cannot be read"):
        prepared(tmp_path, source)
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").touch()
    with pytest.raises(BrewlineError, match=r"no config\.json; it is an adapter: merge it"):
        prepared(tmp_path, source)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # A whole file before its parts, and before what is CTranslate2's; an index with its parts.
        ("config vocab part index whole other", "config vocab whole"),
        ("config vocab part index other", "config vocab index part"),
        ("config vocab index other", "config other"),
        ("config part other", "config other"),
    ],
)
def test_which_files_hold_the_weights(names: str, expected: str) -> None:
    files = {
        "config": "config.json",
        "vocab": "vocab.json",
        "part": "model-00001-of-00001.safetensors",
        "index": "model.safetensors.index.json",
        "whole": "model.safetensors",
        "other": "model.bin",
    }
    found = files_of_model([files[name] for name in names.split()], "theirs")
    assert found == [files[name] for name in expected.split()]


# Whisper in CTranslate2's format


def save_ctranslate2(folder: Path, model: whisper.Whisper, compute_type: str) -> Path:
    """A folder as CTranslate2's own library writes it."""
    pytest.importorskip("ctranslate2")
    folder.mkdir()
    # The library quantises in place.
    convert(copy.deepcopy(model), tokenizer_for(model.dims, "en"), folder, compute_type)
    return folder


@pytest.mark.parametrize(
    ("compute_type", "tolerance"),
    [("float32", 0.0), ("float16", 2e-3), ("int16", 2e-3), ("int8", 1e-2)],
)
def test_a_model_of_ctranslate2_gives_what_it_gave(
    tmp_path: Path, compute_type: str, tolerance: float
) -> None:
    model = whisper_model(51866, text_layers=3)
    heads = torch.zeros(3, 2, dtype=torch.bool)
    heads[2, 1] = True
    model.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    folder = save_ctranslate2(tmp_path / "theirs", model, compute_type)
    path = prepared(tmp_path, str(folder))
    ours = load_whisper(path, torch.device("cpu"))
    assert ours.dims == model.dims
    assert torch.equal(ours.alignment_heads.to_dense(), heads)
    mine, theirs = ours.state_dict(), model.state_dict()
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor, atol=tolerance, rtol=0)
    # Nothing is stored twice.
    assert path.stat().st_size < 1.1 * sum(4 * tensor.numel() for tensor in theirs.values())


def test_damaged_files_of_ctranslate2_are_one_sentence(tmp_path: Path) -> None:
    folder = save_ctranslate2(tmp_path / "theirs", whisper_model(), "float32")
    content = (folder / "model.bin").read_bytes()
    for cut in (0, 3, 30, 5_000, len(content) // 2, len(content) - 3):
        (folder / "model.bin").write_bytes(content[:cut])
        with pytest.raises(BrewlineError, match=r"model\.bin is not a whole Whisper of CTransl"):
            prepared(tmp_path, str(folder))
    (folder / "model.bin").write_bytes(content.replace(b"WhisperSpec", b"WhimperSpec", 1))
    with pytest.raises(BrewlineError, match="it holds 'WhimperSpec' in version 6"):
        prepared(tmp_path, str(folder))


def byte_letters() -> dict[int, str]:
    """GPT-2's letters for bytes, as its authors' code has them."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    seen += range(ord("®"), ord("ÿ") + 1)
    letters, count = {byte: chr(byte) for byte in seen}, 0
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + count)
            count += 1
    return letters


@pytest.mark.parametrize(("num_tokens", "name"), [(51864, "gpt2"), (51865, "multilingual")])
def test_another_vocabulary_of_the_same_size_is_refused(
    tmp_path: Path, num_tokens: int, name: str
) -> None:
    encoding, letters = get_encoding(name), byte_letters()
    tokens = [encoding.decode_single_token_bytes(n) for n in range(encoding.eot_token)]
    vocabulary = {"".join(letters[byte] for byte in token): n for n, token in enumerate(tokens)}
    folder = save_transformers(tmp_path / "theirs", whisper_model(num_tokens))
    write_json(folder / "vocab.json", vocabulary)
    prepared(tmp_path, str(folder))
    (folder / "vocab.json").unlink()
    write_json(folder / "tokenizer.json", {"model": {"vocab": vocabulary}})
    prepared(tmp_path, str(folder))
    turned = dict(zip(vocabulary, reversed(vocabulary.values()), strict=True))
    write_json(folder / "tokenizer.json", {"model": {"vocab": turned}})
    with pytest.raises(BrewlineError, match=r"tokenizer\.json: .* tokens are not those of Whisper"):
        prepared(tmp_path, str(folder))


def test_a_repository_on_the_hub_is_a_folder_that_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = whisper_model()
    folder = save_transformers(tmp_path / "theirs", model, parts=2)
    (folder / "pytorch_model.bin").touch()
    asked = []

    def list_files(_: HfApi, name: str, revision: str | None) -> list[str]:
        asked.append((name, revision))
        return [path.name for path in folder.iterdir()]

    def bring(url: str, part: Path) -> Version:
        asked.append(url)
        content = (folder / url.rpartition("/")[2]).read_bytes()
        part.write_bytes(content)
        return Version(url=url, size=len(content), tag="x", sha256=None)

    monkeypatch.setattr(HfApi, "list_repo_files", list_files)
    monkeypatch.setattr(hub, "bring", bring)
    ours = load_whisper(prepared(tmp_path, "hf://o/n@v1"), torch.device("cpu"))
    assert asked == [
        ("o/n", "v1"),
        "hf://o/n@v1/config.json",
        "hf://o/n@v1/model.safetensors.index.json",
        "hf://o/n@v1/model-00001-of-00002.safetensors",
        "hf://o/n@v1/model-00002-of-00002.safetensors",
    ]
    tokens = torch.tensor([[50258, 3]])
    states = torch.randn(1, 20, 16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours.decoder(tokens, states), model.decoder(tokens, states))
    # What was found once is expected the next time, of this repository.
    (folder / "config.json").write_text("{}")
    with pytest.raises(BrewlineError, match=r"config\.json is damaged or another version"):
        prepared(tmp_path, "hf://o/n@v1")
    assert [path.name for path in (tmp_path / "checksums").iterdir()] == ["backbones-o-n-v1.json"]


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("hf://openai/whisper-base", True),
        ("hf://openai/whisper-base@main", True),
        ("hf://openai/whisper-base/model.pt", False),
        ("hf://datasets/o/n", False),
        ("folder/name", False),
    ],
)
def test_what_names_a_repository(url: str, is_one: bool) -> None:
    assert hub.is_repository(url) == is_one


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What open_clip was asked to download; nothing is."""
    asked: list[tuple[Any, ...]] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(open_clip, "create_model", refuse)
    return asked


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("ViT-L-14/openai", "ViT-L-14-quickgelu/openai"),
        ("ViT-B-32/laion400m_e32", "ViT-B-32-quickgelu/laion400m_e32"),
    ],
)
def test_weights_of_another_activation_are_refused(
    tmp_path: Any, downloads: list[Any], name: str, right: str
) -> None:
    with pytest.raises(BrewlineError, match=f"trained with QuickGELU.*use open_clip:{right}"):
        clip_format.download_clip(name, tmp_path)
    assert not downloads


def test_weights_of_the_right_activation_are_downloaded(
    tmp_path: Any, downloads: list[Any]
) -> None:
    for name in ("ViT-L-14-quickgelu/openai", "ViT-B-32/laion2b_s34b_b79k"):
        with pytest.raises(BrewlineError, match="cannot download CLIP"):
            clip_format.download_clip(name, tmp_path)
    assert [asked[0] for asked in downloads] == ["ViT-L-14-quickgelu", "ViT-B-32"]


def test_the_architecture_that_is_named_instead_is_one_that_open_clip_has() -> None:
    published = {tuple(pair) for pair in open_clip.list_pretrained()}
    refused = 0
    for architecture, tag in sorted(published):
        try:
            clip_format.refuse_other_activation(architecture, tag)
        except BrewlineError as error:
            refused += 1
            right = str(error).rpartition("open_clip:")[2]
            assert tuple(right.split("/")) in published, error
    assert refused >= 2
