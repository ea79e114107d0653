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
from brewline.config.variants import VariantParams
from brewline.models.attention import watch_attention
from brewline.models.backbones import ClipBackbone
from brewline.models.brewclip import BrewClip
from brewline.samples.collator import Collator
from brewline.samples.utterance import Utterance
from brewline.speech.windows import FRAMES_PER_SECOND


def attention_maps(
    model: BrewClip, backbone: ClipBackbone, collator: Collator, utterance: Utterance
) -> AttentionMaps:
    """Computes the maps of an utterance and its own picture.

    Args:
        model: In evaluation mode.
        backbone: The CLIP that it is put on, which can be watched.
        collator: Made for the same variant.
        utterance: With its states, where the model has an acoustic channel.
    """
    device = model.log_logit_scale.device
    inputs = collator.utterance_inputs([utterance]).to(device)
    with watch_attention() as watched:
        spoken = model.encode_utterances(inputs).embeddings
        seen = model.encode_images(collator.pictures([utterance]).to(device))
    similarity = (spoken * seen).sum()
    text_tower, image_tower = backbone.towers

    def weights(layer: nn.Module, rows: Sequence[int]) -> list[Weights]:
        return gradient_weighted(similarity, watched[layer], rows)

    num_rows, num_columns = image_tower.module.grid_size
    of_image = _attention_of(image_tower.blocks)
    # Behind the class token; prompts follow.
    patches = [
        found[1 : 1 + num_rows * num_columns].reshape(num_rows, num_columns)
        for found in weights(of_image, [0] * len(watched[of_image]))
    ]
    words = word_weights = frames = frame_s = None
    if inputs.token_ids is not None:
        rows = text_tower.rows_that_are_read(inputs.token_ids).tolist()
        of_tokens = weights(_attention_of(text_tower.blocks), rows)
        words, word_weights = _words(model.switches, backbone, utterance, of_tokens)
    if model.acoustic is not None and model.switches.acoustic is not None:
        attention, num_tokens = model.acoustic.last_attention, model.acoustic.num_class_tokens
        # Of several class tokens each asks for itself.
        asked = [weights(attention, [row])[0] for row in range(num_tokens)]
        frames = np.mean(asked, axis=0)[num_tokens + model.switches.prompts :]
        frame_s = model.switches.acoustic.pool_frames / FRAMES_PER_SECOND
    return AttentionMaps(similarity.item(), patches, words, word_weights, frames, frame_s)


def _attention_of(blocks: Sequence[Any]) -> nn.Module:
    """The attention of the last layer but one; of the only one, where there is no other."""
    attention: nn.Module = blocks[-2:][0].attn
    return attention


def _words(
    switches: VariantParams,
    backbone: ClipBackbone,
    utterance: Utterance,
    windows: Sequence[Weights],
) -> tuple[list[str], Weights]:
    """The words that are read and their weights, from those of the tokens of each window."""
    layout = backbone.layout
    # Behind start and prompts.
    first = layout.num_before + switches.prompts
    text = utterance.transcript if switches.text == "asr" else utterance.caption
    token_ids = layout.words(text or "")
    parts = layout.windows(len(token_ids), switches.prompts, switches.long_texts)
    # What stands in two windows weighs what it does in both.
    weights = np.zeros(parts[-1].stop)
    for part, found in zip(parts, windows, strict=True):
        weights[part] += found[first : first + part.stop - part.start]
    return join_tokens(backbone.tokenizer, token_ids[: len(weights)], weights)


def gradient_weighted(
    similarity: Tensor, weights_BHQL: Tensor, rows: Sequence[int]
) -> list[Weights]:
    """The maps of one row of each sequence: (L,) each.

    Args:
        similarity: A number that depends on the weights.
        weights_BHQL: What each row attends to, or the row in question alone.
        rows: Which one of each sequence.
    """
    (gradient_BHQL,) = torch.autograd.grad(similarity, weights_BHQL, retain_graph=True)
    products_BHQL = (weights_BHQL * gradient_BHQL).detach().clamp(min=0)
    alone = weights_BHQL.shape[2] == 1
    return [
        products_BHQL[place, :, 0 if alone else row].mean(dim=0).double().cpu().numpy()
        for place, row in enumerate(rows)
    ]


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
