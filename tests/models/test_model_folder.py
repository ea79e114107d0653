from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import FULL, STATE_WIDTH, ZERO_SHOT, make_world, variant

from brewline.core.errors import BrewlineError
from brewline.models.brewclip import BrewClip
from brewline.models.card import ModelCard, needed_backbones, save_card
from brewline.models.folder import Trained, load_model, save_model
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator

HASHES = {"clip": "c" * 64, "whisper": "a" * 64}
DEV = {"dev/mean_recall_at_1": 0.5}


@pytest.fixture
def card(recipe):
    return ModelCard(
        experiment="tiny-full",
        task="retrieval",
        corpus="tiny",
        trained_on="tiny",
        variant="full",
        switches=FULL,
        backbones=needed_backbones(FULL, HASHES),
        seed=0,
        recipe=recipe.model_dump(exclude={"seeds"}),
        data={"shards": "d" * 64},
    )


@pytest.fixture
def trained(backbone):
    torch.manual_seed(2)
    model = BrewClip(backbone, FULL, (STATE_WIDTH,), learn_temperature=True)
    return Trained(model, 4, DEV, [{"step": 1, "loss": 2.0}])


@pytest.fixture
def folder(tmp_path, card, trained):
    folder = tmp_path / "tiny-full" / "seed-0"
    save_model(folder, card, trained)
    return folder


def test_a_loaded_model_embeds_as_the_saved_one(folder, trained, backbone):
    loaded, _ = load_model(folder, backbone, HASHES)
    batch = Collator(input_transforms(backbone, FULL), FULL).collate(make_world(2))
    spoken, seen = (
        [encode(one) for one in (loaded, trained.model)]
        for encode in (
            lambda model: model.encode_utterances(batch.utterances).embeddings,
            lambda model: model.encode_images(batch.pictures),
        )
    )
    assert not loaded.training
    assert torch.equal(*spoken)
    assert torch.equal(*seen)


def test_every_option_is_in_the_folder(tmp_path, card, backbone):
    """And a model with them embeds as the one that was saved."""
    options = {"fusion": "gate", "long_texts": "chunk", "pictures": "multicrop", "prompt_depth": 2}
    switches = variant(**options)
    model = BrewClip(backbone, switches, (STATE_WIDTH,), learn_temperature=True, with_bias=True)
    with torch.no_grad():
        for one in model.trained_parameters().values():
            one.normal_(std=0.5)
    recipe = card.recipe | {"loss": "sigmoid"}
    card = card.model_copy(update={"switches": switches, "recipe": recipe})
    save_model(tmp_path / "model", card, Trained(model, 4, DEV, []))
    loaded, found = load_model(tmp_path / "model", backbone, HASHES)
    assert found.switches == switches
    assert loaded.logit_bias == model.logit_bias
    world = [replace(one, transcript="red dog " * 20, confidence=0.3) for one in make_world(2)]
    batch = Collator(input_transforms(backbone, found.switches), found.switches).collate(world)
    for encode in (
        lambda model: model.encode_utterances(batch.utterances).embeddings,
        lambda model: model.encode_images(batch.pictures),
    ):
        assert torch.equal(encode(loaded), encode(model))


def test_a_fixed_temperature_is_the_one_of_the_card(tmp_path, card, backbone):
    model = BrewClip(backbone, FULL, (STATE_WIDTH,), temperature=0.5)
    fixed = {"temperature": 0.5, "learn_temperature": False}
    card = card.model_copy(update={"recipe": card.recipe | fixed})
    save_model(tmp_path / "model", card, Trained(model, 4, DEV, []))
    loaded, _ = load_model(tmp_path / "model", backbone, HASHES)
    assert loaded.logit_scale.item() == pytest.approx(2.0)


def test_the_card_tells_what_training_found(folder, card, trained, backbone):
    _, loaded = load_model(folder, backbone, HASHES)
    found = {
        "num_trained_parameters": trained.model.num_trained_parameters,
        "best_step": 4,
        "dev": DEV,
    }
    assert loaded == card.model_copy(update=found)


def test_equal_models_are_equal_bytes(folder, tmp_path, card, trained):
    again = tmp_path / "again"
    save_model(again, card, replace(trained, history=[{"loss": 2.0, "step": 1}]))
    assert len(list(folder.iterdir())) == 3
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_only_trained_tensors_are_saved(folder, trained):
    names = set(load_file(folder / "model.safetensors"))
    assert names == set(trained.model.trained_parameters())
    assert not any(name.startswith("clip.") for name in names)


@pytest.mark.parametrize("role", ["clip", "whisper"])
def test_another_backbone_is_refused_by_both_hashes(folder, backbone, role):
    with pytest.raises(BrewlineError) as caught:
        load_model(folder, backbone, {**HASHES, role: "f" * 64})
    assert HASHES[role] in str(caught.value)
    assert "f" * 64 in str(caught.value)


def test_an_untrained_model_is_a_card_alone(tmp_path, backbone):
    card = ModelCard(
        experiment="tiny-zero-shot",
        task="retrieval",
        corpus="tiny",
        variant="zero-shot",
        switches=ZERO_SHOT,
        backbones=needed_backbones(ZERO_SHOT, HASHES),
    )
    save_card(tmp_path / "frozen", card)
    loaded, loaded_card = load_model(tmp_path / "frozen", backbone, HASHES)
    assert loaded.trained_parameters() == {}
    assert loaded_card == card


def test_damaged_tensors_are_one_sentence(folder, backbone):
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(BrewlineError, match=r"model\.safetensors is missing or damaged"):
        load_model(folder, backbone, HASHES)
    (folder / "model.safetensors").unlink()
    with pytest.raises(BrewlineError, match=r"model\.safetensors is missing or damaged"):
        load_model(folder, backbone, HASHES)


def test_tensors_of_another_size_are_refused(folder, trained, backbone):
    other = {**trained.model.trained_tensors(), "prompt_tokens": torch.zeros(3, 24)}
    save_file(other, folder / "model.safetensors")
    with pytest.raises(BrewlineError, match="does not fit its own card"):
        load_model(folder, backbone, HASHES)
