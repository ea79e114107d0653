"""The contrastive losses, over pairs that are right, wrong or neither.

InfoNCE is BrewCLIP's (section 3.4; masking and averaging from the authors' code), with several
right ones as in Khosla et al., 2020; the sigmoid loss is that of SigLIP (Zhai et al., 2023).
Shapes: B rows of a batch, E embedding size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from brewline.config.recipes import SameImage


@dataclass(frozen=True)
class Pairs:
    """Of each row of one side what each row of the other one is, (B, B) each.

    Right ones are `positives`; `ignored` are neither right nor wrong.
    """

    positives: Tensor
    ignored: Tensor


@dataclass(frozen=True)
class Losses:
    """The loss to minimise and its parts; `inner` is None where it has no weight."""

    total: Tensor
    outer: Tensor
    inner: Tensor | None


def pair_rows(image_index_B: Tensor, same_image: SameImage) -> Pairs:
    """Row i belongs to row i; `same_image` says what other rows with the same picture are.

    Args:
        image_index_B: Equal where rows show the same picture.
        same_image: See `brewline.config.recipes`.
    """
    own_BB = torch.eye(len(image_index_B), dtype=torch.bool, device=image_index_B.device)
    same_BB = image_index_B[:, None] == image_index_B[None, :]
    nothing_BB = torch.zeros_like(own_BB)
    if same_image == "mask":
        return Pairs(own_BB, same_BB & ~own_BB)
    return Pairs(same_BB if same_image == "multi_positive" else own_BB, nothing_BB)


def contrastive_loss(
    a_BE: Tensor, b_BE: Tensor, logit_scale: Tensor | float, pairs: Pairs
) -> Tensor:
    """InfoNCE: right rows against all others, in both directions, averaged.

    Of several right ones each counts alike.

    Args:
        a_BE: Unit vectors.
        b_BE: Unit vectors; row i belongs to row i of `a_BE`.
        logit_scale: Multiplies the cosine; the inverse of the temperature.
        pairs: Which are right; ignored ones are left out of the sums.

    Returns:
        A scalar in fp32: logits reach 14 and more, whose exponentials overflow fp16.
    """
    logits_BB = logit_scale * (a_BE.float() @ b_BE.float().T)
    right_BB = logits_BB.masked_fill(~pairs.positives, 0)
    logits_BB = logits_BB.masked_fill(pairs.ignored, -torch.inf)
    log_sums = torch.logsumexp(logits_BB, dim=1) + torch.logsumexp(logits_BB, dim=0)
    # A row has as many right ones as a column.
    rights = (right_BB.sum(dim=1) + right_BB.sum(dim=0)) / pairs.positives.sum(dim=1)
    return ((log_sums - rights) / 2).mean()


def sigmoid_loss(
    a_BE: Tensor, b_BE: Tensor, logit_scale: Tensor | float, logit_bias: Tensor, pairs: Pairs
) -> Tensor:
    """Each pair by itself is told to be right or wrong; summed, over the rows of the batch.

    Args:
        a_BE: See `contrastive_loss`.
        b_BE: See `contrastive_loss`.
        logit_scale: See `contrastive_loss`.
        logit_bias: Is added to the logits: most pairs are wrong.
        pairs: Which are right; ignored ones do not count.

    Returns:
        A scalar in fp32.
    """
    logits_BB = logit_scale * (a_BE.float() @ b_BE.float().T) + logit_bias
    signed_BB = torch.where(pairs.positives, logits_BB, -logits_BB)
    return -F.logsigmoid(signed_BB).masked_fill(pairs.ignored, 0).sum() / len(a_BE)


def brewclip_loss(
    utterances_BE: Tensor,
    images_BE: Tensor,
    channels: tuple[Tensor, Tensor] | None,
    alpha: float,
    contrast: Callable[[Tensor, Tensor], Tensor],
) -> Losses:
    """Weighs the outer loss (utterance, image) against the inner one (acoustic, text).

    Args:
        utterances_BE: Unit embeddings of utterances.
        images_BE: Unit embeddings of their images.
        channels: Acoustic and text features (B, E), of any length; None if there is one channel.
        alpha: Weight of the inner loss; the outer one has the rest. Without a second channel the
            outer loss has all the weight.
        contrast: The loss between two sets of unit vectors.
    """
    outer = contrast(utterances_BE, images_BE)
    if channels is None or alpha == 0:
        return Losses(outer, outer, None)
    acoustic_BE, text_BE = (F.normalize(features.float(), dim=-1) for features in channels)
    inner = contrast(acoustic_BE, text_BE)
    return Losses(alpha * inner + (1 - alpha) * outer, outer, inner)
