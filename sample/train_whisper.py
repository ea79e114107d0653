"""Trains the miniature Whisper on generated speech that is disjoint from the corpora.

The class, the tokenizer and the log-mel are openai-whisper's own. Rows of the vocabulary and of
the text positions that never occur stay zero. An auxiliary CTC head over phonemes, dropped
afterwards, makes the encoder learn sounds first. Then the decoder alone learns to listen, on states
that are computed once: its attention is led along the recording for a while, and some of its
inputs are replaced, because it would otherwise go on guessing the next word from the words before.
Then both learn to cope with noise, echo and cheap microphones, made in the log-mel. In the end the
decoder learns to keep its place in long recordings, which are several joined to one.
"""

import itertools
import lzma
import math
import multiprocessing
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import MethodType

import numpy as np
import torch
import torch.nn.functional as F
from language import asr_training_pair
from scenes import sample_scene
from scipy.signal import lfilter
from speech import Condition, degrade, make_babble, sample_voice, synthesise
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
TEXT_POSITIONS = 112


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train; a batch holds a fixed length of speech."""

    utterances: int = 9_000
    batch_s: float = 90.0
    ctc_weight: float = 0.4
    sound_steps: int = 1_050
    guided_steps: int = 1_500
    listening_steps: int = 2_500
    hardening_steps: int = 750
    joined: int = 5_000
    joined_s: tuple[float, float] = (7.0, 23.0)
    joined_steps: int = 2_000
    replaced_inputs: float = 0.1
    guide_width: float = 0.08
    seed: int = 11


def training_condition(rng: random.Random) -> Condition:
    """Mostly clean, sometimes with a noise milder than the narrations have."""
    if rng.random() < 0.45:
        return Condition()
    return Condition(
        noise=rng.choice(("white", "pink", "babble")),
        snr_db=rng.uniform(8, 30),
        reverb=rng.choice((0.0, 0.0, 0.3)),
        hum=rng.choice((0.0, 0.0, 0.1)),
        low_pass_hz=rng.choice((0, 0, 0, 3800)),
    )


def make_chunk(task: tuple[Path, int]) -> None:
    """Speaks `CHUNK` sentences and stores their log-mels [80, frames] side by side."""
    folder, chunk = task
    path = folder / f"chunk-{chunk:03d}.npz"
    if path.exists():
        return
    torch.set_num_threads(1)
    babble_rng = random.Random(f"whisper-babble/{chunk}")
    talk = [asr_training_pair(babble_rng, sample_scene(babble_rng))[1] for _ in range(6)]
    babble = make_babble([synthesise(text, sample_voice(babble_rng)) for text in talk])
    mels, texts = [], []
    for index in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        rng = random.Random(f"whisper-training/{index}")
        spoken, written = asr_training_pair(rng, sample_scene(rng))
        wave = synthesise(spoken, sample_voice(rng, rates=(135, 195)))
        generator = np.random.default_rng(index)
        wave = degrade(wave, training_condition(rng), generator, babble)
        mels.append(log_mel_spectrogram(wave).numpy().astype(np.float16))
        texts.append(written)
    lengths = [mel.shape[1] for mel in mels]
    np.savez(path, frames=np.concatenate(mels, axis=1), lengths=lengths, texts=texts)


def make_training_speech(folder: Path, utterances: int) -> None:
    """All chunks, two processes at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [(folder, chunk) for chunk in range(utterances // CHUNK)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for _ in pool.imap_unordered(make_chunk, tasks):
            pass


# One training example: the recordings that are joined to it, mostly one.
Clip = list[int]


def batches(lengths: list[int], recipe: Recipe, by_length: bool = False) -> Iterator[list[int]]:
    """Numbers of clips of similar length, `batch_s` seconds together, short ones first if asked."""
    rng = random.Random(f"batches/{recipe.seed}")
    for epoch in itertools.count():
        order = sorted(range(len(lengths)), key=lambda i: lengths[i] * rng.uniform(0.9, 1.1))
        found: list[list[int]] = [[]]
        for index in order:
            longest = max(lengths[index], 200) / 100
            if longest * (len(found[-1]) + 1) > recipe.batch_s:
                found.append([])
            found[-1].append(index)
        if epoch > 0 or not by_length:
            rng.shuffle(found)
        yield from found


class Speech:
    """The training set in memory: log-mels and token rows with compact ids."""

    def __init__(self, folder: Path) -> None:
        tokenizer = get_tokenizer(multilingual=False)
        self.mels: list[np.ndarray] = []
        texts: list[str] = []
        for path in sorted(folder.glob("chunk-*.npz")):
            chunk = np.load(path)
            ends = np.cumsum(chunk["lengths"])[:-1]
            self.mels += np.split(chunk["frames"], ends, axis=1)
            texts += [str(text) for text in chunk["texts"]]
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

    def texts(self, clips: list[Clip]) -> torch.Tensor:
        """Tokens [B, L] with the end, padded with -100."""
        rows = [
            torch.tensor([*(token for index in clip for token in self.rows[index]), self.end])
            for clip in clips
        ]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)

    def num_frames(self, clip: Clip) -> int:
        """The length of a clip in frames of the log-mel."""
        return sum(self.mels[index].shape[1] for index in clip)

    def join(self, recipe: Recipe) -> list[Clip]:
        """Chooses recordings that make long ones together."""
        rng = random.Random(f"joined/{recipe.seed}")
        shortest, longest = (round(100 * seconds) for seconds in recipe.joined_s)
        joined: list[Clip] = []
        while len(joined) < recipe.joined:
            clip = [rng.randrange(len(self.mels)) for _ in range(rng.choice((2, 3, 3, 4)))]
            if shortest <= self.num_frames(clip) <= longest:
                joined.append(clip)
        return joined

    def collate(
        self, clips: list[Clip], extra_frames: int, sound: Callable[[int], np.ndarray]
    ) -> tuple[torch.Tensor, ...]:
        """Mel [B, 80, T], tokens [B, L], phonemes joined, numbers of frames and phonemes."""
        longest = max(map(self.num_frames, clips)) + extra_frames
        longest = min(longest + longest % 2, 3000)
        mel = torch.empty(len(clips), DIMS.n_mels, longest)
        for place, clip in enumerate(clips):
            joined = np.concatenate([sound(index) for index in clip], axis=1)
            frames = torch.from_numpy(joined.astype(np.float32))[:, :longest]
            # Silence lies at the floor of the log-mel: 8 decades, thus 2, under the maximum.
            floor = frames.max() - 2
            mel[place] = floor
            mel[place, :, : frames.shape[1]] = frames.clamp(min=floor)
        said = [[symbol for index in clip for symbol in self.phonemes[index]] for clip in clips]
        return (
            mel,
            self.texts(clips),
            torch.tensor([symbol for one in said for symbol in one]),
            torch.tensor([min(self.num_frames(clip), longest) // 2 for clip in clips]),
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


def attend_in_fp32(
    self: MultiHeadAttention,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, None]:
    """Whisper's attention; the processor's bf16 kernel for its gradient is several times slower."""
    heads = [x.view(*x.shape[:2], self.n_head, -1).transpose(1, 2).float() for x in (q, k, v)]
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
        self.singles: list[Clip] = [[index] for index in range(len(data.mels))]

    def learn_sounds(self) -> None:
        """Encoder and decoder together, led by phonemes."""
        parameters = [*self._model_parameters(), *self.ctc_head.parameters()]
        numbers = batches(self._lengths(self.singles), self.recipe, by_length=True)

        def loss() -> torch.Tensor:
            batch = self._collate(next(numbers), self.data.mels.__getitem__)
            return self._joint_loss(batch, decoder_inputs(batch[1], self.data.start))

        fit("sounds", parameters, loss, self.recipe.sound_steps, 1.5e-3)

    def harden(self) -> None:
        """Both again, on recordings that are made worse in the log-mel."""
        parameters = [*self._model_parameters(), *self.ctc_head.parameters()]
        worsen = Worsen(self.data.mels, self.recipe.seed)
        numbers = batches(self._lengths(self.singles), self.recipe)

        def loss() -> torch.Tensor:
            batch = self._collate(next(numbers), worsen)
            return self._joint_loss(batch, self._noisy_inputs(batch[1]))

        fit("hardening", parameters, loss, self.recipe.hardening_steps, 1e-3)

    def learn_to_listen(
        self, clips: list[Clip], sound: Callable[[int], np.ndarray], guided: int, free: int
    ) -> None:
        """The decoder alone on stored states: first led along the recording, then free.

        Args:
            clips: What to listen to.
            sound: Gives the log-mel of a recording.
            guided: Steps with guidance, which fades.
            free: Steps without.
        """
        states = self._store_states(clips, sound)
        encoder = {id(p) for p in self.model.encoder.parameters()}
        parameters = [p for p in self._model_parameters() if id(p) not in encoder]
        numbers = batches(self._lengths(clips), self.recipe)
        attentions = [block.cross_attn for block in self.model.decoder.blocks]
        for attention in attentions:
            attention.qkv_attention = MethodType(attend_and_keep, attention)
        step = itertools.count()

        def guided_loss() -> torch.Tensor:
            loss, away = self._decoder_loss(clips, states, next(numbers))
            guide = sum((a.kept_weights[:, :2, 1:] * away).sum(-1).mean() for a in attentions)
            return loss + max(0.0, 1 - 2 * next(step) / guided) * guide

        def free_loss() -> torch.Tensor:
            return self._decoder_loss(clips, states, next(numbers))[0]

        fit("guided", parameters, guided_loss, guided, 2e-3)
        for attention in attentions:
            attention.qkv_attention = MethodType(attend_in_fp32, attention)
        fit("listening", parameters, free_loss, free, 1.5e-3)

    def finish(self) -> Whisper:
        """The model as openai-whisper knows it."""
        with torch.no_grad():
            self.model.decoder.token_embedding.weight[self.data.used] = self.rows
        return self.model

    def _model_parameters(self) -> list[torch.nn.Parameter]:
        return [*(p for p in self.model.parameters() if p.requires_grad), self.rows]

    def _lengths(self, clips: list[Clip]) -> list[int]:
        return [self.data.num_frames(clip) for clip in clips]

    def _collate(
        self, numbers: list[int], sound: Callable[[int], np.ndarray]
    ) -> tuple[torch.Tensor, ...]:
        clips = [self.singles[number] for number in numbers]
        return self.data.collate(clips, self._extra_frames(), sound)

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
        self, clips: list[Clip], sound: Callable[[int], np.ndarray]
    ) -> list[torch.Tensor]:
        """The encoder's states of every clip with a little silence behind it."""
        states: list[torch.Tensor] = [torch.empty(0)] * len(clips)
        lengths = self._lengths(clips)
        order = sorted(range(len(clips)), key=lengths.__getitem__)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for start in range(0, len(order), 16):
                numbers = order[start : start + 16]
                extra = self.rng.randint(0, 150)
                mel = self.data.collate([clips[number] for number in numbers], extra, sound)[0]
                for number, one in zip(numbers, encode(self.model, mel).bfloat16(), strict=True):
                    length = lengths[number] + self.rng.randint(0, extra + 1)
                    states[number] = one[: length // 2 + 1].clone()
        return states

    def _decoder_loss(
        self, clips: list[Clip], states: list[torch.Tensor], numbers: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(next-token loss, how far each frame is from where a token is probably spoken)."""
        chosen = [clips[number] for number in numbers]
        longest = max(len(states[number]) for number in numbers)
        # The last state is one of silence, so it stands for the silence that pads a batch.
        padded = torch.stack(
            [
                torch.cat([one, one[-1:].expand(longest - len(one), -1)])
                for one in (states[number] for number in numbers)
            ]
        )
        tokens = self.data.texts(chosen)
        inputs = self._noisy_inputs(tokens)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = decode(self.model, inputs, padded, self.rows)[:, 1:]
        num_frames = torch.tensor([self.data.num_frames(clip) // 2 for clip in chosen])
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
    heads = [x.view(*x.shape[:2], self.n_head, -1).transpose(1, 2).float() for x in (q, k, v)]
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
    make_training_speech(scratch, recipe.utterances)
    data = Speech(scratch)
    training = Training(data, recipe)
    training.learn_sounds()
    training.learn_to_listen(
        training.singles, data.mels.__getitem__, recipe.guided_steps, recipe.listening_steps
    )
    training.harden()
    clips = [*training.singles, *data.join(recipe)]
    third = recipe.joined_steps // 3
    worsen = Worsen(data.mels, recipe.seed + 1)
    training.learn_to_listen(clips, worsen, third, recipe.joined_steps - third)
    save(training.finish(), weights / "whisper" / "mini.pt.xz")
