"""Whisper's decoder over a batch of windows: greedy, sampled, or with beams.

openai-whisper's own `decode` follows the same rules and gives the same texts (`tests/models` holds
ours against it), but takes beams for one window at a time only, keeps a copy of the recording for
each beam, and goes on with windows that have ended for as long as one has not.

Shapes: A windows, K beams, R = A K rows (those of a window together), S new tokens, T encoder
frames, W width, H heads, D = W / H, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import whisper
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from whisper.model import TextDecoder
from whisper.tokenizer import Tokenizer

from brewline.speech.attention import attend, join_heads, to_heads
from brewline.speech.tokenizer import is_multilingual, language_tokens, tokenizer_for

# Loops are looked for every so many tokens.
_LOOP_CHECK_EVERY = 8
# A batch is made smaller when at most this share of its windows has not ended.
_SHRINK_AT = 0.75


@dataclass(frozen=True)
class Decoding:
    """What the decoder makes of a window.

    `avg_logprob` is over the tokens and the end mark. `is_loop`: the text ended in a phrase said
    over and over; `tokens` keep it once. `is_cut`: the text is longer than may be decoded.
    """

    tokens: list[int]
    avg_logprob: float
    no_speech_prob: float
    is_loop: bool
    is_cut: bool = False


class BatchDecoder:
    """Decodes encoder states of one model, each window in its language, without timestamps."""

    def __init__(
        self,
        model: whisper.Whisper,
        tokenizer: Tokenizer,
        max_tokens: int,
        beam_size: int,
        max_repeats: int | None,
    ) -> None:
        """Args are the model, a tokenizer of it, and these limits.

        Args:
            model: Loaded, in the precision it is to run in.
            tokenizer: In any language: which tokens end a text, and never stand in it.
            max_tokens: Where a text is cut off at the latest.
            beam_size: Hypotheses kept at temperature 0; 1 is greedy.
            max_repeats: A phrase said so many times in a row is a loop; None: never.
        """
        self._decoder = model.decoder
        self._dimensions = model.dims
        self._device = model.device
        self._tokenizer = tokenizer
        # As many tokens in every language, of which the first says that a text starts.
        self._num_start = len(tokenizer.sot_sequence_including_notimestamps)
        self._end = tokenizer.eot
        self._no_speech = tokenizer.no_speech
        self._length = min(max_tokens, model.dims.n_text_ctx - self._num_start)
        self._beam_size = beam_size
        self._max_repeats = max_repeats
        self._suppressed = torch.tensor(never_spoken(tokenizer), device=self._device)
        blank = [*tokenizer.encode(" "), tokenizer.eot]
        self._suppressed_first = torch.tensor(blank, device=self._device)

    def detect_languages(self, states_ATW: Tensor) -> list[str]:
        """The likeliest language of each window, by what the decoder says first; English models
        know no other one.

        Args:
            states_ATW: Encoder states of each window.
        """
        if not is_multilingual(self._dimensions):
            return ["en"] * len(states_ATW)
        memory = _Memory(self._decoder, states_ATW, 1)
        start_A1 = torch.full((len(states_ATW), 1), self._tokenizer.sot, device=self._device)
        logits_AV = self._logits(self._advance(start_A1, memory)[:, -1])
        tokens = language_tokens(self._tokenizer)
        best = logits_AV[:, list(tokens.values())].argmax(-1)
        codes = list(tokens)
        return [codes[index] for index in best.tolist()]

    def decode(
        self,
        states_ATW: Tensor,
        languages: Sequence[str],
        temperature: float = 0.0,
        seeds: Sequence[int] = (),
    ) -> list[Decoding]:
        """Decodes a batch.

        Args:
            states_ATW: Encoder states of each window.
            languages: Code of each window's language.
            temperature: 0 takes the likeliest; above it tokens are drawn, without beams.
            seeds: With a temperature above 0, what each window's draws depend on, so that they do
                not depend on its batch.

        Returns:
            One decoding for each window.
        """
        memory = _Memory(self._decoder, states_ATW, self._num_start + self._length)
        starts = [self._start(language) for language in languages]
        hidden_ASW = self._advance(torch.tensor(starts, device=self._device), memory)
        no_speech = self._logits(hidden_ASW[:, 0]).softmax(-1)[:, self._no_speech].tolist()
        logits_AV = self._logits(hidden_ASW[:, -1])
        logits_AV[:, self._suppressed_first] = -torch.inf
        if temperature == 0 and self._beam_size > 1:
            found = self._search(logits_AV, memory)
        else:
            found = self._sample(logits_AV, memory, temperature, seeds)
        return [
            self._decoding(tokens, score, silence)
            for (tokens, score), silence in zip(found, no_speech, strict=True)
        ]

    def _start(self, language: str) -> tuple[int, ...]:
        tokenizer = tokenizer_for(self._dimensions, language)
        return tuple(tokenizer.sot_sequence_including_notimestamps)

    def _decoding(self, tokens: list[int], sum_logprobs: float, no_speech_prob: float) -> Decoding:
        kept = loop_kept_once(tokens, self._max_repeats)
        return Decoding(
            kept,
            sum_logprobs / (len(tokens) + 1),
            no_speech_prob,
            is_loop=len(kept) < len(tokens),
            is_cut=len(tokens) == self._length,
        )

    def _advance(self, tokens_RS: Tensor, memory: "_Memory") -> Tensor:
        """Reads the next tokens of every row; gives what the last layer makes of them (R, S, W)."""
        decoder, start = self._decoder, memory.num_tokens
        rows, count = tokens_RS.shape
        positions = decoder.positional_embedding[start : start + count]
        x_RSW = (decoder.token_embedding(tokens_RS) + positions).to(memory.dtype)
        for layer, block in enumerate(decoder.blocks):
            own, recording = block.attn, block.cross_attn
            normal = block.attn_ln(x_RSW)
            keys, values = memory.extend(layer, own.key(normal), own.value(normal))
            # Several tokens come only at the start, where a causal mask is a square one.
            queries = memory.heads(own.query(normal))
            if count > 1:
                mixed = scaled_dot_product_attention(queries, keys, values, is_causal=True)
            else:
                mixed = attend(queries, keys, values)
            x_RSW = x_RSW + own.out(join_heads(mixed))
            # The beams of a window ask the same recording: their rows are more queries to it.
            asked = recording.query(block.cross_attn_ln(x_RSW))
            queries = memory.heads(asked.reshape(memory.num_windows, -1, asked.shape[-1]))
            mixed = attend(queries, *memory.recordings[layer])
            x_RSW = x_RSW + recording.out(join_heads(mixed).reshape(rows, count, -1))
            x_RSW = x_RSW + block.mlp(block.mlp_ln(x_RSW))
        memory.num_tokens += count
        normal_RSW: Tensor = decoder.ln(x_RSW)
        return normal_RSW

    def _logits(self, hidden_RW: Tensor) -> Tensor:
        weight_VW = self._decoder.token_embedding.weight.to(hidden_RW.dtype)
        logits_RV: Tensor = (hidden_RW @ weight_VW.T).float()
        return logits_RV

    def _sample(
        self, logits_RV: Tensor, memory: "_Memory", temperature: float, seeds: Sequence[int]
    ) -> Iterator[tuple[list[int], float]]:
        """Takes one token after the other; yields tokens and summed log-probability."""
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        # Of each row that is still computed, the window that it belongs to.
        window = torch.arange(len(logits_RV), device=self._device)
        has_ended = torch.zeros_like(window, dtype=torch.bool)
        sums = torch.zeros(len(logits_RV), device=self._device)
        tokens = torch.full((len(logits_RV), self._length), self._end, device=self._device)
        for step in range(self._length):
            logits_RV[:, self._suppressed] = -torch.inf
            if temperature == 0:
                best_R, token_R = logits_RV.max(-1)
            else:
                token_R = draw(logits_RV / temperature, [draws[row] for row in window.tolist()])
                best_R = logits_RV.gather(1, token_R[:, None])[:, 0]
            token_R = token_R.masked_fill(has_ended, self._end)
            sums[window] += (best_R - logits_RV.logsumexp(-1)).masked_fill(has_ended, 0)
            tokens[window, step] = token_R
            has_ended = has_ended | (token_R == self._end)
            if self._max_repeats and step % _LOOP_CHECK_EVERY == _LOOP_CHECK_EVERY - 1:
                has_ended = has_ended | self._in_a_loop(tokens[window, : step + 1])
            going = int((~has_ended).sum())
            if not going or step == self._length - 1:
                break
            if going <= _SHRINK_AT * len(window):
                rows = (~has_ended).nonzero()[:, 0]
                memory.keep(rows)
                memory.keep_windows(rows)
                window, token_R, has_ended = window[rows], token_R[rows], has_ended[rows]
            logits_RV = self._logits(self._advance(token_R[:, None], memory)[:, -1])
        for row, total in zip(tokens.tolist(), sums.tolist(), strict=True):
            yield _until(row, self._end), total

    def _in_a_loop(self, tokens_RS: Tensor) -> Tensor:
        assert self._max_repeats is not None
        loops = [bool(loop_period(row, self._max_repeats)) for row in tokens_RS.tolist()]
        return torch.tensor(loops, device=self._device)

    def _search(self, logits_RV: Tensor, memory: "_Memory") -> Iterator[tuple[list[int], float]]:
        """Beam search; yields tokens and summed log-probability of the best by their mean."""
        searches = [_Search(self._beam_size, self._end) for _ in range(len(logits_RV))]
        going = list(searches)
        sums_R = torch.zeros(len(logits_RV), device=self._device)
        for step in range(self._length):
            logits_RV[:, self._suppressed] = -torch.inf
            best = logits_RV.log_softmax(-1).topk(self._beam_size + 1)
            scores_AC = (sums_R[:, None] + best.values).view(len(going), -1)
            tokens_AC = best.indices.view(len(going), -1)
            # Stable, as equal scores are taken in the order of their beams.
            order_AC = scores_AC.sort(descending=True, stable=True).indices
            beams = len(logits_RV) // len(going)
            for search, order, scores, tokens in zip(
                going, order_AC.tolist(), scores_AC.tolist(), tokens_AC.tolist(), strict=True
            ):
                search.take(order, scores, tokens)
            left = [number for number, search in enumerate(going) if not search.is_done]
            if not left or step == self._length - 1:
                break
            # The first step has one row for each window, later ones one for each beam.
            sources = [number * beams + beam for number in left for beam in going[number].sources]
            memory.keep(torch.tensor(sources, device=self._device))
            if len(left) < len(going):
                memory.keep_windows(torch.tensor(left, device=self._device))
            going = [going[number] for number in left]
            live = [beam for search in going for beam in search.live]
            sums_R = torch.tensor([score for _, score in live], device=self._device)
            last_R1 = torch.tensor([[tokens[-1]] for tokens, _ in live], device=self._device)
            logits_RV = self._logits(self._advance(last_R1, memory)[:, -1])
        for search in searches:
            yield search.best()


class _Search:
    """The beams of one window."""

    def __init__(self, size: int, end: int) -> None:
        self._size = size
        self._end = end
        self._finished: list[tuple[list[int], float]] = []
        self.live: list[tuple[list[int], float]] = [([], 0.0)]
        # Of each live beam, the one that it continues.
        self.sources: list[int] = []

    @property
    def is_done(self) -> bool:
        return len(self._finished) >= self._size

    def take(self, order: list[int], scores: list[float], tokens: list[int]) -> None:
        """Takes the best continuations: `size` + 1 of each live beam, in the order given."""
        live, sources = [], []
        for candidate in order:
            beam = candidate // (self._size + 1)
            text = [*self.live[beam][0], tokens[candidate]]
            if text[-1] == self._end:
                if not self.is_done:
                    self._finished.append((text[:-1], scores[candidate]))
                continue
            live.append((text, scores[candidate]))
            sources.append(beam)
            if len(live) == self._size:
                break
        self.live, self.sources = live, sources

    def best(self) -> tuple[list[int], float]:
        """The best by its mean; beams that did not end stand in where too few did."""
        missing = max(0, self._size - len(self._finished))
        rest = sorted(self.live, key=lambda beam: -beam[1])[:missing]
        return max([*self._finished, *rest], key=lambda beam: beam[1] / len(beam[0]))


class _Memory:
    """What the layers attend to: keys and values of the recordings, and of the text so far."""

    def __init__(self, decoder: TextDecoder, states_ATW: Tensor, max_tokens: int) -> None:
        self._num_heads = decoder.blocks[0].attn.n_head
        self.dtype = states_ATW.dtype
        self.num_tokens = 0
        # Copied once into the order in which every step reads them.
        self.recordings = [
            (
                self.heads(block.cross_attn.key(states_ATW)).contiguous(),
                self.heads(block.cross_attn.value(states_ATW)).contiguous(),
            )
            for block in decoder.blocks
        ]
        num_windows, num_heads, _, size = self.recordings[0][0].shape
        shape = (num_windows, num_heads, max_tokens, size)
        self._texts = [
            (states_ATW.new_empty(shape), states_ATW.new_empty(shape)) for _ in decoder.blocks
        ]

    @property
    def num_windows(self) -> int:
        return len(self.recordings[0][0])

    def heads(self, x_RSW: Tensor) -> Tensor:
        """(R, S, W) to (R, H, S, D)."""
        return to_heads(x_RSW, self._num_heads)

    def extend(self, layer: int, keys_RSW: Tensor, values_RSW: Tensor) -> tuple[Tensor, Tensor]:
        """Adds those of new tokens; gives those of all, (R, H, tokens, D)."""
        stop = self.num_tokens + keys_RSW.shape[1]
        keys, values = self._texts[layer]
        keys[:, :, self.num_tokens : stop] = self.heads(keys_RSW)
        values[:, :, self.num_tokens : stop] = self.heads(values_RSW)
        return keys[:, :, :stop], values[:, :, :stop]

    def keep(self, rows: Tensor) -> None:
        """Goes on with these rows, each of which may be named several times."""
        self._texts = [(keys[rows], values[rows]) for keys, values in self._texts]

    def keep_windows(self, windows: Tensor) -> None:
        """Goes on with the recordings of these windows."""
        self.recordings = [(keys[windows], values[windows]) for keys, values in self.recordings]


def draw(logits_RV: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """One token for each row, by the inverse of its distribution, each by its own generator."""
    uniform = torch.stack(
        [torch.rand((), generator=one, dtype=torch.float64) for one in generators]
    )
    reached_RV = logits_RV.double().softmax(-1).cumsum(-1)
    # The sum may end a little below 1.
    target_R1 = uniform.to(reached_RV.device)[:, None] * reached_RV[:, -1:]
    found_R = torch.searchsorted(reached_RV, target_R1, right=True)[:, 0]
    return found_R.clamp(max=logits_RV.shape[-1] - 1)


def never_spoken(tokenizer: Tokenizer) -> list[int]:
    """The tokens that openai-whisper suppresses by default: no speech, or special."""
    special = [
        tokenizer.transcribe,
        tokenizer.translate,
        tokenizer.sot,
        tokenizer.sot_prev,
        tokenizer.sot_lm,
        tokenizer.no_speech,
    ]
    return sorted({*tokenizer.non_speech_tokens, *special})


def loop_period(tokens: list[int], max_repeats: int) -> int:
    """The length of the phrase that ends a text `max_repeats` times in a row; 0 without one."""
    for period in range(1, len(tokens) // max_repeats + 1):
        tail = tokens[len(tokens) - period * max_repeats :]
        if tail == tail[:period] * max_repeats:
            return period
    return 0


def loop_kept_once(tokens: list[int], max_repeats: int | None) -> list[int]:
    """Leaves of a phrase that ends the text over and over one, and of other texts all."""
    period = loop_period(tokens, max_repeats) if max_repeats else 0
    while period and tokens[-period:] == tokens[-2 * period : -period]:
        tokens = tokens[:-period]
    return tokens


def _until(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens
