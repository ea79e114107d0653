import open_clip
import pytest
import torch
from tiny_models import ACOUSTIC, FULL, make_clip, variant

from brewline.config.shard import ShardParams
from brewline.core.errors import BrewlineError
from brewline.models.backbones import ClipBackbone, load_clip, make_backbone, misfits
from brewline.models.towers import encode_image, encode_text, lay_out_tokens

START, END = 49406, 49407


def texts(backbone: ClipBackbone) -> torch.Tensor:
    return backbone.tokenizer(["a red ball", "", "one two three four five six seven " * 5])


def test_without_prompts_texts_equal_open_clips_own(backbone):
    token_ids = texts(backbone)
    ours = encode_text(backbone.clip, token_ids)
    torch.testing.assert_close(ours, backbone.clip.encode_text(token_ids), rtol=1e-5, atol=1e-5)


def test_without_prompts_images_equal_open_clips_own(backbone):
    pixels = torch.randn(3, 3, backbone.image_size, backbone.image_size)
    ours = encode_image(backbone.clip, pixels)
    torch.testing.assert_close(ours, backbone.clip.encode_image(pixels), rtol=1e-5, atol=1e-5)


def test_three_words_after_four_prompts():
    row = torch.tensor([[START, 11, 12, 13, END] + [0] * 72])
    laid_out = lay_out_tokens(row, 4, END)
    assert laid_out.tolist() == [[START, 0, 0, 0, 0, 11, 12, 13, END] + [0] * 68]
    assert laid_out.argmax() == 8


def test_a_full_text_keeps_71_words_and_the_end():
    row = torch.tensor([[START, *range(1, 76), END]])
    laid_out = lay_out_tokens(row, 4, END)[0].tolist()
    assert laid_out[5:76] == list(range(1, 72))
    assert laid_out[76] == END


def test_a_text_that_just_fits_is_not_cut():
    row = torch.tensor([[START, *range(1, 72), END, 0, 0, 0, 0]])
    assert lay_out_tokens(row, 4, END)[0].tolist() == [START, 0, 0, 0, 0, *range(1, 72), END]


@pytest.mark.parametrize("words_left", [70, 71, 72])
def test_a_word_with_the_id_0_at_the_cut_leaves_the_end(words_left):
    """That of "!" is 0, as padding is: such a text lost its end, and with it all its words."""
    row = torch.tensor([[START, *range(1, words_left), 0, *range(200, 275 - words_left), END]])
    assert row.shape[1] == 77
    laid_out = lay_out_tokens(row, 4, END)
    assert laid_out[0, -1] == END
    assert int((laid_out == END).sum()) == 1
    assert laid_out[0, 5:76].tolist() == row[0, 1:72].tolist()


def test_every_text_keeps_its_end_and_its_words(backbone):
    """Long ones of all kinds, so that whatever id stands at the cut."""
    signs = ["!", "!;", "!$", "a", "dog!", "...!!!"]
    long = [" ".join(signs[(i + j) % len(signs)] for j in range(40)) for i in range(len(signs))]
    for num_prompts in range(6):
        laid_out = lay_out_tokens(backbone.tokenizer(long), num_prompts, END)
        assert ((laid_out == END).sum(dim=1) == 1).all()
        assert (laid_out.argmax(dim=1) > num_prompts + 2).all()


def test_what_has_no_room_in_this_clip_is_named(backbone):
    shard = ShardParams(utterances_per_shard=5, image_short_side_px=32, jpeg_quality=90)
    assert misfits(backbone, {"full": FULL}, shard) == []
    many = variant(prompts=14, acoustic=ACOUSTIC.model_copy(update={"heads": 7}))
    problems = misfits(
        backbone, {"full": many}, shard.model_copy(update={"image_short_side_px": 31})
    )
    assert [problem.split(":")[0] for problem in problems] == [
        "variants.full.acoustic.heads",
        "variants.full.prompts",
        "shard.image_short_side_px",
    ]
    assert "7 heads do not divide the width 24" in problems[0]
    assert (
        "14 leave no room for words in the 16 tokens of this CLIP's texts; 13 at most"
        in (problems[1])
    )
    assert "31 is below the side of 32 pixels" in problems[2]


def test_prompted_text_equals_the_plain_recipe(backbone):
    """The specification step by step, on all 16 positions and with every row computed."""
    clip, prompts = backbone.clip, torch.randn(2, backbone.text_width)
    token_ids = lay_out_tokens(texts(backbone), 2, END)
    x = clip.token_embedding(token_ids)
    x[:, 1:3] = prompts
    x = clip.transformer(x + clip.positional_embedding, attn_mask=clip.attn_mask)
    x = clip.ln_final(x)[torch.arange(3), (token_ids == END).int().argmax(1)]
    ours = encode_text(clip, token_ids, prompts)
    torch.testing.assert_close(ours, x @ clip.text_projection, rtol=1e-5, atol=1e-5)


def test_prompted_image_equals_the_plain_recipe(backbone):
    visual, prompts = backbone.clip.visual, torch.randn(2, backbone.vision_width)
    pixels = torch.randn(2, 3, backbone.image_size, backbone.image_size)
    patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(2, 1, -1), patches], dim=1)
    x = torch.cat([x + visual.positional_embedding, prompts.expand(2, -1, -1)], dim=1)
    x = visual.transformer(visual.ln_pre(x))
    expected = visual.ln_post(x[:, 0]) @ visual.proj
    ours = encode_image(backbone.clip, pixels, prompts)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_cutting_the_padding_changes_nothing(backbone):
    token_ids = lay_out_tokens(backbone.tokenizer(["a red ball", "two"]), 2, END)
    prompts = torch.randn(2, backbone.text_width)
    whole = encode_text(backbone.clip, token_ids, prompts)
    cut = encode_text(backbone.clip, token_ids[:, : int(token_ids.argmax(1).max()) + 1], prompts)
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-6)


def test_words_beyond_the_context_do_not_matter_and_earlier_ones_do(backbone):
    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    rows = backbone.tokenizer([long, long + " fifteen", "zero" + long])
    features = encode_text(backbone.clip, rows)
    assert torch.equal(features[0], features[1])
    assert not torch.allclose(features[0], features[2])


def test_sizes_are_read_from_the_weights(backbone):
    assert (backbone.text_width, backbone.vision_width, backbone.embedding_size) == (24, 32, 20)
    assert (backbone.context_length, backbone.image_size) == (16, 32)
    assert backbone.vocabulary_size == 49408


def test_the_backbone_is_frozen(backbone):
    assert not backbone.clip.training
    assert not any(p.requires_grad for p in backbone.clip.parameters())


def test_an_image_tower_without_class_token_is_refused(backbone):
    clip = make_clip()
    clip.visual.pool_type = "avg"
    with pytest.raises(BrewlineError, match="class token"):
        make_backbone(clip, backbone.tokenizer, backbone.preprocess)


def test_a_convolutional_clip_is_refused(backbone):
    vision = {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}
    text = {"context_length": 8, "vocab_size": 99, "width": 16, "heads": 2, "layers": 1}
    clip = open_clip.CLIP(16, vision_cfg=vision, text_cfg=text)
    with pytest.raises(BrewlineError, match="ModifiedResNet"):
        make_backbone(clip, backbone.tokenizer, backbone.preprocess)


def test_a_folder_in_open_clips_format_is_loaded(clip_folder, backbone):
    loaded = load_clip(clip_folder)
    assert (loaded.context_length, loaded.image_size) == (16, 32)
    token_ids = loaded.tokenizer(["a red ball"])
    assert torch.equal(encode_text(loaded.clip, token_ids), encode_text(backbone.clip, token_ids))


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
