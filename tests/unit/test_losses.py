import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from brewline.models.losses import brewclip_loss, contrastive_loss, pair_rows, sigmoid_loss

A = F.normalize(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1]]), dim=1)
B = F.normalize(torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]]), dim=1)
IMAGES = torch.tensor([7, 9, 9, 4])
MASK, CONTRAST, MULTI = (pair_rows(IMAGES, rule) for rule in ("mask", "contrast", "multi_positive"))


@pytest.mark.parametrize(
    ("temperature", "pairs", "expected"),
    [
        (0.07, MASK, 0.475008),
        (1.0, MASK, 1.017368),
        (0.07, CONTRAST, 0.557523),
        (1.0, CONTRAST, 1.140611),
    ],
)
def test_golden_values(temperature, pairs, expected):
    loss = contrastive_loss(A, B, 1 / temperature, pairs)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_the_loss_does_not_depend_on_the_order_of_the_batch():
    order = torch.tensor([2, 0, 3, 1])
    shuffled = contrastive_loss(A[order], B[order], 10.0, pair_rows(IMAGES[order], "mask"))
    torch.testing.assert_close(shuffled, contrastive_loss(A, B, 10.0, MASK))


def test_a_batch_of_one_image_is_no_contrast():
    loss = contrastive_loss(A, B, 10.0, pair_rows(torch.zeros(4), "mask"))
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_half_precision_does_not_overflow():
    loss = contrastive_loss(A.half(), B.half(), 100.0, MASK)
    assert loss.dtype == torch.float32
    assert math.isfinite(loss.item())


CONTRASTED = partial(contrastive_loss, logit_scale=10.0, pairs=MASK)


def test_alpha_weighs_inner_against_outer():
    channels = (3 * A, 0.5 * B)
    losses = brewclip_loss(CONTRASTED(A, B), channels, 0.25, CONTRASTED)
    assert losses.inner is not None
    torch.testing.assert_close(losses.inner, losses.outer)
    losses = brewclip_loss(CONTRASTED(A, B.roll(1, 0)), channels, 0.25, CONTRASTED)
    assert losses.inner is not None
    torch.testing.assert_close(losses.total, 0.25 * losses.inner + 0.75 * losses.outer)


def test_alpha_zero_and_a_single_channel_leave_the_outer_loss():
    for channels, alpha in (((A, B), 0.0), (None, 0.1)):
        losses = brewclip_loss(CONTRASTED(A, B), channels, alpha, CONTRASTED)
        assert losses.inner is None
        assert losses.total is losses.outer


def slow_loss(scale: float, positives: list[list[int]], ignored: list[list[int]]) -> float:
    """InfoNCE row by row, in both directions."""
    terms = []
    for ours, theirs in ((A, B), (B, A)):
        for row in range(4):
            logits = [scale * float(ours[row] @ theirs[other]) for other in range(4)]
            total = sum(math.exp(one) for i, one in enumerate(logits) if i not in ignored[row])
            terms += [
                (math.log(total) - logits[right]) / len(positives[row]) for right in positives[row]
            ]
    return sum(terms) / 8


def test_other_takes_of_a_picture_can_be_right_wrong_or_neither():
    alone, both = [[0], [1], [2], [3]], [[0], [1, 2], [1, 2], [3]]
    nothing, others = [[]] * 4, [[], [2], [1], []]
    for pairs, positives, ignored in (
        (MASK, alone, others),
        (CONTRAST, alone, nothing),
        (MULTI, both, nothing),
    ):
        found = contrastive_loss(A, B, 5.0, pairs).item()
        assert found == pytest.approx(slow_loss(5.0, positives, ignored), abs=1e-5)


def test_the_two_takes_of_a_picture_are_drawn_together_by_multi_positive_alone():
    """The gradient of the cosine between a recording and the picture of the other take."""
    found = {}
    for name, pairs in (("mask", MASK), ("contrast", CONTRAST), ("multi", MULTI)):
        # Recordings along the axes, so that a picture's numbers are its cosines.
        pictures = torch.full((4, 4), 0.5, requires_grad=True)
        contrastive_loss(torch.eye(4), pictures, 1.0, pairs).backward()
        found[name] = float(pictures.grad[2, 1])
    assert found["multi"] < 0 < found["contrast"]
    assert found["mask"] == 0


def test_the_sigmoid_loss_is_that_of_each_pair():
    bias = torch.tensor(-3.0)
    for pairs, right, ignored in (
        (MASK, [(0, 0), (1, 1), (2, 2), (3, 3)], [(1, 2), (2, 1)]),
        (CONTRAST, [(0, 0), (1, 1), (2, 2), (3, 3)], []),
        (MULTI, [(0, 0), (1, 1), (2, 2), (3, 3), (1, 2), (2, 1)], []),
    ):
        total = 0.0
        for i in range(4):
            for j in range(4):
                sign = 1 if (i, j) in right else -1
                logit = 10 * float(A[i] @ B[j]) - 3
                total += 0 if (i, j) in ignored else math.log(1 + math.exp(-sign * logit))
        assert sigmoid_loss(A, B, 10.0, bias, pairs).item() == pytest.approx(total / 4, rel=1e-5)
