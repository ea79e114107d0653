"""The cascaded branch: frames become words, which CLIP's own text tower reads (SpeechCLIP-C).

Shih et al., 2022, section 2.4, with the layout of the authors' code, but for one thing: they bring
keywords to the distribution of CLIP's tokens by batch normalisation, so that what becomes of an
utterance depends on whom it shares a batch with. Here each keyword is normalised by itself.

Shapes: B utterances, T frames, S their width, K keywords, V words, W width of the text tower, E
embedding size.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brewline.config.variants import AcousticParams
from brewline.models.attention import attend, is_watched, project
from brewline.models.texts import TextLayout
from brewline.models.towers import TextTower

# Cosines are divided by it; of the authors' code.
_TEMPERATURE = 0.1


class CascadedBranch(nn.Module):
    """Keyword tokens attend to the frames; each becomes the nearest word, for the text tower.

    Forward a keyword is one word; backward it is a mixture of all, by their nearness.

    Args:
        state_width: S.
        tower: CLIP's, frozen; it is no part of this module.
        layout: How its texts are laid out.
        params: Keywords, heads and dropout.
    """

    # What is known before the first step and belongs to the model; see `TrainedModule`.
    kept_buffers = ("vocabulary",)

    def __init__(
        self, state_width: int, tower: TextTower, layout: TextLayout, params: AcousticParams
    ) -> None:
        super().__init__()
        assert params.keywords is not None
        self.vocabulary: Tensor
        self.token_ids: Tensor
        self._tower, self._layout = tower, layout
        self.num_class_tokens = params.keywords
        self.class_tokens = nn.Parameter(torch.randn(params.keywords, state_width))
        self.last_attention = nn.MultiheadAttention(
            state_width, params.heads, params.dropout, batch_first=True
        )
        self.norm = nn.LayerNorm(state_width)
        self.project_out = nn.Linear(state_width, tower.width)
        embeddings = self._embeddings.detach().float()
        # As the tokens of CLIP are spread.
        self.scale = nn.Parameter(embeddings.std(dim=0).repeat(params.keywords, 1))
        self.offset = nn.Parameter(embeddings.mean(dim=0).repeat(params.keywords, 1))
        self.register_buffer("vocabulary", torch.empty(0, dtype=torch.long))
        # Tokenisers know no other device, even where a model is only counted.
        with torch.device("cpu"):
            row = layout.rows("", params.keywords, "truncate", padded=tower.reads_padding)
        self.register_buffer("token_ids", row, persistent=False)

    @property
    def _embeddings(self) -> Tensor:
        weight: Tensor = self._tower.module.token_embedding.weight
        return weight

    def set_vocabulary(self, texts: Iterable[str]) -> None:
        """Lets keywords be the words of these texts, and no others.

        CLIP has 49,000 tokens, of which a corpus has some thousand.
        """
        found = {token for text in texts for token in self._layout.words(text)}
        self.vocabulary = torch.tensor(sorted(found), device=self.class_tokens.device)

    def forward(
        self, states_BTS: Tensor, frame_mask_BT: Tensor, prompts_MW: Tensor | None = None
    ) -> Tensor:
        """Computes acoustic features; see `AcousticBranch`."""
        assert prompts_MW is None
        near_BKV = self._nearness(states_BTS, frame_mask_BT)
        with torch.autocast(near_BKV.device.type, enabled=False):
            soft_BKV = (near_BKV / _TEMPERATURE).softmax(dim=-1)
            hard_BKV = F.one_hot(near_BKV.argmax(dim=-1), near_BKV.shape[-1])
            chosen_BKV = hard_BKV + (soft_BKV - soft_BKV.detach())
            words_BKW = chosen_BKV @ self._embeddings[self.vocabulary].float()
        ids_BL = self.token_ids.expand(len(words_BKW), -1)
        return self._tower.encode(ids_BL, [words_BKW], self._layout.num_before)

    def keywords(self, states_BTS: Tensor, frame_mask_BT: Tensor) -> Tensor:
        """The token of each keyword, (B, K)."""
        return self.vocabulary[self._nearness(states_BTS, frame_mask_BT).argmax(dim=-1)]

    def _nearness(self, states_BTS: Tensor, frame_mask_BT: Tensor) -> Tensor:
        """The cosine of each keyword with each word, (B, K, V) in fp32."""
        if not len(self.vocabulary):
            raise ValueError("a cascaded branch needs the words that it may say")
        class_BKS = self.class_tokens.to(states_BTS.dtype).expand(len(states_BTS), -1, -1)
        x_BLS = torch.cat([class_BKS, states_BTS], dim=1)
        seen_BL = torch.cat([frame_mask_BT.new_ones(class_BKS.shape[:2]), frame_mask_BT], dim=1)
        if is_watched():
            # That of torch mixes with weights that it does not give.
            (query,) = project(self.last_attention, class_BKS, 0, 1)
            key, value = project(self.last_attention, x_BLS, 1, 3)
            mixed_BKS = attend(self.last_attention, query, key, value, seen_BL[:, None, None])
        else:
            mixed_BKS, _ = self.last_attention(
                class_BKS, x_BLS, x_BLS, key_padding_mask=~seen_BL, need_weights=False
            )
        keywords_BKW = self.project_out(self.norm(class_BKS + mixed_BKS))
        with torch.autocast(states_BTS.device.type, enabled=False):
            normal_BKW = F.layer_norm(keywords_BKW.float(), keywords_BKW.shape[-1:])
            keywords_BKW = F.normalize(normal_BKW * self.scale + self.offset, dim=-1)
            words_VW = F.normalize(self._embeddings[self.vocabulary].float(), dim=-1)
            near_BKV: Tensor = keywords_BKW @ words_VW.T
        return near_BKV
