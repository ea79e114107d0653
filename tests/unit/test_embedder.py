"""What search and serving embed is seen, read and weighed as the model's folder says."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import search_world
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from brewline.config import load_params
from brewline.config.variants import LayeredEncoderName, VariantParams
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json, sha256_tree, write_json
from brewline.models.backbones import load_clip
from brewline.models.brewclip import BrewClip
from brewline.models.card import load_backbone_hashes, load_card, needed_backbones
from brewline.models.cascaded import CascadedBranch
from brewline.models.folder import Trained, save_model
from brewline.models.names import (
    BACKBONES_FOLDER,
    CLIP_FOLDER,
    HUBERT_FOLDER,
    NAMES_FILE,
    WHISPER_FILE,
)
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator
from brewline.samples.utterance import Utterance
from brewline.search.embedder import Embedder
from brewline.speech.layered_encoders import (
    encode_recording,
    load_layered_encoder,
    shape_of_layers,
)
from brewline.speech.recognition import Recognition

STATE_WIDTH = search_world.STATE_WIDTH


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    search_world.make_world(root, small=True)
    return root


def embedder(root: Path, folder: Path, **options: Any) -> Embedder:
    """The full model of the world with other options, as its folder has them."""
    made = root / "models" / search_world.FULL / "seed-0"
    card = read_json(made / "model.json")
    card["switches"] |= options
    write_json(folder / "model.json", card)
    tensors = load_file(made / "model.safetensors")
    if options.get("fusion") == "gate":
        # A text of a confidence above a half counts alone, and one below does not.
        tensors |= {"gate.slope": torch.tensor(400.0), "gate.offset": torch.tensor(-200.0)}
    save_file(tensors, folder / "model.safetensors")
    params = load_params(root / "params.yaml")
    backbones = root / BACKBONES_FOLDER
    hashes = load_backbone_hashes(backbones / NAMES_FILE)
    return Embedder(folder, backbones, hashes, params.asr, params.shard, "cpu")


def photo(edge: int) -> bytes:
    """A wide picture that has another colour at its left edge."""
    pixels = np.full((300, 900, 3), 120, np.uint8)
    pixels[:, :200] = edge
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_edge_of_a_photo_is_seen_by_a_model_that_sees_it(root: Path, tmp_path: Path) -> None:
    for pictures, is_seen in (("own", False), ("multicrop", True), ("letterbox", True)):
        one = embedder(root, tmp_path, pictures=pictures)
        similarity = one.embed_photo(photo(0)) @ one.embed_photo(photo(255))
        assert (similarity < 0.9999) == is_seen, pictures


def test_the_end_of_a_text_is_read_by_a_model_that_reads_it(root: Path, tmp_path: Path) -> None:
    text = "a dog and a cat " * 20
    for long_texts, is_read in (("truncate", False), ("chunk", True)):
        one = embedder(root, tmp_path, long_texts=long_texts)
        similarity = one.embed_text(f"{text} red car") @ one.embed_text(f"{text} blue tree")
        assert (similarity < 0.999999) == is_read, long_texts


def test_a_recording_is_weighed_by_how_surely_it_was_heard(root: Path, tmp_path: Path) -> None:
    one = embedder(root, tmp_path, fusion="gate")
    rng = np.random.default_rng(0)
    states = rng.standard_normal((20, STATE_WIDTH)).astype(np.float16)

    class Heard:
        def __init__(self, text: str, avg_logprob: float) -> None:
            self._found = Recognition(text, 1, states, 20, avg_logprob)

        def recognise(self, waveforms: list[NDArray[np.float32]]) -> list[Recognition]:
            return [self._found for _ in waveforms]

    found = {}
    for text in ("a dog", "a red car"):
        for avg_logprob in (-0.1, -3.0):
            vars(one)["recogniser"] = Heard(text, avg_logprob)
            found[text, avg_logprob], _ = one.embed_waveform(np.zeros(16_000, np.float32))
    # Surely heard, it is its text; else its sound, whatever the text.
    assert found["a dog", -0.1] @ one.embed_text("a dog") == pytest.approx(1, abs=1e-5)
    assert found["a dog", -3.0] @ found["a red car", -3.0] == pytest.approx(1, abs=1e-5)
    assert found["a dog", -0.1] @ found["a red car", -0.1] < 0.999999


def make_hubert(folder: Path) -> None:
    """A tiny HuBERT with random weights, as stage `weights` keeps one."""
    transformers = pytest.importorskip("transformers", reason="HuBERT needs the extra hubert")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.HubertConfig(**sizes, intermediate_size=24, conv_dim=(8,) * 7)
    transformers.HubertModel(config).save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", {"do_normalize": True})


@pytest.mark.parametrize("encoder", ["whisper_layers", "hubert"])
@pytest.mark.parametrize("branch", ["parallel", "cascaded"])
def test_a_recording_is_heard_in_layers_as_the_corpus_was(
    root: Path, tmp_path: Path, encoder: LayeredEncoderName, branch: str
) -> None:
    params, backbones = load_params(root / "params.yaml"), root / BACKBONES_FOLDER
    hashes = load_backbone_hashes(backbones / NAMES_FILE)
    checkpoint = backbones / WHISPER_FILE
    if encoder == "hubert":
        backbones = tmp_path / "backbones"
        shutil.copytree(root / BACKBONES_FOLDER, backbones)
        checkpoint = backbones / HUBERT_FOLDER
        make_hubert(checkpoint)
        hashes |= {"hubert": sha256_tree(checkpoint)}
    acoustic = {"encoder": encoder, "branch": branch, "layers": 1, "heads": 1, "dropout": 0.0}
    acoustic |= {"pool_frames": 2, "padding_mask": "valid"}
    own = {"feedforward_width": 8} if branch == "parallel" else {"keywords": 2}
    switches = VariantParams.model_validate({"acoustic": acoustic | own, "prompts": 0})
    backbone = load_clip(backbones / CLIP_FOLDER)
    shape = shape_of_layers(encoder, checkpoint)
    model = BrewClip(backbone, switches, shape, learn_temperature=True).eval()
    if isinstance(model.acoustic, CascadedBranch):
        model.acoustic.set_vocabulary({"a red car", "a small dog"})
    made = load_card(root / "models" / search_world.FULL / "seed-0")
    needed = needed_backbones(switches, hashes)
    card = made.model_copy(update={"switches": switches, "backbones": needed})
    save_model(tmp_path / "model", card, Trained(model, 1, {}, []))
    one = Embedder(tmp_path / "model", backbones, hashes, params.asr, params.shard, "cpu")
    sound = np.random.default_rng(1).normal(0, 0.1, 16_000).astype(np.float32)
    found, _ = one.embed_waveform(sound)
    # As stage `encode` keeps it, and stage `embed` reads it.
    layered = load_layered_encoder(encoder, checkpoint, params.asr, torch.device("cpu"))
    states = encode_recording(layered, sound, pool_frames=2)
    utterance = Utterance("u", "i", photo(0), "", None, len(states), states)
    inputs = Collator(input_transforms(backbone, switches), switches).utterance_inputs([utterance])
    with torch.no_grad():
        expected = model.encode_utterances(inputs).embeddings[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # It has no other channel.
    with pytest.raises(BrewlineError, match="hears speech and reads no text"):
        one.embed_text("a red car")
