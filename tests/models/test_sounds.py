"""The encoder of sounds: spectrograms, where it starts, what padding changes, and segments."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_clips import flac, make_clip, sound_variant, tone
from tiny_models import EMBEDDING_SIZE, VISION

from brewline.core.errors import BrewlineError
from brewline.models.inputs import PictureInputs
from brewline.models.sound_encoders import SoundStates, SpectrogramTransformer
from brewline.models.sounds import SoundModel, masked, segment_weights
from brewline.models.spectrogram import log_mel
from brewline.samples.sound_collator import SoundCollator


@pytest.fixture
def model(backbone):
    return SoundModel(backbone, sound_variant(), 0.07, learn_temperature=True)


@pytest.fixture
def collator(backbone):
    return SoundCollator.of(backbone, sound_variant(), 1)


def slow_log_mel(samples):
    """Window by window, bin by bin, in double precision."""
    samples = samples - samples.mean()
    hann = [0.5 - 0.5 * math.cos(2 * math.pi * n / 399) for n in range(400)]

    def mel(hz):
        return 1127 * math.log(1 + hz / 700)

    low, high = mel(20), mel(8000)
    step = (high - low) / 129
    rows = []
    for start in range(0, len(samples) - 399, 160):
        window = samples[start : start + 400] - samples[start : start + 400].mean()
        shaped = [window[0] * 0.03 * hann[0]]
        shaped += [(window[n] - 0.97 * window[n - 1]) * hann[n] for n in range(1, 400)]
        power = [
            abs(sum(x * np.exp(-2j * np.pi * k * n / 512) for n, x in enumerate(shaped))) ** 2
            for k in range(257)
        ]
        row = []
        for number in range(128):
            left = low + number * step
            energy = 0.0
            for k, value in enumerate(power):
                at = mel(k * 16000 / 512)
                weight = min((at - left) / step, (left + 2 * step - at) / step)
                energy += max(0.0, weight) * value
            row.append(math.log(max(energy, 1.1920929e-07)))
        rows.append(row)
    return np.array(rows)


def test_a_spectrogram_is_what_a_slow_one_is():
    rng = np.random.default_rng(0)
    samples = tone(440, 0.055) + rng.normal(0, 0.05, 880)
    found = log_mel(torch.from_numpy(samples).float()).numpy()
    expected = slow_log_mel(samples)
    assert found.shape == expected.shape == (4, 128)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_spectrogram_is_that_of_other_libraries():
    """The extractor of AST, whose spectrogram is Kaldi's."""
    audio = pytest.importorskip("transformers.audio_utils")
    samples = tone(900, 0.3) + np.random.default_rng(1).normal(0, 0.1, 4800)
    filters = audio.mel_filter_bank(
        num_frequency_bins=257,
        num_mel_filters=128,
        min_frequency=20,
        max_frequency=8000,
        sampling_rate=16000,
        norm=None,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    expected = audio.spectrogram(
        samples - samples.mean(),
        audio.window_function(400, "hann", periodic=False),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=filters,
        log_mel="log",
        mel_floor=1.192092955078125e-07,
        remove_dc_offset=True,
    ).T
    found = log_mel(torch.from_numpy(samples).float()).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=5e-3)


@pytest.mark.parametrize(("samples", "frames"), [(0, 1), (10, 1), (400, 1), (559, 1), (560, 2)])
def test_short_sounds_have_a_frame(samples, frames):
    assert log_mel(torch.zeros(samples)).shape == (frames, 128)


def test_the_encoder_starts_as_the_image_tower(backbone):
    """Of an image's size and with its patches, a spectrogram is seen as a grey picture."""
    side, patch = VISION["image_size"], VISION["patch_size"]
    variant = sound_variant(patch=[patch, patch], stride=[patch, patch], max_duration_s=side / 100)
    encoder = SpectrogramTransformer(backbone, variant.sound)
    visual = backbone.clip.visual
    torch.testing.assert_close(encoder.kernel, visual.conv1.weight.sum(dim=1, keepdim=True))
    torch.testing.assert_close(encoder.class_token, visual.class_embedding)
    # Columns of the grid are stretched from 4 x 4 to 16 x 4: times are as they were.
    square = visual.positional_embedding[1:].T.reshape(-1, 4, 4)
    assert encoder.positions.shape == (VISION["width"], 16, 4)
    torch.testing.assert_close(encoder.positions.mean(dim=1), square.mean(dim=1))
    pooled = torch.randn(2, VISION["width"])
    torch.testing.assert_close(encoder.embed(pooled), visual.ln_post(pooled) @ visual.proj)
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert not any(parameter.requires_grad for parameter in visual.parameters())


def test_a_scaled_kernel_sees_a_plain_surface_as_before(backbone):
    small = SpectrogramTransformer(backbone, sound_variant(patch=[8, 8], stride=[8, 8]).sound)
    large = SpectrogramTransformer(backbone, sound_variant(patch=[32, 16], stride=[32, 16]).sound)
    assert large.kernel.shape[2:] == (32, 16)
    torch.testing.assert_close(
        large.kernel.sum(dim=(1, 2, 3)), small.kernel.sum(dim=(1, 2, 3)), atol=1e-4, rtol=1e-4
    )


def test_another_tower_is_refused_in_one_sentence(backbone):
    broken = replace(backbone, clip=torch.nn.Linear(1, 1))
    with pytest.raises(BrewlineError, match="use a CLIP ViT"):
        SpectrogramTransformer(broken, sound_variant().sound)


def test_padding_changes_nothing(model, collator):
    clips = [make_clip(1, seconds=0.31), make_clip(2, seconds=0.9), make_clip(3, seconds=0.6)]
    together = model.encode_sounds(collator.sounds(clips))
    for number, clip in enumerate(clips):
        alone = model.encode_sounds(collator.sounds([clip]))
        torch.testing.assert_close(together.clips[number], alone.clips[0])
        torch.testing.assert_close(together.segments[number], alone.segments[0])


def test_what_stands_behind_a_sound_changes_nothing(model, collator):
    inputs = collator.sounds([make_clip(1, seconds=0.31), make_clip(2, seconds=0.9)])
    dirty = inputs.spectrograms.clone()
    dirty[0, int(inputs.num_frames[0]) :] = 1e3
    found = model.encode_sounds(replace(inputs, spectrograms=dirty))
    expected = model.encode_sounds(inputs)
    assert torch.equal(found.clips, expected.clips)
    assert torch.equal(found.segments, expected.segments)


def states_of(num_states, own, width=3):
    """State n is n everywhere, at n + 1/2 seconds."""
    values = torch.arange(num_states).float()
    return SoundStates(
        values[None, :, None].expand(1, -1, width),
        torch.arange(num_states)[None] < own,
        values + 0.5,
    )


@pytest.mark.parametrize(
    ("own", "times", "there", "expected"),
    [
        # Equal parts: four states each.
        (8, [2.0, 6.0], [1, 1], [1.5, 5.5]),
        # The padding behind is of nobody.
        (6, [1.5, 4.5], [1, 1], [1.0, 4.0]),
        # Uneven times: borders lie half way.
        (8, [0.5, 1.5, 6.5], [1, 1, 1], [0.0, 2.0, 5.5]),
        # A frame that is not there takes nothing.
        (8, [2.0, 6.0, 0.0], [1, 1, 0], [1.5, 5.5, 0.0]),
        # Behind the end, and between two states: the nearest one.
        (4, [2.0, 7.5], [1, 1], [1.5, 3.0]),
        (4, [1.45, 1.5, 1.55], [1, 1, 1], [0.0, 1.0, 2.5]),
    ],
)
def test_segments_are_the_states_around_a_frame(own, times, there, expected):
    states = states_of(8, own)
    weights = segment_weights(states, torch.tensor([times]), torch.tensor([there]).bool())
    means = (weights @ states.states)[0, :, 0]
    torch.testing.assert_close(means, torch.tensor(expected))
    sums = weights.sum(dim=2)[0]
    torch.testing.assert_close(sums, torch.tensor(there).float())


def test_a_segment_hears_its_own_time(backbone):
    """A change of the second half moves its segment more than the first one."""
    variant = sound_variant("multiframe_segment")
    model = SoundModel(backbone, variant, 0.07, learn_temperature=True)
    collator = SoundCollator.of(backbone, variant, 0)
    clip = make_clip(3, frames=2)
    changed = replace(clip, sound=flac(np.concatenate([tone(549, 0.4), tone(3000, 0.4)])))
    plain = replace(clip, sound=flac(tone(549, 0.8)))
    found = model.encode_sounds(collator.sounds([plain, changed])).segments
    first, second = (found[0] - found[1]).norm(dim=-1)
    assert second > 2 * first


def test_a_clip_of_segments_is_their_mean(backbone):
    variant = sound_variant("multiframe_segment")
    model = SoundModel(backbone, variant, 0.07, learn_temperature=True)
    collator = SoundCollator.of(backbone, variant, 0)
    found = model.encode_sounds(collator.sounds([make_clip(1), make_clip(2, frames=3)]))
    means = torch.stack([found.segments[0].mean(dim=0), found.segments[1, :3].mean(dim=0)])
    torch.testing.assert_close(found.clips, torch.nn.functional.normalize(means, dim=-1))
    assert not found.segments[1, 3].any()


def test_without_frames_a_clip_has_equal_parts(collator):
    clip = replace(make_clip(1, seconds=0.815), frames=())
    inputs = collator.sounds([clip])
    assert int(inputs.num_frames[0]) == 80
    torch.testing.assert_close(inputs.times_s[0], torch.tensor([0.1, 0.3, 0.5, 0.7]))


def test_long_sounds_are_cut(collator):
    inputs = collator.sounds([make_clip(1, seconds=3.0)])
    assert int(inputs.num_frames[0]) == 98


def test_spectrograms_are_masked_in_training_alone(backbone, collator):
    variant = sound_variant(frequency_mask=40, time_mask=1000)
    model = SoundModel(backbone, variant, 0.07, learn_temperature=True)
    inputs = collator.sounds([make_clip(number) for number in range(6)])
    assert torch.equal(model.encode_sounds(inputs).clips, model.encode_sounds(inputs).clips)
    model.train()
    torch.manual_seed(1)
    one = model.encode_sounds(inputs).clips
    torch.manual_seed(1)
    assert torch.equal(one, model.encode_sounds(inputs).clips)
    assert not torch.equal(one, model.encode_sounds(inputs).clips)


def test_masks_are_no_larger_than_asked_for(collator):
    ones = torch.ones(200, 50, 128)
    params = sound_variant(frequency_mask=10, time_mask=20).sound
    found = masked(ones, torch.full((200,), 30), params) == 0
    bins = found.all(dim=1).sum(dim=1)
    frames = found.all(dim=2).sum(dim=1)
    assert int(bins.max()) == 10
    assert int(bins.min()) == 0
    # At most half of a sound's own 30 frames, and none behind them.
    assert int(frames.max()) == 15
    assert not found.all(dim=2)[:, 30:].any()


def test_a_damaged_or_missing_sound_is_told(collator):
    with pytest.raises(BrewlineError, match="has no sound"):
        collator.sounds([replace(make_clip(1), sound=None)])
    with pytest.raises(BrewlineError, match="is damaged"):
        collator.sounds([replace(make_clip(1), sound=b"RIFF nothing")])


def test_pictures_and_texts_are_those_of_the_clip(backbone, model, collator):
    clip = make_clip(4)
    pictures = collator.pictures([clip])
    assert isinstance(pictures, PictureInputs)
    seen = model.encode_pictures(pictures)
    assert seen.shape == (4, EMBEDDING_SIZE)
    assert not seen.requires_grad
    tokens = collator.tokens(list(clip.captions))
    expected = torch.nn.functional.normalize(backbone.clip.encode_text(tokens), dim=-1)
    torch.testing.assert_close(model.encode_texts(tokens), expected)


def test_a_trained_text_tower_is_a_copy(backbone):
    variant = sound_variant(text_tower="trained")
    model = SoundModel(backbone, variant, 0.07, learn_temperature=True, train_text=True)
    names = {name for name in model.trained_parameters() if name.startswith("brewclip.clip.")}
    assert any("token_embedding" in name for name in names)
    assert not any("visual" in name or "logit" in name for name in names)
    assert {model.rate_of(name) for name in names} == {0.1}
    assert not any(parameter.requires_grad for parameter in backbone.clip.parameters())
    heard = SoundModel(backbone, variant, 0.07, learn_temperature=True)
    model.start_from(heard.trained_tensors())
    with pytest.raises(ValueError, match="expected"):
        model.start_from({})
