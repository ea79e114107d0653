"""Trains the miniature Whisper on generated speech that is disjoint from the corpora.

The class, the tokenizer and the log-mel are openai-whisper's own. Rows of the vocabulary and of
the text positions that never occur stay zero. An auxiliary CTC head over phonemes, dropped
afterwards, makes the encoder learn sounds first. Then the decoder alone learns to listen, on states
that are computed once: its attention is led along the recording for a while, and some of its
inputs are replaced, because it would otherwise go on guessing the next word from the words before.
Then both learn to cope with noise, echo and cheap microphones, made in the log-mel. In the end the
decoder learns to keep its place in long narrations, as they sound after Opus has compressed them;
this is what takes longest.
"""

import itertools
import lzma
import math
import multiprocessing
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import MethodType

import numpy as np
import torch
import torch.nn.functional as F
from language import (
    ANY_WORD,
    SPONTANEOUS,
    asr_training_pair,
    narration,
    spoken_narration,
    written_narration,
)
from scenes import sample_scene
from scipy.signal import lfilter
from speech import (
    SAMPLE_RATE_HZ,
    Condition,
    degrade,
    make_babble,
    sample_voice,
    synthesise,
    through_opus,
)
from whisper.audio import log_mel_spectrogram, mel_filters
from whisper.model import ModelDimensions, MultiHeadAttention, Whisper
from whisper.tokenizer import get_tokenizer

DIMS = ModelDimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=128,
    n_audio_head=2,
    n_audio_layer=3,
    n_vocab=51864,
    n_text_ctx=448,
    n_text_state=128,
    n_text_head=4,
    n_text_layer=2,
)
CHUNK = 250
MAX_SAMPLES = 29 * SAMPLE_RATE_HZ
TEXT_POSITIONS = 112


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train; a batch holds a fixed length of speech."""

    sentences: int = 9_000
    narrations: int = 6_000
    batch_s: float = 90.0
    ctc_weight: float = 0.4
    sound_steps: int = 1_050
    listening_steps: int = 4_000
    hardening_steps: int = 750
    narration_batch_s: float = 280.0
    narration_steps: int = 7_000
    replaced_inputs: float = 0.08
    guide_width: float = 0.06
    seed: int = 11


def training_condition(rng: random.Random, clean: float) -> Condition:
    """Clean with that chance, else with noise from milder to worse than that of the corpora."""
    if rng.random() < clean:
        return Condition()
    return Condition(
        noise=rng.choice(("white", "pink", "babble")),
        snr_db=rng.uniform(8, 30),
        reverb=rng.choice((0.0, 0.0, 0.3)),
        hum=rng.choice((0.0, 0.0, 0.1)),
        low_pass_hz=rng.choice((0, 0, 0, 3800)),
    )


def narrated_pair(rng: random.Random) -> tuple[str, str]:
    """(spoken SSML, written text) of a whole narration."""
    style = SPONTANEOUS if rng.random() < 0.6 else ANY_WORD
    parts = narration(sample_scene(rng), rng, style)
    return spoken_narration(parts, rng), written_narration(parts)


def make_chunk(task: tuple[Path, int]) -> None:
    """Speaks `CHUNK` texts and stores their log-mels [80, frames] side by side.

    The folder is named after what is spoken: `sentences` or `narrations`.
    """
    folder, chunk = task
    path = folder / f"chunk-{chunk:03d}.npz"
    if path.exists():
        return
    torch.set_num_threads(1)
    babble_rng = random.Random(f"whisper-babble/{folder.name}/{chunk}")
    talk = [asr_training_pair(babble_rng, sample_scene(babble_rng))[1] for _ in range(6)]
    babble = make_babble([synthesise(text, sample_voice(babble_rng)) for text in talk])
    mels, texts = [], []
    for index in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        rng = random.Random(f"whisper-training/{folder.name}/{index}")
        narrated = folder.name == "narrations"
        if narrated:
            spoken, written = narrated_pair(rng)
        else:
            spoken, written = asr_training_pair(rng, sample_scene(rng))
        wave = synthesise(spoken, sample_voice(rng, rates=(135, 195)))[:MAX_SAMPLES]
        condition = training_condition(rng, clean=0.1 if narrated else 0.45)
        wave = degrade(wave, condition, np.random.default_rng(index), babble)
        if narrated and rng.random() < 0.85:
            wave = through_opus(wave)
        mels.append(log_mel_spectrogram(wave).numpy().astype(np.float16))
        texts.append(written)
    lengths = [mel.shape[1] for mel in mels]
    np.savez(path, frames=np.concatenate(mels, axis=1), lengths=lengths, texts=texts)


def make_training_speech(scratch: Path, recipe: Recipe) -> None:
    """All chunks, two processes at a time."""
    tasks = []
    for name, count in (("sentences", recipe.sentences), ("narrations", recipe.narrations)):
        folder = scratch / name
        folder.mkdir(parents=True, exist_ok=True)
        tasks += [(folder, chunk) for chunk in range(count // CHUNK)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for _ in pool.imap_unordered(make_chunk, tasks):
            pass


def batches(
    lengths: dict[int, int], batch_s: float, seed: int, by_length: bool = False
) -> Iterator[list[int]]:
    """Recordings of similar length, `batch_s` seconds together, short ones first if asked.

    Args:
        lengths: Frames of the log-mel by the number of the recording.
        batch_s: Seconds of speech in a batch.
        seed: Of the order.
        by_length: Whether the first pass goes from short to long.
    """
    rng = random.Random(f"batches/{seed}")
    for epoch in itertools.count():
        order = sorted(lengths, key=lambda i: lengths[i] * rng.uniform(0.9, 1.1))
        found: list[list[int]] = [[]]
        for index in order:
            longest = max(lengths[index], 200) / 100
            if longest * (len(found[-1]) + 1) > batch_s:
                found.append([])
            found[-1].append(index)
        if epoch > 0 or not by_length:
            rng.shuffle(found)
        yield from found


class Speech:
    """The training set in memory: log-mels and token rows with compact ids."""

    def __init__(self, scratch: Path) -> None:
        tokenizer = get_tokenizer(multilingual=False)
        self.mels: list[np.ndarray] = []
        texts: list[str] = []
        self.sentences = range(0)
        for path in [
            *sorted((scratch / "sentences").glob("chunk-*.npz")),
            *sorted((scratch / "narrations").glob("chunk-*.npz")),
        ]:
            chunk = np.load(path)
            ends = np.cumsum(chunk["lengths"])[:-1]
            self.mels += np.split(chunk["frames"], ends, axis=1)
            texts += [str(text) for text in chunk["texts"]]
            if path.parent.name == "sentences":
                self.sentences = range(len(texts))
        self.narrations = range(len(self.sentences), len(texts))
        rows = [tokenizer.encode(f" {text}") for text in texts]
        special = {tokenizer.sot, tokenizer.no_timestamps, tokenizer.eot}
        self.used = sorted({token for row in rows for token in row} | special)
        compact = {token: index for index, token in enumerate(self.used)}
        self.rows = [[compact[token] for token in row] for row in rows]
        sounds = pronounce({word for text in texts for word in _words(text)})
        symbols = sorted({symbol for sound in sounds.values() for symbol in sound})
        number = {symbol: index + 1 for index, symbol in enumerate(symbols)}
        self.num_symbols = len(symbols) + 1
        self.phonemes = [
            [number[symbol] for word in _words(text) for symbol in sounds[word]] for text in texts
        ]
        self.letters = torch.tensor([float(len(tokenizer.decode([t]))) for t in self.used])
        self.start = [compact[tokenizer.sot], compact[tokenizer.no_timestamps]]
        self.end = compact[tokenizer.eot]

    def texts(self, numbers: list[int]) -> torch.Tensor:
        """Tokens [B, L] with the end, padded with -100."""
        rows = [torch.tensor([*self.rows[number], self.end]) for number in numbers]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)

    def lengths(self, numbers: Iterable[int]) -> dict[int, int]:
        """Frames of the log-mel by the number of the recording."""
        return {number: self.mels[number].shape[1] for number in numbers}

    def collate(
        self, numbers: list[int], extra_frames: int, sound: Callable[[int], np.ndarray]
    ) -> tuple[torch.Tensor, ...]:
        """Mel [B, 80, T], tokens [B, L], phonemes joined, numbers of frames and phonemes."""
        lengths = list(self.lengths(numbers).values())
        longest = max(lengths) + extra_frames
        longest = min(longest + longest % 2, 3000)
        mel = torch.empty(len(numbers), DIMS.n_mels, longest)
        for place, number in enumerate(numbers):
            frames = torch.from_numpy(sound(number).astype(np.float32))
            # Silence lies at the floor of the log-mel: 8 decades, thus 2, under the maximum.
            mel[place] = frames.max() - 2
            mel[place, :, : frames.shape[1]] = frames
        said = [self.phonemes[number] for number in numbers]
        return (
            mel,
            self.texts(numbers),
            torch.tensor([symbol for one in said for symbol in one]),
            torch.tensor([length // 2 for length in lengths]),
            torch.tensor([len(one) for one in said]),
        )


def _words(text: str) -> list[str]:
    return re.findall("[a-z]+", text.lower())


def pronounce(words: set[str]) -> dict[str, str]:
    """Each word in espeak-ng's phoneme letters, without stress marks."""
    sounds = {}
    for word in sorted(words):
        command = ["espeak-ng", "-q", "-x", "-v", "en-us", word]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        sounds[word] = re.sub(r"[^A-Za-z0-9@]", "", said)
    return sounds


def make_model(used: list[int]) -> Whisper:
    """A Whisper whose unused vocabulary rows and text positions are zero.

    A direction shared by the used rows and the last bias lifts their logits over the zero of the
    fifty thousand unused ones, which the model would otherwise have to learn first.
    """
    model = Whisper(DIMS)
    lift = F.normalize(torch.randn(DIMS.n_text_state), dim=0)
    with torch.no_grad():
        embedding = model.decoder.token_embedding.weight
        embedding.zero_()
        embedding[used] = 0.1 * torch.randn(len(used), DIMS.n_text_state) + lift
        model.decoder.ln.bias.copy_(14 * lift)
        model.decoder.positional_embedding.zero_()
        torch.nn.init.normal_(model.decoder.positional_embedding[:TEXT_POSITIONS], std=0.05)
    return model


def split_heads(attention: MultiHeadAttention, *parts: torch.Tensor) -> list[torch.Tensor]:
    """[B, T, D] each -> [B, heads, T, D / heads] in fp32."""
    return [x.view(*x.shape[:2], attention.n_head, -1).transpose(1, 2).float() for x in parts]


def attend_in_fp32(
    self: MultiHeadAttention,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, None]:
    """Whisper's attention; the processor's bf16 kernel for its gradient is several times slower."""
    heads = split_heads(self, q, k, v)
    with torch.autocast("cpu", enabled=False):
        mixed = F.scaled_dot_product_attention(*heads, is_causal=mask is not None)
    return mixed.transpose(1, 2).flatten(2), None


def encode(model: Whisper, mel: torch.Tensor) -> torch.Tensor:
    """Mel [B, 80, T] -> states [B, T/2, D] over the first positions, not over all 1500."""
    encoder = model.encoder
    x = F.gelu(encoder.conv1(mel))
    x = F.gelu(encoder.conv2(x)).permute(0, 2, 1)
    x = x + encoder.positional_embedding[: x.shape[1]]
    for block in encoder.blocks:
        x = block(x)
    return encoder.ln_post(x)


def decode(
    model: Whisper, inputs: torch.Tensor, states: torch.Tensor, rows: torch.Tensor
) -> torch.Tensor:
    """Logits [B, L, used] of the next token; `rows` [used, D] are the embeddings in use."""
    decoder = model.decoder
    x = F.embedding(inputs, rows)
    x = x + decoder.positional_embedding[: inputs.shape[1]]
    for block in decoder.blocks:
        x = block(x, states, mask=decoder.mask)
    return decoder.ln(x).float() @ rows.T


def token_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the whole vocabulary; every unused row has the logit zero."""
    unused = torch.full((*logits.shape[:-1], 1), math.log(DIMS.n_vocab - logits.shape[-1]))
    whole = torch.cat([logits, unused], dim=-1)
    return F.cross_entropy(whole.flatten(0, 1), targets.flatten(), ignore_index=-100)


class Training:
    """A model in training; the embeddings of the tokens in use are a parameter of their own.

    AdamW over the whole vocabulary would take a tenth of the time for rows that stay zero.
    """

    def __init__(self, data: Speech, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.data, self.recipe = data, recipe
        self.model = make_model(data.used)
        for module in self.model.modules():
            if isinstance(module, MultiHeadAttention):
                module.qkv_attention = MethodType(attend_in_fp32, module)
        embedding = self.model.decoder.token_embedding.weight.requires_grad_(False)
        self.rows = torch.nn.Parameter(embedding[data.used])
        self.ctc_head = torch.nn.Linear(DIMS.n_audio_state, data.num_symbols)
        self.rng = random.Random(f"training/{recipe.seed}")

    def learn_sounds(self) -> None:
        """Encoder and decoder together, led by phonemes."""
        numbers = self._batches(self.data.sentences, self.recipe.batch_s, by_length=True)

        def loss() -> torch.Tensor:
            batch = self._collate(next(numbers), self.data.mels.__getitem__)
            return self._joint_loss(batch, decoder_inputs(batch[1], self.data.start))

        fit("sounds", self._all_parameters(), loss, self.recipe.sound_steps, 1.5e-3)

    def harden(self, worsen: "Worsen") -> None:
        """Both again, on recordings that are made worse in the log-mel."""
        numbers = self._batches(self.data.sentences, self.recipe.batch_s)

        def loss() -> torch.Tensor:
            batch = self._collate(next(numbers), worsen)
            return self._joint_loss(batch, self._noisy_inputs(batch[1]))

        fit("hardening", self._all_parameters(), loss, self.recipe.hardening_steps, 1e-3)

    def learn_to_listen(
        self,
        chosen: Iterable[int],
        sound: Callable[[int], np.ndarray],
        batch_s: float,
        guidance: float,
        steps: int,
    ) -> None:
        """The decoder alone on stored states, led along the recording for two thirds of the way.

        Args:
            chosen: What to listen to.
            sound: Gives the log-mel of a recording.
            batch_s: Seconds of speech in a batch.
            guidance: The first weight of the guidance, which fades to zero.
            steps: All steps, with guidance and without.
        """
        lengths = self.data.lengths(chosen)
        states = self._store_states(lengths, sound)
        encoder = {id(p) for p in self.model.encoder.parameters()}
        parameters = [p for p in self._model_parameters() if id(p) not in encoder]
        numbers = batches(lengths, batch_s, self.recipe.seed)
        attentions = [block.cross_attn for block in self.model.decoder.blocks]
        for attention in attentions:
            attention.qkv_attention = MethodType(attend_and_keep, attention)
        step = itertools.count()

        def loss() -> torch.Tensor:
            loss, away = self._decoder_loss(states, next(numbers))
            guide = sum((a.kept_weights[:, :2, 1:] * away).sum(-1).mean() for a in attentions)
            return loss + guidance * max(0.0, 1 - 1.5 * next(step) / steps) * guide

        fit("listening", parameters, loss, steps, 1.5e-3)
        for attention in attentions:
            attention.qkv_attention = MethodType(attend_in_fp32, attention)

    def finish(self) -> Whisper:
        """The model as openai-whisper knows it."""
        with torch.no_grad():
            self.model.decoder.token_embedding.weight[self.data.used] = self.rows
        return self.model

    def _model_parameters(self) -> list[torch.nn.Parameter]:
        return [*(p for p in self.model.parameters() if p.requires_grad), self.rows]

    def _all_parameters(self) -> list[torch.nn.Parameter]:
        return [*self._model_parameters(), *self.ctc_head.parameters()]

    def _batches(
        self, chosen: Iterable[int], batch_s: float, by_length: bool = False
    ) -> Iterator[list[int]]:
        return batches(self.data.lengths(chosen), batch_s, self.recipe.seed, by_length)

    def _collate(
        self, numbers: list[int], sound: Callable[[int], np.ndarray]
    ) -> tuple[torch.Tensor, ...]:
        return self.data.collate(numbers, self._extra_frames(), sound)

    def _extra_frames(self) -> int:
        """Silence behind the longest recording: mostly short, now and then long."""
        draw = self.rng.random()
        if draw < 0.6:
            return self.rng.randint(0, 200)
        return self.rng.randint(200, 1200) if draw < 0.66 else 0

    def _noisy_inputs(self, tokens: torch.Tensor) -> torch.Tensor:
        """Inputs of the decoder in which a share of the words, but not the start, is random."""
        inputs = decoder_inputs(tokens, self.data.start)
        replaced = torch.rand(inputs.shape) < self.recipe.replaced_inputs
        replaced[:, : len(self.data.start)] = False
        return torch.where(replaced, torch.randint_like(inputs, len(self.data.used)), inputs)

    def _joint_loss(self, batch: tuple[torch.Tensor, ...], inputs: torch.Tensor) -> torch.Tensor:
        mel, tokens, phonemes, num_frames, num_phonemes = batch
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = encode(self.model, mel)
            logits = decode(self.model, inputs, states, self.rows)[:, 1:]
            frame_logits = self.ctc_head(states)
        log_probs = frame_logits.float().log_softmax(-1).transpose(0, 1)
        ctc = F.ctc_loss(log_probs, phonemes, num_frames, num_phonemes, zero_infinity=True)
        return token_loss(logits.float(), tokens) + self.recipe.ctc_weight * ctc

    @torch.no_grad()
    def _store_states(
        self, lengths: dict[int, int], sound: Callable[[int], np.ndarray]
    ) -> dict[int, torch.Tensor]:
        """The encoder's states of every recording with a little silence behind it."""
        states: dict[int, torch.Tensor] = {}
        order = sorted(lengths, key=lengths.__getitem__)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for start in range(0, len(order), 16):
                numbers = order[start : start + 16]
                extra = self.rng.randint(0, 150)
                mel = self.data.collate(numbers, extra, sound)[0]
                for number, one in zip(numbers, encode(self.model, mel).bfloat16(), strict=True):
                    length = lengths[number] + self.rng.randint(0, extra + 1)
                    states[number] = one[: length // 2 + 1].clone()
        return states

    def _decoder_loss(
        self, states: dict[int, torch.Tensor], numbers: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(next-token loss, how far each frame is from where a token is probably spoken)."""
        longest = max(len(states[number]) for number in numbers)
        # The last state is one of silence, so it stands for the silence that pads a batch.
        padded = torch.stack(
            [
                torch.cat([one, one[-1:].expand(longest - len(one), -1)])
                for one in (states[number] for number in numbers)
            ]
        )
        tokens = self.data.texts(numbers)
        inputs = self._noisy_inputs(tokens)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = decode(self.model, inputs, padded, self.rows)[:, 1:]
        num_frames = torch.tensor([n // 2 for n in self.data.lengths(numbers).values()])
        away = distance_from_speech(
            tokens, num_frames, longest, self.data.letters, self.recipe.guide_width
        )
        return token_loss(logits.float(), tokens), away


class Worsen:
    """Echo, noise, a narrow band and gaps, made in the log-mel of a training recording."""

    def __init__(self, mels: list[np.ndarray], seed: int) -> None:
        self.mels = mels
        self.rng = np.random.default_rng(seed)
        top = 2595 * np.log10(1 + 8000 / 700)
        self.hertz = 700 * (10 ** (np.linspace(0, top, DIMS.n_mels) / 2595) - 1)
        self.white = mel_filters("cpu", DIMS.n_mels).numpy().sum(1)

    def __call__(self, index: int) -> np.ndarray:
        """The log-mel [80, frames] of a recording, made worse."""
        power, rng = self._power(index), self.rng
        if rng.random() < 0.35:
            decay = 10 ** (-0.06 / rng.uniform(0.15, 0.5))
            tail = lfilter([0, 1], [1, -decay], power, axis=1)
            power = power + rng.uniform(0.05, 0.75) * (1 - decay) * tail
        if rng.random() < 0.25:
            power = power * np.where(self.hertz > 3500, 1e-3, 1.0)[:, None]
        if rng.random() < 0.75:
            noise = self._noise(power.shape)
            ratio = 10 ** (-rng.uniform(3, 25) / 10)
            power = power + noise * (power.sum() / noise.sum()) * ratio
        log = np.log10(np.maximum(power, 1e-10))
        mel = (np.maximum(log, log.max() - 8) + 4) / 4
        if rng.random() < 0.4:
            first = int(rng.integers(0, 70))
            mel[first : first + int(rng.integers(1, 9))] = mel.min()
        return mel.astype(np.float16)

    def _power(self, index: int) -> np.ndarray:
        return 10.0 ** (4 * self.mels[index].astype(np.float32) - 4)

    def _noise(self, shape: tuple[int, ...]) -> np.ndarray:
        """White noise, pink noise or other people's talk."""
        kind = self.rng.integers(3)
        if kind < 2:
            colour = self.white if kind == 0 else self.white / np.maximum(self.hertz, 60)
            return colour[:, None] * self.rng.gamma(2.0, 0.5, shape)
        talk = np.zeros(shape, np.float32)
        for _ in range(3):
            other = self._power(int(self.rng.integers(len(self.mels))))
            moments = np.arange(shape[1]) + int(self.rng.integers(other.shape[1]))
            talk += np.take(other, moments, axis=1, mode="wrap") / other.mean()
        return talk


def fit(
    name: str,
    parameters: list[torch.nn.Parameter],
    loss_of_step: Callable[[], torch.Tensor],
    steps: int,
    learning_rate: float,
) -> None:
    """AdamW with warm-up and a cosine."""
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / 100, 0.01 + 0.5 * (1 + math.cos(math.pi * step / steps))),
    )
    started = time.monotonic()
    for step in range(steps):
        loss = loss_of_step()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            took = time.monotonic() - started
            print(
                f"{name}: step {step} of {steps}, loss {loss.item():.3f}, {took:.0f} s", flush=True
            )


def attend_and_keep(
    self: MultiHeadAttention,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, None]:
    """Whisper's attention over the recording, with the weights [B, heads, L, T] kept."""
    heads = split_heads(self, q, k, v)
    with torch.autocast("cpu", enabled=False):
        scores = heads[0] @ heads[1].transpose(-1, -2) / math.sqrt(heads[0].shape[-1])
        self.kept_weights = scores.softmax(-1)
        mixed = self.kept_weights @ heads[2]
    return mixed.transpose(1, 2).flatten(2), None


def distance_from_speech(
    tokens: torch.Tensor,
    num_frames: torch.Tensor,
    longest: int,
    letters_of: torch.Tensor,
    width: float,
) -> torch.Tensor:
    """[B, 1, L, T]: near 0 where a token is probably spoken, judged by its letters, else near 1."""
    letters = letters_of[tokens.clamp(min=0)] * (tokens >= 0)
    centres = (letters.cumsum(1) - letters / 2) / letters.sum(1, keepdim=True)
    times = torch.arange(longest) / num_frames[:, None]
    gap = times[:, None, :] - centres[:, :, None]
    away = 1 - torch.exp(-(gap**2) / (2 * width**2))
    return (away * (tokens >= 0)[:, :, None])[:, None]


def decoder_inputs(tokens: torch.Tensor, start: list[int]) -> torch.Tensor:
    """Start tokens, then the text but for its end."""
    lead = torch.tensor(start).expand(len(tokens), len(start))
    return torch.cat([lead, tokens[:, :-1].clamp(min=0)], dim=1)


def save(model: Whisper, path: Path) -> None:
    """An openai-whisper checkpoint, fp16, compressed with xz."""
    state = {name: value.half() for name, value in model.state_dict().items()}
    buffer = BytesIO()
    torch.save({"dims": vars(DIMS), "model_state_dict": state}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(buffer.getvalue(), preset=9))


def build(weights: Path, scratch: Path, recipe: Recipe) -> None:
    """Training speech into `scratch`, then weights into `weights`."""
    make_training_speech(scratch, recipe)
    data = Speech(scratch)
    worsen = Worsen(data.mels, recipe.seed)
    training = Training(data, recipe)
    training.learn_sounds()
    training.learn_to_listen(
        data.sentences, data.mels.__getitem__, recipe.batch_s, 1.0, recipe.listening_steps
    )
    training.harden(worsen)
    # Some sentences stay in, so that short captions are not forgotten.
    training.learn_to_listen(
        [*data.narrations, *data.sentences[::3]],
        lambda number: data.mels[number] if number in data.narrations else worsen(number),
        recipe.narration_batch_s,
        0.3,
        recipe.narration_steps,
    )
    save(training.finish(), weights / "whisper" / "mini.pt.xz")
