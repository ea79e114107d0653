"""The contrastive losses (BrewCLIP, section 3.4; masking and averaging from the authors' code)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from brewline.core.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Losses:
    """The loss to minimise and its parts; `inner` is None where it has no weight."""

    total: Tensor
    outer: Tensor
    inner: Tensor | None


def contrastive_loss(
    a_BE: Tensor,
    b_BE: Tensor,
    logit_scale: Tensor | float,
    image_ids_B: Tensor | None = None,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Contrasts paired rows with all other rows, in both directions, averaged.

    Where several processes share a batch each has its own rows against the columns of all.

    Args:
        a_BE: Unit vectors.
        b_BE: Unit vectors; row i belongs to row i of `a_BE`.
        logit_scale: Multiplies the cosine; the inverse of the temperature.
        image_ids_B: Says which rows show the same image. Two such rows are neither a pair nor a
            contrast, and are left out of each other's sum. None: every other row is a contrast.
        ranks: The processes that share the batch.

    Returns:
        The mean over this process's rows, a scalar in fp32: logits reach 14 and more, whose
        exponentials overflow fp16.
    """
    a_BE, b_BE = a_BE.float(), b_BE.float()
    own = ranks.share(ranks.count * len(a_BE)).start
    # Columns are those of all processes, N.
    a_to_b_BN = logit_scale * (a_BE @ ranks.gather(b_BE).T)
    pairs_B = a_to_b_BN.diagonal(own)
    # Of one process the second product is the first one, transposed.
    b_to_a_BN = a_to_b_BN.T if ranks.count == 1 else logit_scale * (b_BE @ ranks.gather(a_BE).T)
    if image_ids_B is not None:
        same_BN = image_ids_B[:, None] == ranks.gather(image_ids_B)[None, :]
        same_BN.diagonal(own).fill_(False)
        a_to_b_BN = a_to_b_BN.masked_fill(same_BN, -torch.inf)
        b_to_a_BN = b_to_a_BN.masked_fill(same_BN, -torch.inf)
    log_sums_B = torch.logsumexp(a_to_b_BN, dim=1) + torch.logsumexp(b_to_a_BN, dim=1)
    return (log_sums_B / 2 - pairs_B).mean()


def brewclip_loss(
    utterances_BE: Tensor,
    images_BE: Tensor,
    channels: tuple[Tensor, Tensor] | None,
    logit_scale: Tensor | float,
    alpha: float,
    image_ids_B: Tensor | None,
    ranks: Ranks = ALONE,
) -> Losses:
    """Weighs the outer loss (utterance, image) against the inner one (acoustic, text).

    Args:
        utterances_BE: Unit embeddings of utterances.
        images_BE: Unit embeddings of their images.
        channels: Acoustic and text features (B, E), of any length; None if there is one channel.
        logit_scale: See `contrastive_loss`.
        alpha: Weight of the inner loss; the outer one has the rest. Without a second channel the
            outer loss has all the weight.
        image_ids_B: See `contrastive_loss`.
        ranks: See `contrastive_loss`.
    """
    outer = contrastive_loss(utterances_BE, images_BE, logit_scale, image_ids_B, ranks)
    if channels is None or alpha == 0:
        return Losses(outer, outer, None)
    acoustic_BE, text_BE = (F.normalize(features.float(), dim=-1) for features in channels)
    inner = contrastive_loss(acoustic_BE, text_BE, logit_scale, image_ids_B, ranks)
    return Losses(alpha * inner + (1 - alpha) * outer, outer, inner)
