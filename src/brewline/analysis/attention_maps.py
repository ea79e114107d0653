"""Which parts of a picture, a text and a recording carry their similarity.

Of one layer of each tower: the attention of the row that becomes the embedding, times how much the
similarity would rise with it where that is positive, as the mean over heads (BrewCLIP, section 4.4;
Chefer et al., 2021). The layer is the last but one, of which the last one reads; of the acoustic
branch, which has no tokens but those of the recording, its last.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brewline.analysis.attended import AttentionMaps, Weights
from brewline.models.attention import watch_attention
from brewline.models.backbones import ClipBackbone
from brewline.models.brewclip import BrewClip
from brewline.samples.collator import Collator
from brewline.samples.shards import Utterance
from brewline.speech.windows import FRAMES_PER_SECOND


def attention_maps(
    model: BrewClip, backbone: ClipBackbone, collator: Collator, utterance: Utterance
) -> AttentionMaps:
    """Computes the maps of an utterance and its own picture.

    Args:
        model: In evaluation mode.
        backbone: The CLIP that it is put on.
        collator: Made for the same variant.
        utterance: With its states, where the model has an acoustic channel.
    """
    device = model.log_logit_scale.device
    inputs = collator.utterance_inputs([utterance]).to(device)
    with watch_attention() as watched:
        spoken = model.encode_utterances(inputs).embeddings
        seen = model.encode_images(collator.pixels([utterance]).to(device))
    similarity = (spoken * seen).sum()
    first = 1 + model.switches.prompts

    def weights(layer: nn.Module, row: int) -> Weights:
        return gradient_weighted(similarity, watched[layer], row)

    num_rows, num_columns = backbone.clip.visual.grid_size
    # Behind the class token; prompts follow.
    of_patches = weights(_attention_of(backbone.clip.visual.transformer), 0)[1:]
    patches = of_patches[: num_rows * num_columns].reshape(num_rows, num_columns)
    words = word_weights = frames = frame_s = None
    if inputs.token_ids is not None:
        end = int(inputs.token_ids[0].argmax())
        # Behind the start token and the prompts, before the end token.
        of_tokens = weights(_attention_of(backbone.clip.transformer), end)[first:end]
        token_ids = inputs.token_ids[0, first:end].tolist()
        words, word_weights = join_tokens(backbone.tokenizer, token_ids, of_tokens)
    if model.acoustic is not None and model.switches.acoustic is not None:
        last: Any = model.acoustic.layers[-1]
        frames = weights(last.self_attn, 0)[first:]
        frame_s = model.switches.acoustic.pool_frames / FRAMES_PER_SECOND
    return AttentionMaps(similarity.item(), patches, words, word_weights, frames, frame_s)


def _attention_of(transformer: Any) -> nn.Module:
    """The attention of the last layer but one; of the only one, where there is no other."""
    attention: nn.Module = transformer.resblocks[-2:][0].attn
    return attention


def gradient_weighted(similarity: Tensor, weights_1HQL: Tensor, row: int) -> Weights:
    """The map of one row: (L,).

    Args:
        similarity: A number that depends on the weights.
        weights_1HQL: What each row attends to, or the row in question alone.
        row: Which one.
    """
    (gradient_1HQL,) = torch.autograd.grad(similarity, weights_1HQL, retain_graph=True)
    at = row if weights_1HQL.shape[2] > 1 else 0
    products_HL = (weights_1HQL * gradient_1HQL)[0, :, at].detach().clamp(min=0)
    found: Weights = products_HL.mean(dim=0).double().cpu().numpy()
    return found


def join_tokens(
    tokenizer: Any, token_ids: Sequence[int], weights_L: Weights
) -> tuple[list[str], Weights]:
    """Joins the parts of words; a word weighs what its parts do together.

    Args:
        tokenizer: Of open_clip: a part that ends a word is decoded with a space behind it.
        token_ids: Of words alone, (L,).
        weights_L: Of each.
    """
    # One of Hugging Face's says of no part whether a word ends; there each stands by itself.
    says_ends = hasattr(tokenizer, "decode")
    decode = tokenizer.decode if says_ends else tokenizer.tokenizer.decode
    words: list[str] = []
    weights: list[float] = []
    ends = True
    for token_id, weight in zip(token_ids, weights_L.tolist(), strict=True):
        text = decode([token_id])
        if ends:
            words.append("")
            weights.append(0.0)
        words[-1] += text.strip()
        weights[-1] += weight
        ends = text.endswith(" ") or not says_ends
    return words, np.array(weights)
