"""The contrastive losses (BrewCLIP, section 3.4; masking and averaging from the authors' code)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Losses:
    """The loss to minimise and its parts; `inner` is None where it has no weight."""

    total: Tensor
    outer: Tensor
    inner: Tensor | None


def contrastive_loss(
    a_BE: Tensor, b_BE: Tensor, logit_scale: Tensor | float, image_index_B: Tensor | None = None
) -> Tensor:
    """Contrasts paired rows with all other rows, in both directions, averaged.

    Args:
        a_BE: Unit vectors.
        b_BE: Unit vectors; row i belongs to row i of `a_BE`.
        logit_scale: Multiplies the cosine; the inverse of the temperature.
        image_index_B: Says which rows show the same image. Two such rows are neither a pair nor a
            contrast, and are left out of each other's sum. None: every other row is a contrast.

    Returns:
        A scalar in fp32: logits reach 14 and more, whose exponentials overflow fp16.
    """
    logits_BB = logit_scale * (a_BE.float() @ b_BE.float().T)
    if image_index_B is not None:
        same_BB = image_index_B[:, None] == image_index_B[None, :]
        same_BB = same_BB.fill_diagonal_(False)
        logits_BB = logits_BB.masked_fill(same_BB, -torch.inf)
    log_sums = torch.logsumexp(logits_BB, dim=1) + torch.logsumexp(logits_BB, dim=0)
    return (log_sums / 2 - logits_BB.diagonal()).mean()


def brewclip_loss(
    utterances_BE: Tensor,
    images_BE: Tensor,
    channels: tuple[Tensor, Tensor] | None,
    logit_scale: Tensor | float,
    alpha: float,
    image_index_B: Tensor | None,
) -> Losses:
    """Weighs the outer loss (utterance, image) against the inner one (acoustic, text).

    Args:
        utterances_BE: Unit embeddings of utterances.
        images_BE: Unit embeddings of their images.
        channels: Acoustic and text features (B, E), of any length; None if there is one channel.
        logit_scale: See `contrastive_loss`.
        alpha: Weight of the inner loss; the outer one has the rest. Without a second channel the
            outer loss has all the weight.
        image_index_B: See `contrastive_loss`.
    """
    outer = contrastive_loss(utterances_BE, images_BE, logit_scale, image_index_B)
    if channels is None or alpha == 0:
        return Losses(outer, outer, None)
    acoustic_BE, text_BE = (F.normalize(features.float(), dim=-1) for features in channels)
    inner = contrastive_loss(acoustic_BE, text_BE, logit_scale, image_index_B)
    return Losses(alpha * inner + (1 - alpha) * outer, outer, inner)
