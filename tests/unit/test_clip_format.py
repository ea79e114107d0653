"""A CLIP in open_clip's format is taken from a folder or from the Hub, and is then the same."""

import json
import lzma
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from flaky_server import Content, act_as_hub, publish_repository, serve
from PIL import Image
from safetensors.torch import load_file, save_file

from brewline.config.backbones import BackboneParams
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json, sha256_tree
from brewline.models import weights
from brewline.models.backbones import ClipBackbone, load_clip

MODEL = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 40, "layers": 1, "width": 16, "patch_size": 8, "head_width": 8},
    "text_cfg": {"context_length": 21, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1},
}
PREPROCESS = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
PICKLED = "open_clip_pytorch_model.bin"


def publish(folder: Path) -> Path:
    """A random CLIP, with the names and in the forms in which open_clip publishes one."""
    folder.mkdir()
    torch.manual_seed(1)
    tensors = open_clip.CLIP(**MODEL).state_dict()
    save_file(tensors, folder / "open_clip_model.safetensors")
    torch.save(tensors, folder / PICKLED)
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def prepared(tmp_path: Path, source: str, sha256: str | None = None) -> ClipBackbone:
    """What stage `weights` makes of a source."""
    target = tmp_path / "backbones/clip"
    shutil.rmtree(target.parent, ignore_errors=True)
    target.parent.mkdir()
    weights._prepare_clip(BackboneParams(name="c", source=source, sha256=sha256), target)
    assert [path.name for path in target.parent.iterdir()] == ["clip"]
    return load_clip(target)


def check_is_published(found: ClipBackbone, folder: Path) -> None:
    """Holds a backbone against what open_clip itself loads of a folder."""
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    picture = Image.effect_noise((64, 48), 90).convert("RGB")
    assert torch.equal(found.preprocess(picture), preprocess(picture))
    token_ids = open_clip.get_tokenizer(f"local-dir:{folder}")(["a red box"])
    assert torch.equal(found.tokenizer(["a red box"]), token_ids)
    pixels = preprocess(picture)[None]
    with torch.no_grad():
        torch.testing.assert_close(found.clip.encode_image(pixels), model.encode_image(pixels))
        torch.testing.assert_close(found.clip.encode_text(token_ids), model.encode_text(token_ids))
    sizes = found.text_width, found.vision_width, found.embedding_size
    assert (*sizes, found.context_length, found.image_size) == (24, 16, 12, 21, 40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return publish(tmp_path / "published")


def test_sizes_context_and_pixels_are_those_of_the_folder(tmp_path: Path, folder: Path) -> None:
    for source in (f"local-dir:{folder}", str(folder)):
        check_is_published(prepared(tmp_path, source), folder)


def test_pickled_weights_become_safetensors_and_give_the_same(tmp_path: Path, folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()
    check_is_published(prepared(tmp_path, f"local-dir:{folder}"), folder)
    made = tmp_path / "backbones/clip"
    assert sorted(path.name for path in made.iterdir()) == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]
    stored = torch.load(folder / PICKLED, weights_only=True)
    found = load_file(made / "open_clip_model.safetensors")
    assert found.keys() == stored.keys()
    assert all(torch.equal(found[name], stored[name]) for name in stored)


def test_a_hash_is_over_the_files_that_are_read(tmp_path: Path, folder: Path) -> None:
    read = tmp_path / "read"
    read.mkdir()
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        shutil.copy(folder / name, read)
    digest = sha256_tree(read)
    prepared(tmp_path, f"local-dir:{folder}", digest)
    assert sha256_tree(tmp_path / "backbones/clip") == digest
    with pytest.raises(BrewlineError, match="expected SHA-256 0000"):
        prepared(tmp_path, f"local-dir:{folder}", "0" * 64)


class Hub:
    """A Hub on this machine, which has the folder as a repository."""

    def __init__(self, content: Content) -> None:
        self.content = content

    def paths(self) -> set[str]:
        return {one.path.partition("?")[0].rpartition("/")[2] for one in self.content.seen}


@pytest.fixture
def hub(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    content = Content()
    publish_repository(content, "o/n", "v1", folder)
    with serve(content) as address:
        act_as_hub(address, content, monkeypatch, tmp_path / "cache")
        yield Hub(content)


def test_a_repository_is_the_folder_that_it_holds(tmp_path: Path, folder: Path, hub: Hub) -> None:
    check_is_published(prepared(tmp_path, "hf-hub:o/n@v1"), folder)
    # Of two kinds of weights one is fetched.
    assert hub.paths() == {"v1", "open_clip_config.json", "open_clip_model.safetensors"}
    recorded = read_json(tmp_path / "checksums/backbones-o-n-v1.json")
    assert recorded.keys() == {"open_clip_config.json", "open_clip_model.safetensors"}


def test_what_a_repository_held_is_expected_from_then_on(
    tmp_path: Path, folder: Path, hub: Hub
) -> None:
    prepared(tmp_path, "hf-hub:o/n@v1")
    (folder / "open_clip_config.json").write_text("{}")
    publish_repository(hub.content, "o/n", "v1", folder)
    with pytest.raises(BrewlineError, match=r"open_clip_config\.json is damaged or another ver"):
        prepared(tmp_path, "hf-hub:o/n@v1")


def test_a_repository_that_is_none_is_one_sentence(tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(BrewlineError, match="o/gone"):
        prepared(tmp_path, "hf-hub:o/gone")
    with pytest.raises(BrewlineError, match="neither a folder nor a repository on the Hub"):
        prepared(tmp_path, "hf-hub:gone")


def spoil_config(folder: Path) -> None:
    (folder / "open_clip_config.json").write_text('{"model_cfg": 3}')


def spoil_weights(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()
    (folder / PICKLED).write_bytes((folder / PICKLED).read_bytes()[:1000])


def forget_weights(folder: Path) -> None:
    for name in ("open_clip_model.safetensors", PICKLED):
        (folder / name).unlink()


def forget_config(folder: Path) -> None:
    (folder / "open_clip_config.json").unlink()


def ask_for_a_tokeniser(folder: Path) -> None:
    text = {**MODEL["text_cfg"], "hf_tokenizer_name": "elsewhere/words"}  # type: ignore[dict-item]
    config = {"model_cfg": {**MODEL, "text_cfg": text}, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def run_code(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()
    torch.save({"state_dict": {"x": Path}}, folder / PICKLED)


def cut_xz(folder: Path) -> None:
    packed = lzma.compress((folder / "open_clip_model.safetensors").read_bytes())
    (folder / "open_clip_model.safetensors.xz").write_bytes(packed[:-100])


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (spoil_config, r"open_clip_config\.json describes no model"),
        (spoil_weights, r"open_clip_pytorch_model\.bin holds no weights"),
        (forget_weights, r"is no CLIP in open_clip's format: it has no open_clip_model\.saf"),
        (forget_config, r"is no CLIP in open_clip's format: it has no open_clip_config\.json"),
        (ask_for_a_tokeniser, r"its tokeniser 'elsewhere/words' is not among its files; save it"),
        (run_code, r"open_clip_pytorch_model\.bin holds no weights"),
        (cut_xz, r"open_clip_model\.safetensors\.xz is not a whole xz file"),
    ],
)
def test_what_is_no_clip_is_refused_with_the_reason(
    tmp_path: Path, folder: Path, spoil: Any, why: str
) -> None:
    spoil(folder)
    with pytest.raises(BrewlineError, match=why):
        prepared(tmp_path, f"local-dir:{folder}")
