import pytest
import torch
from tiny_models import ACOUSTIC, FULL, variant

from brewline.config.shard import ShardParams
from brewline.core.errors import BrewlineError
from brewline.models.backbones import ClipBackbone, load_clip, misfits

END = 49407


TEXTS = ["a red ball", "", "one two three four five six seven " * 5]


def texts(backbone: ClipBackbone) -> torch.Tensor:
    return backbone.tokenizer(TEXTS)


def laid_out(backbone: ClipBackbone, some: list[str], padded: bool = True) -> torch.Tensor:
    """Texts with room for two prompts."""
    rows = [backbone.layout.rows(text, 2, "truncate", padded)[0] for text in some]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def test_without_prompts_texts_equal_open_clips_own(backbone):
    token_ids = texts(backbone)
    ours = backbone.towers[0].encode(token_ids)
    torch.testing.assert_close(ours, backbone.clip.encode_text(token_ids), rtol=1e-5, atol=1e-5)


def test_without_prompts_images_equal_open_clips_own(backbone):
    pixels = torch.randn(3, 3, backbone.image_size, backbone.image_size)
    ours = backbone.towers[1].encode(pixels)
    torch.testing.assert_close(ours, backbone.clip.encode_image(pixels), rtol=1e-5, atol=1e-5)


def test_what_has_no_room_in_this_clip_is_named(backbone):
    shard = ShardParams(
        utterances_per_shard=5, image_short_side_px=32, jpeg_quality=90, frames_per_clip=4
    )
    assert misfits(backbone, {"full": FULL}, shard) == []
    many = variant(prompts=14, prompt_depth=3, acoustic=ACOUSTIC.model_copy(update={"heads": 7}))
    problems = misfits(
        backbone, {"full": many}, shard.model_copy(update={"image_short_side_px": 31})
    )
    assert [problem.split(":")[0] for problem in problems] == [
        "variants.full.acoustic.heads",
        "variants.full.prompts",
        "variants.full.prompt_depth",
        "shard.image_short_side_px",
    ]
    assert "7 heads do not divide the width 24" in problems[0]
    assert (
        "14 leave no room for words in the 16 tokens of this CLIP's texts; 13 at most"
        in (problems[1])
    )
    assert "3 are more than the 2 layers" in problems[2]
    assert "31 is below the side of 32 pixels" in problems[3]


def test_prompted_text_equals_the_plain_recipe(backbone):
    """The specification step by step, on all 16 positions and with every row computed."""
    clip, prompts = backbone.clip, torch.randn(2, backbone.text_width)
    token_ids = laid_out(backbone, TEXTS)
    x = clip.token_embedding(token_ids)
    x[:, 1:3] = prompts
    x = clip.transformer(x + clip.positional_embedding, attn_mask=clip.attn_mask)
    x = clip.ln_final(x)[torch.arange(3), (token_ids == END).int().argmax(1)]
    ours = backbone.towers[0].encode(token_ids, [prompts])
    torch.testing.assert_close(ours, x @ clip.text_projection, rtol=1e-5, atol=1e-5)


def test_deep_prompts_take_the_place_of_the_first_ones(backbone):
    """Both of two layers of each tower have their own; the steps written down once more."""
    clip, visual = backbone.clip, backbone.clip.visual
    first, second = torch.randn(2, 2, backbone.text_width)
    token_ids = laid_out(backbone, TEXTS)
    x = clip.token_embedding(token_ids)
    x[:, 1:3] = first
    x = clip.transformer.resblocks[0](x + clip.positional_embedding, attn_mask=clip.attn_mask)
    x[:, 1:3] = second
    x = clip.transformer.resblocks[1](x, attn_mask=clip.attn_mask)
    x = clip.ln_final(x)[torch.arange(3), (token_ids == END).int().argmax(1)]
    ours = backbone.towers[0].encode(token_ids, [first, second])
    torch.testing.assert_close(ours, x @ clip.text_projection, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours, backbone.towers[0].encode(token_ids, [first]))

    first, second = torch.randn(2, 2, backbone.vision_width)
    pixels = torch.randn(2, 3, backbone.image_size, backbone.image_size)
    x = torch.cat([visual._embeds(pixels), visual.ln_pre(first).expand(2, -1, -1)], dim=1)
    x = visual.transformer.resblocks[0](x)
    x = torch.cat([x[:, :-2], second.expand(2, -1, -1)], dim=1)
    x = visual.transformer.resblocks[1](x)
    ours = backbone.towers[1].encode(pixels, [first, second])
    expected = visual.ln_post(x[:, 0]) @ visual.proj
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_prompted_image_equals_the_plain_recipe(backbone):
    visual, prompts = backbone.clip.visual, torch.randn(2, backbone.vision_width)
    pixels = torch.randn(2, 3, backbone.image_size, backbone.image_size)
    patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(2, 1, -1), patches], dim=1)
    x = torch.cat([x + visual.positional_embedding, prompts.expand(2, -1, -1)], dim=1)
    x = visual.transformer(visual.ln_pre(x))
    expected = visual.ln_post(x[:, 0]) @ visual.proj
    ours = backbone.towers[1].encode(pixels, [prompts])
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_cutting_the_padding_changes_nothing(backbone):
    prompts = torch.randn(2, backbone.text_width)
    padded, unpadded = (laid_out(backbone, ["a red ball", "two"], one) for one in (True, False))
    assert padded.shape == (2, 16) and unpadded.shape == (2, 7)
    whole = backbone.towers[0].encode(padded, [prompts])
    cut = backbone.towers[0].encode(unpadded, [prompts])
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-6)


def test_words_beyond_the_context_do_not_matter_and_earlier_ones_do(backbone):
    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    rows = backbone.tokenizer([long, long + " fifteen", "zero" + long])
    features = backbone.towers[0].encode(rows)
    assert torch.equal(features[0], features[1])
    assert not torch.allclose(features[0], features[2])


def test_sizes_are_read_from_the_weights(backbone):
    assert (backbone.text_width, backbone.vision_width, backbone.embedding_size) == (24, 32, 20)
    assert (backbone.context_length, backbone.image_size) == (16, 32)


def test_the_backbone_is_frozen(backbone):
    assert not backbone.clip.training
    assert not any(p.requires_grad for p in backbone.clip.parameters())


def test_a_folder_in_open_clips_format_is_loaded(clip_folder, backbone):
    loaded = load_clip(clip_folder)
    assert (loaded.context_length, loaded.image_size) == (16, 32)
    token_ids = loaded.tokenizer(["a red ball"])
    assert torch.equal(loaded.towers[0].encode(token_ids), backbone.towers[0].encode(token_ids))


def test_missing_weights_are_named(clip_folder):
    (clip_folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(BrewlineError, match=r"open_clip_model\.safetensors is missing"):
        load_clip(clip_folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [("open_clip_model.safetensors", b"short"), ("open_clip_config.json", b"{}")],
)
def test_damaged_files_are_one_sentence(clip_folder, name, content):
    (clip_folder / name).write_bytes(content)
    with pytest.raises(BrewlineError, match="open_clip cannot load the CLIP in"):
        load_clip(clip_folder)
