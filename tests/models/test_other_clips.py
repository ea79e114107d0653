"""Towers of open_clip that are not CLIP's: measured as they are, and prompted where that fits.

Their configurations are those that open_clip has for them, at tiny sizes and with random weights.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from tiny_models import ACOUSTIC, IMAGE_SIZE, STATE_WIDTH, TEXT, VISION, make_world, variant
from torch import Tensor, nn

from brewline.config import load_params
from brewline.config.shard import ShardParams
from brewline.config.variants import VariantParams
from brewline.core.errors import BrewlineError
from brewline.core.ranks import ALONE
from brewline.models import clip_format
from brewline.models.backbones import ClipBackbone, load_clip, make_backbone, misfits
from brewline.models.brewclip import BrewClip
from brewline.models.towers import TimmImageTower
from brewline.models.transforms import input_transforms
from brewline.models.weights import prepare_backbones
from brewline.samples.collator import Collator
from brewline.training.tasks.retrieval import Retrieval

ZERO_SHOT = variant(acoustic=None, prompts=0)
PROMPTED = variant(acoustic=None)
SHARD = ShardParams(
    utterances_per_shard=5, image_short_side_px=32, jpeg_quality=90, frames_per_clip=4
)
WORDS = ["a", "picture", "take", "0", "1", *["red", "green", "blue", "black", "white", "yellow"]]

# As open_clip has SigLIP: no causal mask, the last place of a padded context, a biased projection.
SIGLIP_TEXT = {
    "context_length": 16,
    "vocab_size": 40,
    "hf_tokenizer_name": "tiny",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "width": 24,
    "heads": 3,
    "layers": 2,
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
}
SIGLIP = {
    "embed_dim": 24,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 32,
        "timm_model_name": "brewline_tiny_siglip",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": SIGLIP_TEXT,
}
# SigLIP 2 differs in its activation.
SIGLIP_2 = {**SIGLIP, "text_cfg": {**SIGLIP_TEXT, "act_kwargs": {"approximate": "tanh"}}}
COCA = {
    "embed_dim": 20,
    "vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_heads": 4,
                   "output_tokens": True},
    "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {**TEXT, "attn_pooler_heads": 4},
    "custom_text": True,
}  # fmt: skip
RESNET = {
    "embed_dim": 16,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32},
    "text_cfg": TEXT,
}


@timm.models.register_model
def brewline_tiny_siglip(**options: Any) -> VisionTransformer:
    """The image tower of SigLIP: no class token, and a query that pools the patches."""
    options = {k: v for k, v in options.items() if k in ("num_classes", "global_pool")}
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, class_token=False, **options
    )


def save_tokeniser(folder: Path) -> None:
    """One as that of SigLIP: words, then an end that fills the rest of the context too."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {name: number for number, name in enumerate(["<unk>", "</s>", *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def save_clip(folder: Path, config: dict[str, Any]) -> Path:
    """A random model of a configuration, as a folder of open_clip."""
    folder.mkdir()
    torch.manual_seed(5)
    kinds = {"multimodal_cfg": open_clip.CoCa, "custom_text": open_clip.CustomTextCLIP}
    kind = next((kinds[key] for key in kinds if key in config), open_clip.CLIP)
    model = kind(**{key: value for key, value in config.items() if key != "custom_text"})
    for module in model.modules():
        # open_clip starts these almost at zero, which would make every text look the same.
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)
    preprocess = {"size": 32, "resize_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3}
    described = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    tensors = {key: one.contiguous() for key, one in model.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    if "hf_tokenizer_name" in config["text_cfg"]:
        pytest.importorskip("transformers", reason="SigLIP's tokenisers need the extra siglip")
        save_tokeniser(folder)
    return folder


CONFIGS = {"siglip": SIGLIP, "siglip2": SIGLIP_2, "coca": COCA, "resnet": RESNET}


@pytest.fixture(scope="module", params=CONFIGS)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ClipBackbone:
    folder = tmp_path_factory.mktemp("clips") / request.param
    return load_clip(save_clip(folder, CONFIGS[request.param]))


@pytest.fixture(scope="module", params=["siglip", "siglip2"])
def siglip(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ClipBackbone:
    folder = tmp_path_factory.mktemp("clips") / request.param
    return load_clip(save_clip(folder, CONFIGS[request.param]))


def embed(backbone: ClipBackbone, switches: VariantParams) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    model = BrewClip(backbone, switches, (STATE_WIDTH,))
    collator = Collator(input_transforms(backbone, switches), switches)
    batch = collator.collate(make_world(4, takes=1))
    assert batch.pictures is not None
    with torch.no_grad():
        spoken = model.encode_utterances(batch.utterances).embeddings
        return spoken, model.encode_images(batch.pictures)


def test_any_model_is_measured_by_its_own_encoders(other: ClipBackbone) -> None:
    """Tokens, padding, squashing, pixel statistics and towers: all as open_clip has them."""
    world = make_world(4, takes=1)
    spoken, seen = embed(other, ZERO_SHOT)
    pixels = [other.preprocess(Image.open(io.BytesIO(one.image or b""))) for one in world]
    with torch.no_grad():
        texts = other.clip.encode_text(
            other.tokenizer([one.transcript for one in world]), normalize=True
        )
        images = other.clip.encode_image(torch.stack(pixels), normalize=True)
    torch.testing.assert_close(spoken, texts, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen, images, rtol=1e-4, atol=1e-5)
    assert (texts @ texts.T).min() < 0.999, "texts differ"


def test_an_acoustic_channel_goes_with_any_model(other: ClipBackbone) -> None:
    heads = next(n for n in (4, 3) if other.text_width % n == 0)
    acoustic = ACOUSTIC.model_copy(update={"heads": heads})
    spoken, seen = embed(other, variant(acoustic=acoustic, prompts=0))
    assert spoken.shape == seen.shape == (4, other.embedding_size)


@pytest.mark.parametrize("name", ["coca", "resnet"])
def test_what_cannot_carry_prompts_says_why(name: str, tmp_path: Path) -> None:
    backbone = load_clip(save_clip(tmp_path / name, CONFIGS[name]))
    why = {
        "coca": "its text tower reads a class token behind the text",
        "resnet": "its image tower is ModifiedResNet",
    }[name]
    assert backbone.problem == why and not backbone.can_be_watched
    assert misfits(backbone, {"zero-shot": ZERO_SHOT}, SHARD) == []
    (sentence,) = misfits(backbone, {"prompted": PROMPTED}, SHARD)
    assert sentence == (
        f"variants.prompted.prompts: this CLIP cannot carry prompts: {why}; set prompts: 0, or use "
        "a CLIP ViT or a SigLIP"
    )
    with pytest.raises(BrewlineError, match=why):
        BrewClip(backbone, PROMPTED)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pool_type": "avg"}, "does not read the class token"),
        ({"attentional_pool": True, "attn_pooler_heads": 4}, "does not read the class token"),
        ({"block_type": "custom"}, "its layers are not the standard ones"),
    ],
)
def test_other_vision_transformers_are_refused(changes: dict[str, Any], why: str) -> None:
    clip = open_clip.CLIP(20, vision_cfg={**VISION, **changes}, text_cfg=TEXT)
    preprocess = image_transform_v2(PreprocessCfg(size=IMAGE_SIZE), is_train=False)
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    assert why in make_backbone(clip, tokenizer, preprocess).problem


def test_sizes_are_those_of_the_model(siglip: ClipBackbone) -> None:
    assert siglip.problem == "" and not siglip.can_be_watched
    assert (siglip.text_width, siglip.vision_width, siglip.embedding_size) == (24, 24, 24)
    assert (siglip.context_length, siglip.image_size, siglip.num_layers) == (16, 32, 2)
    assert siglip.layout.num_before == 0
    model = BrewClip(siglip, PROMPTED)
    assert model.pixel_mean.flatten().tolist() == [0.5] * 3
    assert isinstance(siglip.towers[1], TimmImageTower)


def test_a_text_of_siglip_is_framed_by_its_own_tokens(siglip: ClipBackbone) -> None:
    """Prompts stand in front, and the end fills the context."""
    words = [2 + WORDS.index(word) for word in ("a", "red", "picture", "take", "0")]
    tokenise = input_transforms(siglip, PROMPTED).tokenise
    (row,) = tokenise(" A red picture, take 0.").tolist()
    assert row == [1, 1, *words, *[1] * 9]
    (full,) = tokenise("red " * 30).tolist()
    assert full == [1, 1, *[2 + WORDS.index("red")] * 13, 1]
    chunks = input_transforms(siglip, variant(acoustic=None, long_texts="chunk")).tokenise
    assert len(chunks("red " * 30)) == 3


def test_without_prompts_the_towers_are_those_of_open_clip(siglip: ClipBackbone) -> None:
    text, image = siglip.towers
    token_ids = siglip.tokenizer(["a red picture", "", "blue " * 30])
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = siglip.clip.encode_text(token_ids), siglip.clip.encode_image(pixels)
        ours = text.encode(token_ids, start=0), image.encode(pixels)
    torch.testing.assert_close(ours[0], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[1], expected[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [1, 2])
def test_prompted_siglip_equals_the_plain_recipe(siglip: ClipBackbone, depth: int) -> None:
    """Step by step, by open_clip's and timm's own layers, with every row computed."""
    tower, prompts = siglip.clip.text, torch.randn(depth, 2, 24)
    rows = [siglip.layout.rows(text, 2, "truncate", True)[0] for text in ("a red", "blue " * 30)]
    token_ids = torch.stack(rows)
    with torch.no_grad():
        x = tower.token_embedding(token_ids)
        x[:, :2] = prompts[0]
        x = x + tower.positional_embedding
        for number, block in enumerate(tower.transformer.resblocks):
            if 0 < number < depth:
                x[:, :2] = prompts[number]
            x = block(x)
        expected = tower.text_projection(tower.ln_final(x)[:, -1])
        ours = siglip.towers[0].encode(token_ids, list(prompts), start=0)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)

        trunk, pixels = siglip.clip.visual.trunk, torch.randn(2, 3, 32, 32)
        x = trunk.patch_embed(pixels) + trunk.pos_embed
        assert x.shape[1] == 16
        for number, block in enumerate(trunk.blocks):
            if number < depth:
                x = torch.cat([x[:, :16], prompts[number].expand(2, -1, -1)], dim=1)
            x = block(x)
        expected = trunk.attn_pool(trunk.norm(x)[:, :16])
        ours = siglip.towers[1].encode(pixels, list(prompts))
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_all_prompts_of_a_siglip_are_trained(siglip: ClipBackbone, recipe) -> None:
    """And the bias of the sigmoid loss, with which it comes."""
    acoustic = ACOUSTIC.model_copy(update={"heads": 3})
    switches = variant(acoustic=acoustic, prompt_depth=2)
    recipe = recipe.model_copy(update={"loss": "sigmoid", "temperature": 0.1})
    task = Retrieval(switches, recipe, siglip)
    world = make_world(3)
    model = task.make_model(world[0]).train()
    batch = task.collate(world)
    loss = task.loss(model, task.forward(model, batch), ALONE, 0)
    loss.total.backward()
    trained = model.trained_parameters()
    assert {"logit_bias", "log_logit_scale", "deep_prompt_tokens.0"} <= trained.keys()
    # At most one in three pairs is right: the bias falls no more from where it starts.
    assert loss.row["logit_bias"] == -10
    for name, one in trained.items():
        assert one.grad is not None and one.grad.abs().max() > 0, name
    assert all(one.grad is None for one in siglip.clip.parameters())


def test_a_folder_of_weights_keeps_its_tokeniser(tmp_path: Path) -> None:
    source = save_clip(tmp_path / "siglip", SIGLIP)
    backbones = load_params().backbones
    clip = backbones.clip.model_copy(update={"source": str(source), "sha256": None})
    prepare_backbones(backbones.model_copy(update={"clip": clip}), tmp_path / "made")
    loaded = load_clip(tmp_path / "made/clip")
    expected = load_clip(source).tokenizer(["a red picture"])
    assert torch.equal(loaded.tokenizer(["a red picture"]), expected)
    assert np.count_nonzero(expected[0] != 1) == 3


def test_a_download_brings_its_tokeniser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What open_clip would fetch, handed over; what is kept can be loaded without a network."""
    source = save_clip(tmp_path / "published", SIGLIP)
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{source}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{source}")
    with monkeypatch.context() as patched:
        patched.setattr(open_clip, "create_model", lambda *_, **__: model)
        patched.setattr(open_clip, "get_tokenizer", lambda name: tokenizer)
        patched.setattr(open_clip, "get_model_config", lambda name: SIGLIP)
        (tmp_path / "kept").mkdir()
        clip_format.download_clip("ViT-B-16-SigLIP/webli", tmp_path / "kept")
    published, kept = load_clip(source), load_clip(tmp_path / "kept")
    assert torch.equal(*(one.tokenizer(["a red picture"]) for one in (published, kept)))
    ours, theirs = embed(kept, ZERO_SHOT), embed(published, ZERO_SHOT)
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_a_package_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_clip(tmp_path / "siglip", SIGLIP)

    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers")

    monkeypatch.setattr(open_clip, "get_tokenizer", missing)
    with pytest.raises(BrewlineError, match=r"needs transformers: `uv pip install '.\[siglip\]'`"):
        load_clip(folder)
