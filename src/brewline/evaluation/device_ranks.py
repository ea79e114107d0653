"""Ranks counted where the model is: a GPU takes a fraction of a processor's time."""

import numpy as np
import torch
from torch import Tensor

from brewline.evaluation.ranks import Ints, Product


def count_on_device(product: Product, device: torch.device) -> tuple[Ints, Ints]:
    """Counts on a device, in the precision of the vectors; see `ranks.CountBefore`.

    Args:
        product: What is counted.
        device: Where; all vectors have to fit it.
    """
    utterances_UD, images_DI, column_U, least_U = (
        torch.from_numpy(np.ascontiguousarray(one)).to(device)
        for one in (product.utterances, product.images, product.column, product.least)
    )
    takes = [torch.from_numpy(take).to(device) for take in product.takes]
    images_before_U, utterances_before_U = torch.zeros_like(column_U), torch.zeros_like(column_U)
    for rows in product.strips:
        scores_UI: Tensor = utterances_UD[rows] @ images_DI
        scores_UI.scatter_(1, column_U[rows, None], -torch.inf)
        images_before_U[rows] = (scores_UI >= least_U[rows, None]).sum(dim=1)
        for take in takes:
            utterances_before_U[take] += (scores_UI[:, : len(take)] >= least_U[take]).sum(dim=0)
    return images_before_U.cpu().numpy(), utterances_before_U.cpu().numpy()
