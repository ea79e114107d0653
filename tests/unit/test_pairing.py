"""Rules of pairing: matrices by hand, golden values by hand, and a slow loss for all of them."""

import math

import pytest
import torch
import torch.nn.functional as F

from brewline.config.sounds import PairingParams
from brewline.models.losses import contrastive_loss
from brewline.models.pairing import (
    ClipVectors,
    choice_entropy,
    choose_nearest,
    clip_pairs,
    margins,
    pair_clips,
    segment_pairs,
)

RULES = {
    "random_frame": {},
    "nearest": {"warm_phase": 0},
    "multiframe_segment": {"same_clip": "mask"},
    "multiframe_clip": {},
}


def params(rule: str, **options: object) -> PairingParams:
    return PairingParams.model_validate({"rule": rule, **RULES[rule], **options})


def vectors(clips: int = 3, frames: int = 2, there: list[list[int]] | None = None) -> ClipVectors:
    drawn = torch.Generator().manual_seed(5)
    mask = torch.ones(clips, frames, dtype=torch.bool)
    return ClipVectors(
        F.normalize(torch.randn(clips, 4, generator=drawn), dim=-1),
        F.normalize(torch.randn(clips, frames, 4, generator=drawn), dim=-1),
        F.normalize(torch.randn(clips, frames, 4, generator=drawn), dim=-1),
        mask if there is None else torch.tensor(there).bool(),
        torch.arange(clips) + 10,
    )


TWO = torch.tensor([1, 2])
ALL = torch.ones(2, 2, dtype=torch.bool)
EYE = torch.eye(4, dtype=torch.bool)
# Two clips of two frames.
TWINS = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]).bool()


def test_segments_of_a_clip_by_hand():
    mask = segment_pairs(TWO, ALL, "mask")
    assert torch.equal(mask.positives, EYE)
    assert torch.equal(mask.ignored, TWINS)
    negative = segment_pairs(TWO, ALL, "negative")
    assert torch.equal(negative.positives, EYE)
    assert not negative.ignored.any()
    soft = segment_pairs(TWO, ALL, "soft")
    torch.testing.assert_close(soft.positives, EYE.float() + 0.5 * TWINS)
    assert not soft.ignored.any()


def test_frames_that_are_further_away_are_less_right():
    soft = segment_pairs(torch.tensor([1]), torch.ones(1, 3, dtype=torch.bool), "soft")
    expected = torch.tensor([[1, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 1]])
    torch.testing.assert_close(soft.positives, expected)


def test_a_clip_and_all_of_its_frames_by_hand():
    pairs = clip_pairs(TWO, ALL)
    assert torch.equal(pairs.positives, EYE | TWINS)
    assert not pairs.ignored.any()


def test_a_frame_that_is_not_there_counts_for_nobody():
    mask = torch.tensor([[1, 1], [1, 0]]).bool()
    for pairs in (segment_pairs(TWO, mask, "negative"), clip_pairs(TWO, mask)):
        assert pairs.counted.tolist() == [True, True, True, False]
        assert pairs.ignored[:3, 3].all()
        assert pairs.ignored[3, :3].all()
        assert not pairs.ignored[:3, :3].any()
        # It needs a right one, or its loss would be no number.
        assert bool(pairs.positives[3, 3])
        assert not pairs.positives[3, :3].any()


def test_the_same_clip_twice_in_a_batch_is_no_wrong_answer():
    twice = torch.tensor([7, 7])
    mask = torch.ones(2, 2, dtype=torch.bool)
    assert segment_pairs(twice, mask, "mask").ignored.sum() == 12
    # The same frame of the other copy is neither, its other frames are wrong.
    assert torch.equal(segment_pairs(twice, mask, "negative").ignored, EYE.roll(2, dims=1))
    assert clip_pairs(twice, mask).positives.all()


def test_the_nearest_frame_is_chosen_among_the_own_ones():
    clips = torch.tensor([[1.0, 0], [0, 1.0]])
    frames = torch.tensor([[[0.0, 1], [0.6, 0.8], [1, 0]], [[1.0, 0], [0.8, 0.6], [0, 1]]])
    found = ClipVectors(clips, None, frames, torch.ones(2, 3, dtype=torch.bool), TWO)
    assert choose_nearest(found).tolist() == [2, 2]
    torch.testing.assert_close(margins(found), torch.tensor([0.4, 0.4]))
    # Without the last frame of the second clip.
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    found = ClipVectors(clips, None, frames, mask, TWO)
    assert choose_nearest(found).tolist() == [2, 1]
    torch.testing.assert_close(margins(found), torch.tensor([0.4, 0.6]))


def test_of_a_single_frame_there_is_no_margin():
    found = vectors(there=[[1, 0], [1, 1], [1, 0]])
    assert margins(found)[[0, 2]].tolist() == [0, 0]
    assert margins(vectors(frames=1)).tolist() == [0, 0, 0]


def test_entropy_by_hand():
    assert choice_entropy(torch.tensor([2, 2, 2]), 4).item() == 0
    assert choice_entropy(torch.tensor([0, 1, 2, 3]), 4).item() == pytest.approx(math.log(4))
    half = choice_entropy(torch.tensor([0, 0, 3, 3]), 4).item()
    assert half == pytest.approx(math.log(2))


def test_choosing_has_no_gradient_and_the_chosen_one_has():
    found = vectors()
    found.frames.requires_grad_()
    paired = pair_clips(found, params("nearest"), is_warm=True)
    assert not paired.chosen.requires_grad
    contrastive_loss(paired.sounds, paired.frames, 10.0, paired.pairs).backward()
    for number, place in enumerate(paired.chosen.tolist()):
        assert found.frames.grad[number, place].any()
        assert not found.frames.grad[number, 1 - place].any()


def test_the_warm_phase_draws():
    found = vectors(clips=60, frames=3)
    torch.manual_seed(0)
    cold = pair_clips(found, params("nearest"), is_warm=False).chosen
    torch.manual_seed(0)
    assert torch.equal(cold, pair_clips(found, params("random_frame"), is_warm=True).chosen)
    assert not torch.equal(cold, pair_clips(found, params("nearest"), is_warm=True).chosen)
    assert set(cold.tolist()) == {0, 1, 2}


def test_frames_that_are_not_there_are_never_drawn():
    found = vectors(clips=50, frames=3, there=[[1, 1, 0]] * 50)
    drawn = pair_clips(found, params("random_frame"), is_warm=True).chosen
    assert set(drawn.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("warm_phase", "steps", "expected"), [(0, 10, 0), (7, 10, 7), (0.25, 40, 10), (1.0, 9, 9)]
)
def test_a_warm_phase_is_in_steps_or_a_share(warm_phase, steps, expected):
    assert params("nearest", warm_phase=warm_phase).warm_steps(steps) == expected


def slow_loss(found: ClipVectors, rule: str, same_clip: str | None, scale: float) -> float:
    """Row by row, in both directions, of the rows that are there."""
    rows = [
        (clip, place)
        for clip in range(len(found.clips))
        for place in range(found.frames.shape[1])
        if found.frame_mask[clip, place]
    ]
    terms = []
    for way in (0, 1):
        for clip, place in rows:
            logits, weights = [], []
            for other, there in rows:
                asked, answer = ((clip, place), (other, there))[:: 1 if way == 0 else -1]
                sound = found.clips[asked[0]]
                if rule == "multiframe_segment":
                    sound = found.segments[asked[0], asked[1]]
                logit = scale * float(sound @ found.frames[answer[0], answer[1]])
                own = (clip, place) == (other, there)
                weight = float(own)
                if other == clip and not own:
                    if same_clip == "mask":
                        continue
                    if same_clip == "soft":
                        weight = 0.5 ** abs(place - there)
                    if rule == "multiframe_clip":
                        weight = 1.0
                logits.append(logit)
                weights.append(weight)
            total = math.log(sum(map(math.exp, logits)))
            right = sum(w * one for w, one in zip(weights, logits, strict=True)) / sum(weights)
            terms.append(total - right)
    return sum(terms) / len(rows) / 2


@pytest.mark.parametrize("there", [None, [[1, 1, 0], [1, 0, 0], [1, 1, 1]]])
@pytest.mark.parametrize(
    ("rule", "same_clip"),
    [
        ("multiframe_segment", "mask"),
        ("multiframe_segment", "negative"),
        ("multiframe_segment", "soft"),
        ("multiframe_clip", None),
    ],
)
def test_the_loss_is_a_slow_one(rule, same_clip, there):
    found = vectors(frames=3, there=there)
    paired = pair_clips(found, params(rule, same_clip=same_clip), is_warm=True)
    loss = contrastive_loss(paired.sounds, paired.frames, 5.0, paired.pairs)
    assert loss.item() == pytest.approx(slow_loss(found, rule, same_clip, 5.0), abs=1e-5)


def test_rows_that_do_not_count_have_no_gradient():
    found = vectors(frames=3, there=[[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    for tensor in (found.clips, found.segments, found.frames):
        tensor.requires_grad_()
    for rule in ("multiframe_segment", "multiframe_clip"):
        paired = pair_clips(found, params(rule), is_warm=True)
        contrastive_loss(paired.sounds, paired.frames, 5.0, paired.pairs).backward()
        assert not found.frames.grad[~found.frame_mask].any()
        assert found.frames.grad.isfinite().all()
        assert found.clips.grad is None or found.clips.grad.isfinite().all()


def test_golden_value_of_two_clips():
    """One frame each: cosines 1 and 0, so each direction has ln(1 + exp(-1))."""
    clips = torch.eye(2)
    frames = torch.eye(2)[:, None]
    mask = torch.ones(2, 1, dtype=torch.bool)
    found = ClipVectors(clips, clips[:, None], frames, mask, TWO)
    for rule in RULES:
        paired = pair_clips(found, params(rule), is_warm=True)
        loss = contrastive_loss(paired.sounds, paired.frames, 1.0, paired.pairs)
        assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-6)


def test_golden_values_of_two_frames():
    """One clip whose two segments are its two frames: only the rule says what the other one is."""
    units = torch.eye(2)[None]
    found = ClipVectors(units[:, 0], units, units, torch.ones(1, 2, dtype=torch.bool), TWO[:1])
    expected = {
        "mask": 0.0,
        "negative": math.log(1 + math.exp(-1)),
        # The right one has two thirds of the weight: ln(e + 1) - 2/3.
        "soft": math.log(math.e + 1) - 2 / 3,
    }
    for same_clip, value in expected.items():
        rule = params("multiframe_segment", same_clip=same_clip)
        paired = pair_clips(found, rule, is_warm=True)
        loss = contrastive_loss(paired.sounds, paired.frames, 1.0, paired.pairs)
        assert loss.item() == pytest.approx(value, abs=1e-6)
