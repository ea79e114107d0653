import math

import pytest
import torch
import torch.nn.functional as F

from brewline.models.losses import brewclip_loss, contrastive_loss

A = F.normalize(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1]]), dim=1)
B = F.normalize(torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]]), dim=1)
IMAGES = torch.tensor([7, 9, 9, 4])


@pytest.mark.parametrize(
    ("temperature", "images", "expected"),
    [
        (0.07, IMAGES, 0.475008),
        (1.0, IMAGES, 1.017368),
        (0.07, None, 0.557523),
        (1.0, None, 1.140611),
    ],
)
def test_golden_values(temperature, images, expected):
    loss = contrastive_loss(A, B, 1 / temperature, images)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_the_loss_does_not_depend_on_the_order_of_the_batch():
    order = torch.tensor([2, 0, 3, 1])
    shuffled = contrastive_loss(A[order], B[order], 10.0, IMAGES[order])
    torch.testing.assert_close(shuffled, contrastive_loss(A, B, 10.0, IMAGES))


def test_a_batch_of_one_image_is_no_contrast():
    loss = contrastive_loss(A, B, 10.0, torch.zeros(4))
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_half_precision_does_not_overflow():
    loss = contrastive_loss(A.half(), B.half(), 100.0, IMAGES)
    assert loss.dtype == torch.float32
    assert math.isfinite(loss.item())


def test_alpha_weighs_inner_against_outer():
    channels = (3 * A, 0.5 * B)
    losses = brewclip_loss(A, B, channels, 10.0, 0.25, IMAGES)
    assert losses.inner is not None
    torch.testing.assert_close(losses.inner, losses.outer)
    losses = brewclip_loss(A, B.roll(1, 0), channels, 10.0, 0.25, IMAGES)
    assert losses.inner is not None
    torch.testing.assert_close(losses.total, 0.25 * losses.inner + 0.75 * losses.outer)


def test_alpha_zero_and_a_single_channel_leave_the_outer_loss():
    for channels, alpha in (((A, B), 0.0), (None, 0.1)):
        losses = brewclip_loss(A, B, channels, 10.0, alpha, IMAGES)
        assert losses.inner is None
        assert losses.total is losses.outer
