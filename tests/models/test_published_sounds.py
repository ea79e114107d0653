"""Encoders of sounds that others trained: as their libraries run them, in time, and in training."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import world
from published_sounds import LONGEST_S, publish_ast, publish_clap, publish_whisper
from tiny_clips import flac, make_clip, sound_variant, tone
from tiny_models import EMBEDDING_SIZE

from brewline.config import load_params
from brewline.config.backbones import BackbonesParams
from brewline.core.errors import BrewlineError
from brewline.core.files import sha256_tree
from brewline.models import weights
from brewline.models.card import load_backbone_hashes, needed_backbones
from brewline.models.hearing import find_hearing, unheard
from brewline.models.sounds import SoundModel
from brewline.samples.sound_collator import SoundCollator

ENCODERS = ["whisper", "ast", "clap"]
PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
SHARD = PARAMS.shard


def asked(source: Path) -> BackbonesParams:
    """Those of the others that are published in `source`."""
    roles = [role for role in ("whisper", "clip", "ast", "clap") if (source / role).exists()]
    return BackbonesParams.model_validate(
        {role: {"name": role, "source": str(source / role), "sha256": None} for role in roles}
    )


def publish(source: Path) -> dict[str, Any]:
    source.mkdir()
    world.make_clip(source / "clip")
    return {
        "whisper": publish_whisper(source / "whisper"),
        "ast": publish_ast(source / "ast"),
        "clap": publish_clap(source / "clap"),
    }


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A project's folder with their weights, and the models of the libraries."""
    root = tmp_path_factory.mktemp("published")
    models = publish(root / "source")
    weights.prepare_backbones(asked(root / "source"), root / "models/backbones")
    return root, models


@pytest.fixture(autouse=True)
def project(published: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(published[0])
    return published[0]


def switches(encoder: str, rule: str = "multiframe_segment", **options: Any) -> Any:
    options = {"max_duration_s": LONGEST_S[encoder], "patch": None, "stride": None} | options
    return sound_variant(rule, encoder=encoder, **options)


def model_of(backbone: Any, encoder: str, **options: Any) -> tuple[SoundModel, SoundCollator]:
    variant = switches(encoder, **options)
    torch.manual_seed(0)
    model = SoundModel(backbone, variant, 0.07, learn_temperature=True)
    return model, SoundCollator.of(backbone, variant, 0)


def waveform(seconds: float, seed: int = 0) -> torch.Tensor:
    noise = np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16_000))
    return torch.from_numpy(noise).float()


def test_whisper_is_that_of_its_library(published: Any, backbone: Any) -> None:
    _, models = published
    model, _ = model_of(backbone, "whisper")
    heard = find_hearing(model.params).spectrogram(waveform(1.6))
    assert (len(heard.frames), heard.num_own) == (160, 160)
    import whisper

    mel = whisper.log_mel_spectrogram(waveform(1.6), 80)
    torch.testing.assert_close(heard.frames, mel.T)
    found = model.encoder(heard.frames[None], torch.tensor([160]))
    torch.testing.assert_close(found.states, models["whisper"].encoder(mel[None]))
    torch.testing.assert_close(found.times_s[:2], torch.tensor([0.01, 0.03]))


def test_ast_is_that_of_its_library(published: Any, backbone: Any) -> None:
    from transformers import ASTFeatureExtractor

    root, models = published
    model, _ = model_of(backbone, "ast")
    extract = ASTFeatureExtractor.from_pretrained(root / "source/ast")
    sound = waveform(1.2)
    expected = extract(sound.numpy(), sampling_rate=16_000, return_tensors="pt")["input_values"]
    heard = find_hearing(model.params).spectrogram(sound)
    torch.testing.assert_close(heard.frames, expected[0], atol=1e-3, rtol=0)
    assert heard.num_own == 118
    hidden = models["ast"].audio_spectrogram_transformer(expected).last_hidden_state[0, 2:]
    found = model.encoder(expected, torch.tensor([heard.num_own]))
    # 8 rows of bins, each with 19 times.
    by_hand = torch.stack([hidden[time::19].mean(dim=0) for time in range(19)])
    torch.testing.assert_close(found.states[0], by_hand)
    assert found.mask.tolist() == [[True] * 15 + [False] * 4]
    torch.testing.assert_close(found.times_s[:2], torch.tensor([0.04, 0.12]))


@pytest.mark.parametrize("fused", [False, True])
def test_clap_is_that_of_its_library(fused: bool, tmp_path: Path, backbone: Any) -> None:
    import soxr
    from transformers import ClapFeatureExtractor

    source = tmp_path / "source"
    source.mkdir()
    world.make_clip(source / "clip")
    publish_whisper(source / "whisper")
    theirs = publish_clap(source / "clap", fused)
    weights.prepare_backbones(asked(source), tmp_path / "backbones")
    params = switches("clap").sound
    hearing = find_hearing(params, tmp_path / "backbones")
    extract = ClapFeatureExtractor.from_pretrained(source / "clap")
    sound = waveform(0.4)
    loud = soxr.resample(sound.numpy(), 16_000, 48_000)
    expected = extract(loud, sampling_rate=48_000, return_tensors="pt")["input_features"]
    heard = hearing.spectrogram(sound)
    torch.testing.assert_close(heard.frames, expected[0, 0].float())
    assert (len(heard.frames), heard.num_own) == (101, 40)
    encoder = hearing.encoder(backbone)
    found = encoder(heard.frames[None], torch.tensor([heard.num_own]))
    longer = torch.zeros(1, 1, dtype=torch.bool)
    pooled = theirs.audio_model(expected.float(), is_longer=longer).pooler_output
    torch.testing.assert_close(found.states.mean(dim=1), pooled)
    # 32 states of 1 s, 13 of which begin within 0.4 s.
    assert found.states.shape[1] == hearing.num_states == 32
    assert int(found.mask.sum()) == 13
    assert encoder.mean == -30


@pytest.mark.parametrize("encoder", ENCODERS)
def test_states_are_in_the_order_of_time(encoder: str, backbone: Any) -> None:
    """A click changes the states of its own time more than the others."""
    model, _ = model_of(backbone, encoder)
    hearing, length_s = find_hearing(model.params), LONGEST_S[encoder]
    quiet = 0.01 * waveform(length_s)
    plain = hearing.spectrogram(quiet).frames
    found = []
    for place in (0.2, 0.5, 0.8):
        clicked = quiet.clone()
        start = round(place * len(quiet))
        clicked[start : start + 400] += waveform(0.025, seed=1)
        both = torch.stack([plain, hearing.spectrogram(clicked).frames])
        states = model.encoder(both, torch.tensor([len(plain)] * 2))
        far = (states.states[0] - states.states[1]).norm(dim=-1)
        found.append(float(states.times_s[far.argmax()]) / length_s)
    np.testing.assert_allclose(found, [0.2, 0.5, 0.8], atol=0.08)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_other_sounds_of_a_batch_change_nothing(encoder: str, backbone: Any) -> None:
    model, collator = model_of(backbone, encoder)
    clips = [make_clip(1, seconds=0.31), make_clip(2, seconds=0.9), make_clip(3, seconds=0.6)]
    together = model.encode_sounds(collator.sounds(clips))
    for number, clip in enumerate(clips):
        alone = model.encode_sounds(collator.sounds([clip]))
        torch.testing.assert_close(together.clips[number], alone.clips[0])
        torch.testing.assert_close(together.segments[number], alone.segments[0])
    assert together.clips.shape == (3, EMBEDDING_SIZE)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_shortest_sound_has_a_state(encoder: str, backbone: Any) -> None:
    model, collator = model_of(backbone, encoder)
    clip = replace(make_clip(1), sound=flac(tone(549, 0.001)), frames=())
    assert model.encode_sounds(collator.sounds([clip])).clips.isfinite().all()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_all_of_it_learns_and_is_kept(encoder: str, backbone: Any) -> None:
    """By masked spectrograms, whose masks are no louder than the sound; batch norms stand still."""
    options = {"frequency_mask": 8, "time_mask": 20}
    model, collator = model_of(backbone, encoder, **options)
    inputs = collator.sounds([make_clip(number) for number in range(4)])
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    torch.manual_seed(0)
    targets = torch.eye(4, EMBEDDING_SIZE)
    parameters = list(model.trained_parameters().values())
    optimiser = torch.optim.Adam(parameters, lr=1e-2)
    losses = []
    for _ in range(8):
        loss = -(model.encode_sounds(inputs).clips * targets).sum(dim=-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    model.eval()
    again, _ = model_of(backbone, encoder, **options)
    assert not torch.equal(again.encode_sounds(inputs).clips, model.encode_sounds(inputs).clips)
    again.load_trained_tensors(model.trained_tensors())
    assert torch.equal(again.encode_sounds(inputs).clips, model.encode_sounds(inputs).clips)


def test_a_model_names_what_it_hears_with(project: Path) -> None:
    hashes = load_backbone_hashes()
    for encoder in ("ast", "clap"):
        needed = needed_backbones(switches(encoder), hashes)
        assert needed[encoder] == sha256_tree(project / "models/backbones" / encoder)
        assert needed["whisper"] is None
    assert needed_backbones(switches("whisper"), hashes)["whisper"] == hashes["whisper"]
    assert needed_backbones(sound_variant(), hashes).keys() == {"clip", "whisper"}
    # What is added for sounds makes nothing stale that hears speech.
    for name in ("backbones.json", "encoders.json"):
        assert (
            not {"ast", "clap"}
            & json.loads((project / "models/backbones" / name).read_text()).keys()
        )


@pytest.mark.parametrize(
    ("encoder", "options", "words"),
    [
        ("whisper", {"max_duration_s": 1.7}, "1.7 is longer than the 1.6 s that encoder 'whisper'"),
        ("ast", {"max_duration_s": 1.7}, "1.7 is longer than the 1.6 s that encoder 'ast' hears"),
        ("clap", {"max_duration_s": 1.1}, "1.1 is longer than the 1 s that encoder 'clap' hears"),
        ("clap", {"frequency_mask": 17}, "frequency_mask: encoder 'clap' has 16 bins"),
        ("clap", {"segments": 33}, "needs a state for each of 33 parts of a clip, and encoder 'cl"),
        ("ast", {"segments": 20}, "encoder 'ast' has 19 in 1.6 s; take another rule"),
    ],
)
def test_what_it_cannot_give_is_told_before_anything_runs(
    encoder: str, options: dict[str, Any], words: str, project: Path
) -> None:
    folder = project / "models/backbones"
    variants = {"v": switches(encoder, **options), "speech": PARAMS.variants["full"]}
    (problem,) = unheard(variants, SHARD, folder)
    assert problem.startswith("variants.v.sound.")
    assert words in problem
    assert not unheard({"v": switches(encoder)}, SHARD, folder)


def test_frames_need_states_as_segments_do(project: Path) -> None:
    shard = SHARD.model_copy(update={"frames_per_clip": 40})
    variants = {"v": switches("clap"), "whole": switches("clap", "nearest")}
    (problem,) = unheard(variants, shard, project / "models/backbones")
    assert "a state for each of 40 parts" in problem
    # CLIP's own tower too.
    (problem,) = unheard({"v": sound_variant("multiframe_segment", segments=14)}, SHARD, project)
    assert "encoder 'clip' has 13 in 1 s" in problem


@pytest.mark.parametrize(
    ("role", "wants", "words"),
    [
        ("ast", {"sampling_rate": 8000}, "has sampling_rate: 8000, and what we hear by it needs"),
        ("ast", {"num_mel_bins": 64}, "has num_mel_bins: 64"),
        ("clap", {"hop_length": 320}, "has hop_length: 320, and what we hear by it needs 480"),
    ],
)
def test_other_spectrograms_are_refused(
    role: str, wants: dict[str, Any], words: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    world.make_clip(source / "clip")
    publish_whisper(source / "whisper")
    (publish_ast if role == "ast" else publish_clap)(source / role, **wants)
    with pytest.raises(BrewlineError, match=words):
        weights.prepare_backbones(asked(source), tmp_path / "backbones")


def test_missing_weights_are_one_sentence(tmp_path: Path) -> None:
    for encoder in ENCODERS:
        with pytest.raises(BrewlineError, match="run `dvc repro weights`"):
            find_hearing(switches(encoder).sound, tmp_path)


def test_tones_are_told_apart_at_their_times(backbone: Any) -> None:
    """A change of the second half moves its segment more than the first one."""
    for encoder in ENCODERS:
        model, collator = model_of(backbone, encoder)
        clip = make_clip(3, frames=2)
        changed = replace(clip, sound=flac(np.concatenate([tone(549, 0.4), tone(3000, 0.4)])))
        plain = replace(clip, sound=flac(tone(549, 0.8)))
        found = model.encode_sounds(collator.sounds([plain, changed])).segments
        first, second = (found[0] - found[1]).norm(dim=-1)
        assert second > 1.3 * first, encoder
