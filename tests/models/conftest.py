"""Fixtures of the model tests: a tiny frozen CLIP, and parameters to go with it."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import save_file
from tiny_models import EMBEDDING_SIZE, IMAGE_SIZE, TEXT, VISION, make_clip

from brewline.config.recipes import RecipeParams
from brewline.models.backbones import ClipBackbone, make_backbone


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A new model is drawn from torch's generator: no test depends on those before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def backbone() -> ClipBackbone:
    preprocess = image_transform_v2(PreprocessCfg(size=IMAGE_SIZE), is_train=False)
    return make_backbone(make_clip(), open_clip.SimpleTokenizer(context_length=16), preprocess)


@pytest.fixture
def recipe() -> RecipeParams:
    return RecipeParams(
        seeds=[0],
        steps=12,
        batch_size=8,
        optimiser="adam",
        learning_rate=0.01,
        weight_decay=1e-6,
        warmup_steps=2,
        schedule="linear",
        grad_clip=4.0,
        temperature=0.07,
        learn_temperature=True,
        loss="info_nce",
        same_image="mask",
        precision="fp32",
        evaluate_every=4,
    )


@pytest.fixture
def clip_folder(tmp_path: Path, backbone: ClipBackbone) -> Path:
    """The tiny CLIP as a folder in open_clip's format."""
    folder = tmp_path / "clip"
    folder.mkdir()
    config = {
        "model_cfg": {"embed_dim": EMBEDDING_SIZE, "vision_cfg": VISION, "text_cfg": TEXT},
        "preprocess_cfg": {"size": IMAGE_SIZE},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(backbone.clip.state_dict(), folder / "open_clip_model.safetensors")
    return folder
