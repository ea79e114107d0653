import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tiny_models import ACOUSTIC, E2E, FULL, PROMPTED, STATE_WIDTH, ZERO_SHOT, make_world, variant

from brewline.config import load_params
from brewline.config.variants import AcousticParams, VariantParams
from brewline.models.acoustic import AcousticBranch, lay_out_states
from brewline.models.backbones import ClipBackbone, make_backbone
from brewline.models.brewclip import BrewClip
from brewline.models.inputs import Batch
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator

GUIDE = Path(__file__).parents[2] / "docs/guide.md"


def make_model(backbone: ClipBackbone, switches: VariantParams) -> BrewClip:
    torch.manual_seed(1)
    return BrewClip(backbone, switches, (STATE_WIDTH,))


def collate(backbone, switches, utterances) -> Batch:
    return Collator(input_transforms(backbone, switches), switches).collate(utterances)


def paper_backbone(name: str) -> ClipBackbone:
    """A published CLIP's sizes, without its numbers."""
    with torch.device("meta"):
        clip = open_clip.CLIP(**open_clip.get_model_config(name))
    preprocess = image_transform_v2(PreprocessCfg(size=224), is_train=False)
    return make_backbone(clip, open_clip.SimpleTokenizer(), preprocess)


PAPERS = AcousticParams(
    layers=1, heads=8, feedforward_width=4096, dropout=0.1, pool_frames=1, padding_mask="none"
)
PARALLEL, CASCADED = (
    load_params(GUIDE.parents[1] / "params.yaml").variants[f"speechclip-{kind}"].acoustic
    for kind in "pc"
)
PAPERS_VARIANTS = {
    "zero-shot": variant(prompts=0, acoustic=None),
    "prompted": variant(prompts=4, acoustic=None),
    "e2e": variant(prompts=4, acoustic=PAPERS, text=None),
    "full": variant(prompts=4, acoustic=PAPERS),
    "speechclip-p": variant(prompts=0, acoustic=PARALLEL, text=None),
    "speechclip-c": variant(prompts=0, acoustic=CASCADED, text=None),
}


def papers_state_shape(switches: VariantParams) -> tuple[int, ...]:
    """Of base.en, or of all layers of HuBERT large."""
    hears_layers = switches.acoustic is not None and switches.acoustic.hears_layers
    return (25, 1024) if hears_layers else (512,)


def num_trained(name: str, switches: VariantParams) -> int:
    with torch.device("meta"):
        shape = papers_state_shape(switches)
        model = BrewClip(paper_backbone(name), switches, shape, learn_temperature=True)
    assert not any(name.startswith("clip.") for name in model.trained_parameters())
    return model.num_trained_parameters


def test_parameter_counts_at_the_papers_sizes() -> None:
    """Those that the paper's sizes give by hand, with ViT-L/14."""
    found = {key: num_trained("ViT-L-14", one) for key, one in PAPERS_VARIANTS.items()}
    layer = 4 * (1024 * 1024 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 2 * 2048
    parallel = 25 + 1024 + layer + 2048 + 1024 * 768 + 768
    attention = 4 * (1024 * 1024 + 1024) + 2048
    cascaded = 25 + 8 * 1024 + attention + 1024 * 768 + 768 + 2 * 8 * 768
    assert found == {
        **{"zero-shot": 0, "prompted": 790_528, "e2e": 10_439_168, "full": 10_439_168},
        **{"speechclip-p": parallel, "speechclip-c": cascaded},
    }


def test_the_guides_table_of_trained_parameters_is_true() -> None:
    """It is made by this: a row of docs/guide.md for each variant, a column for each CLIP."""
    clips = ["ViT-B-32", "ViT-L-14"]
    rows = [
        f"| `{key}` | {' | '.join(f'{num_trained(name, one):,}' for name in clips)} |"
        for key, one in PAPERS_VARIANTS.items()
    ]
    table = "\n".join([f"| variant | {' | '.join(clips)} |", "|---|--:|--:|", *rows])
    assert table in GUIDE.read_text(encoding="utf-8"), f"docs/guide.md lacks\n{table}"


def test_zero_shot_equals_stock_open_clip(backbone):
    utterances = make_world(3, takes=1)
    batch = collate(backbone, ZERO_SHOT, utterances)
    model = make_model(backbone, ZERO_SHOT)
    texts = backbone.clip.encode_text(
        backbone.tokenizer([u.transcript for u in utterances]), normalize=True
    )
    ours = model.encode_utterances(batch.utterances).embeddings
    torch.testing.assert_close(ours, texts, rtol=1e-5, atol=1e-6)


def test_the_channels_are_summed_as_they_are(backbone):
    batch = collate(backbone, FULL, make_world(2))
    features = make_model(backbone, FULL).encode_utterances(batch.utterances)
    assert features.text is not None
    assert features.acoustic is not None
    expected = F.normalize(features.text + features.acoustic, dim=-1)
    torch.testing.assert_close(features.embeddings, expected)


@pytest.mark.parametrize(("switches", "on"), [(PROMPTED, "text"), (E2E, "acoustic")])
def test_a_single_channel_is_alone(backbone, switches, on):
    batch = collate(backbone, switches, make_world(2))
    features = make_model(backbone, switches).encode_utterances(batch.utterances)
    torch.testing.assert_close(features.embeddings, F.normalize(getattr(features, on), dim=-1))
    assert getattr(features, {"text": "acoustic", "acoustic": "text"}[on]) is None


@pytest.mark.parametrize("switches", [PROMPTED, E2E, FULL, variant(prompts=0)])
def test_company_in_the_batch_does_not_change_an_embedding(backbone, switches):
    """Longer neighbours bring padding; another order, another place."""
    utterances = make_world(4)
    model = make_model(backbone, switches)

    def embed(some):
        inputs = collate(backbone, switches, some).utterances
        return model.encode_utterances(inputs).embeddings

    together = embed(utterances)
    torch.testing.assert_close(embed(utterances[::-1]), together.flip(0), rtol=1e-4, atol=1e-5)
    for index, utterance in enumerate(utterances[:3]):
        torch.testing.assert_close(embed([utterance])[0], together[index], rtol=1e-4, atol=1e-5)


def test_what_stands_in_padding_frames_does_not_matter(backbone):
    inputs = collate(backbone, E2E, make_world(4)).utterances
    model = make_model(backbone, E2E)
    assert inputs.states is not None
    assert inputs.frame_mask is not None
    assert not inputs.frame_mask.all()
    padded = inputs.states.padded()
    noisy = padded + 9.0 * ~inputs.frame_mask[:, :, None]
    ours, expected = (model.acoustic(x, inputs.frame_mask, None) for x in (noisy, padded))
    torch.testing.assert_close(ours, expected)


def test_the_acoustic_branch_equals_the_plain_recipe():
    """The specification step by step, with every row of every layer computed."""
    params = ACOUSTIC.model_copy(update={"layers": 2})
    branch = AcousticBranch(STATE_WIDTH, 24, 20, params).eval()
    states, prompts = torch.randn(3, 7, STATE_WIDTH), torch.randn(2, 24)
    mask = torch.arange(7) < torch.tensor([7, 4, 0])[:, None]
    x = torch.cat(
        [branch.class_token.expand(3, 1, -1), prompts.expand(3, -1, -1), branch.project_in(states)],
        dim=1,
    )
    ignored = torch.cat([torch.zeros(3, 3, dtype=torch.bool), ~mask], dim=1)
    for layer in branch.layers:
        x = layer(x, src_key_padding_mask=ignored)
    expected = branch.project_out(branch.norm(x[:, 0]))
    torch.testing.assert_close(branch(states, mask, prompts), expected, rtol=1e-4, atol=1e-5)


def test_pooling_averages_groups_of_the_recordings_own_frames():
    states = torch.arange(10.0).reshape(5, 2).half().numpy()
    assert pooled([states], [5], ACOUSTIC)[0].tolist() == [[1, 2], [5, 6], [8, 9]]
    one = ACOUSTIC.model_copy(update={"pool_frames": 1})
    assert pooled([states], [5], one)[0].tolist() == states.tolist()
    assert pooled([states[:0]], [0], ACOUSTIC).shape == (1, 0, 2)


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("padding_mask", ["valid", "none"])
def test_states_of_many_recordings_are_pooled_as_each_alone(size, padding_mask):
    """To the last bit, whatever stands beside them; states of several layers too."""
    rng = np.random.default_rng(0)
    lengths, stored = [7, 0, 12, 1], [9, 0, 12, 3]
    states = [rng.normal(size=(length, 2, 3)).astype(np.float16) for length in stored]
    params = ACOUSTIC.model_copy(update={"pool_frames": size, "padding_mask": padding_mask})
    ragged, mask = lay_out_states(states, lengths, params)
    padded = ragged.padded()
    assert padded.dtype == torch.float32
    for one, length, row, own in zip(states, lengths, padded, mask, strict=True):
        counted = one[:length] if padding_mask == "valid" else one
        if padding_mask == "none" and len(one):
            counted = np.concatenate([one, np.zeros((1500 - len(one), 2, 3), np.float16)])
        groups = [counted[at : at + size] for at in range(0, len(counted), size)]
        expected = np.zeros((len(row), 2, 3), np.float32)
        for place, group in enumerate(groups):
            for frame in group:
                expected[place] += frame
            expected[place] /= len(group)
        assert own.sum() == len(groups)
        assert row.numpy().tolist() == expected.tolist()


def pooled(states, num_frames, params):
    return lay_out_states(states, num_frames, params)[0].padded()


def test_stored_padding_counts_only_without_a_mask():
    states = torch.arange(10.0).reshape(5, 2).half().numpy()
    assert pooled([states], [3], ACOUSTIC)[0].tolist() == [[1, 2], [4, 5]]
    unmasked = ACOUSTIC.model_copy(update={"padding_mask": "none"})
    (rows,) = pooled([states], [3], unmasked)
    assert rows.shape == (750, 2)
    assert rows[:3].tolist() == [[1, 2], [5, 6], [4, 4.5]]
    assert not rows[3:].any()


def test_stored_padding_changes_no_feature_behind_a_mask(backbone):
    valid = make_world(3)
    noise = np.random.default_rng(0).normal(size=(40, STATE_WIDTH)).astype(np.float16)
    padded = [replace(one, states=np.concatenate([one.states, noise])) for one in valid]
    inputs, same = (collate(backbone, E2E, world).utterances for world in (valid, padded))
    assert torch.equal(inputs.states.padded(), same.states.padded())
    assert torch.equal(inputs.frame_mask, same.frame_mask)


def test_without_a_mask_the_padding_to_a_whole_window_is_attended_to(backbone):
    switches = variant(text=None, acoustic=ACOUSTIC.model_copy(update={"padding_mask": "none"}))
    inputs = collate(backbone, switches, make_world(2)).utterances
    assert inputs.states is not None
    assert inputs.frame_mask is not None
    assert inputs.states.padded().shape[1] == 750
    assert inputs.frame_mask.all()


def test_an_image_is_encoded_once_in_a_batch(backbone):
    utterances = make_world(3, takes=2)
    batch = collate(backbone, FULL, [utterances[i] for i in (4, 0, 5, 1)])
    assert batch.pictures is not None
    assert len(batch.pictures.pixels) == 2
    assert batch.image_index.tolist() == [0, 1, 0, 1]


def test_pixels_equal_open_clips_own_preprocessing(backbone):
    utterances = make_world(2, takes=1)
    batch = collate(backbone, ZERO_SHOT, utterances)
    model = make_model(backbone, ZERO_SHOT)
    pixels = torch.stack(
        [backbone.preprocess(Image.open(io.BytesIO(u.image or b""))) for u in utterances]
    )
    expected = backbone.clip.encode_image(pixels, normalize=True)
    assert batch.pictures is not None
    torch.testing.assert_close(model.encode_images(batch.pictures), expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_all_that_trains_and_nothing_else(backbone):
    batch = collate(backbone, FULL, make_world(2))
    torch.manual_seed(1)
    model = BrewClip(backbone, FULL, (STATE_WIDTH,), learn_temperature=True).train()
    similarity = model.encode_utterances(batch.utterances).embeddings @ (
        model.encode_images(batch.pictures).T
    )
    (model.logit_scale * similarity).std().backward()
    assert all(p.grad is not None for p in model.trained_parameters().values())
    assert all(p.grad is None for p in backbone.clip.parameters())
    assert not backbone.clip.training
    assert model.acoustic is not None
    assert model.acoustic.training


def test_half_precision_gives_about_the_same(backbone):
    batch = collate(backbone, FULL, make_world(3))
    model = make_model(backbone, FULL)
    expected = model.encode_utterances(batch.utterances).embeddings
    with torch.autocast("cpu", torch.bfloat16):
        ours = model.encode_utterances(batch.utterances).embeddings
        images = model.encode_images(batch.pictures)
    assert ours.dtype == images.dtype == torch.float32
    assert F.cosine_similarity(ours, expected).min() > 0.99


def test_the_scale_is_held_at_100(backbone):
    model = make_model(backbone, PROMPTED)
    with torch.no_grad():
        model.log_logit_scale.fill_(9.0)
    model.after_update()
    assert model.logit_scale.item() == pytest.approx(100)
