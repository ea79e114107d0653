"""The contrastive losses, over pairs that are right, wrong or neither.

InfoNCE is BrewCLIP's (section 3.4; masking and averaging from the authors' code), with several
right ones as in Khosla et al., 2020; the sigmoid loss is that of SigLIP (Zhai et al., 2023).
Where several processes share a batch, each has its own rows against the columns of all, and the
mean of their losses is that of the batch. Shapes: B rows of this process, N rows of the whole
batch, E embedding size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from brewline.config.recipes import SameImage
from brewline.core.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Pairs:
    """Of each row of one side what each row of the other one is, (B, N) each.

    Right ones are `positives`; `ignored` are neither right nor wrong. Where some are less right
    than others, positives are weights. Both must say of a pair what they say of it the other way
    round. `counted` (B,) are the rows that have a loss; None: all. The others must be ignored by
    all but themselves.
    """

    positives: Tensor
    ignored: Tensor
    counted: Tensor | None = None


@dataclass(frozen=True)
class Losses:
    """The loss to minimise and its parts; `inner` is None where it has no weight."""

    total: Tensor
    outer: Tensor
    inner: Tensor | None


def pair_rows(image_ids_B: Tensor, same_image: SameImage, ranks: Ranks = ALONE) -> Pairs:
    """Row i belongs to row i; `same_image` says what other rows with the same picture are.

    Args:
        image_ids_B: Equal where rows show the same picture, in every process.
        same_image: See `brewline.config.recipes`.
        ranks: The processes that share the batch.
    """
    same_BN = image_ids_B[:, None] == ranks.gather(image_ids_B)[None, :]
    own_BN = torch.zeros_like(same_BN)
    own_BN.diagonal(ranks.rank * len(image_ids_B)).fill_(True)
    nothing_BN = torch.zeros_like(own_BN)
    if same_image == "mask":
        return Pairs(own_BN, same_BN & ~own_BN)
    return Pairs(same_BN if same_image == "multi_positive" else own_BN, nothing_BN)


def contrastive_loss(
    a_BE: Tensor,
    b_BE: Tensor,
    logit_scale: Tensor | float,
    pairs: Pairs,
    ranks: Ranks = ALONE,
) -> Tensor:
    """InfoNCE: right rows against all others, in both directions, averaged.

    Of several right ones each counts alike, or by its weight.

    Args:
        a_BE: Unit vectors.
        b_BE: Unit vectors; row i belongs to row i of `a_BE`.
        logit_scale: Multiplies the cosine; the inverse of the temperature.
        pairs: Which are right; ignored ones are left out of the sums.
        ranks: The processes that share the batch.

    Returns:
        The mean over this process's rows, a scalar in fp32: logits reach 14 and more, whose
        exponentials overflow fp16.
    """
    a_BE, b_BE = a_BE.float(), b_BE.float()
    a_to_b_BN = logit_scale * (a_BE @ ranks.gather(b_BE).T)
    # Of one process the second product is the first one, transposed.
    b_to_a_BN = a_to_b_BN.T if ranks.count == 1 else logit_scale * (b_BE @ ranks.gather(a_BE).T)
    weights_BN = pairs.positives.to(a_BE.dtype)
    losses_B = torch.zeros_like(weights_BN[:, 0])
    for logits_BN in (a_to_b_BN, b_to_a_BN):
        rights_B = (logits_BN * weights_BN).sum(dim=1)
        log_sums_B = torch.logsumexp(logits_BN.masked_fill(pairs.ignored, -torch.inf), dim=1)
        losses_B = losses_B + log_sums_B - rights_B / weights_BN.sum(dim=1)
    if pairs.counted is None:
        return losses_B.mean() / 2
    # Each process divides by the mean number, so that the mean of all is that of the batch.
    number = ranks.mean(pairs.counted.sum().to(a_BE.dtype))
    return losses_B.masked_fill(~pairs.counted, 0).sum() / number / 2


def sigmoid_loss(
    a_BE: Tensor,
    b_BE: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor,
    pairs: Pairs,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Each pair by itself is told to be right or wrong; summed, over the rows of the batch.

    Args:
        a_BE: See `contrastive_loss`.
        b_BE: See `contrastive_loss`.
        logit_scale: See `contrastive_loss`.
        logit_bias: Is added to the logits: most pairs are wrong.
        pairs: Which are right; ignored ones do not count.
        ranks: The processes that share the batch.

    Returns:
        A scalar in fp32.
    """
    logits_BN = logit_scale * (a_BE.float() @ ranks.gather(b_BE.float()).T) + logit_bias
    signed_BN = torch.where(pairs.positives, logits_BN, -logits_BN)
    return -F.logsigmoid(signed_BN).masked_fill(pairs.ignored, 0).sum() / len(a_BE)


def brewclip_loss(
    outer: Tensor,
    channels: tuple[Tensor, Tensor] | None,
    alpha: float,
    contrast: Callable[[Tensor, Tensor], Tensor],
) -> Losses:
    """Weighs the outer loss (utterance, image) against the inner one (acoustic, text).

    Args:
        outer: The loss between utterances and their images.
        channels: Acoustic and text features (B, E), of any length; None if there is one channel.
        alpha: Weight of the inner loss; the outer one has the rest. Without a second channel the
            outer loss has all the weight.
        contrast: The loss between two sets of unit vectors.
    """
    if channels is None or alpha == 0:
        return Losses(outer, outer, None)
    acoustic_BE, text_BE = (F.normalize(features.float(), dim=-1) for features in channels)
    inner = contrast(acoustic_BE, text_BE)
    return Losses(alpha * inner + (1 - alpha) * outer, outer, inner)
