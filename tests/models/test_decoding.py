"""Our batched decoder against openai-whisper's own, one window at a time, on captions and
narrations.
"""

import lzma
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import whisper
from whisper.decoding import DecodingOptions
from whisper.model import ModelDimensions
from whisper.tokenizer import get_tokenizer

from brewline.core.errors import BrewlineError
from brewline.media.archives import MediaStore
from brewline.media.audio import decode, to_mono_16k
from brewline.speech.decoding import BatchDecoder, Decoding, draw, loop_kept_once, loop_period
from brewline.speech.openai_whisper import log_mel
from brewline.speech.tokenizer import tokenizer_for
from brewline.speech.whisper_checkpoint import load_whisper

SAMPLE = Path(__file__).parents[2] / "sample"
MAX_TOKENS = 24
# Of each corpus: captions end by themselves, narrations are cut off.
NUM_RECORDINGS = 2
NUM_WINDOWS = 2 * NUM_RECORDINGS
EN = ["en"] * NUM_WINDOWS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> whisper.Whisper:
    """The miniature Whisper."""
    path = tmp_path_factory.mktemp("whisper") / "mini.pt"
    path.write_bytes(lzma.decompress((SAMPLE / "weights/whisper/mini.pt.xz").read_bytes()))
    return load_whisper(path, torch.device("cpu"))


@pytest.fixture(scope="module")
def states(model: whisper.Whisper) -> torch.Tensor:
    """Of captions and narrations, silence up to the full context."""
    waveforms = []
    for corpus, folder in (("mini-flickr8k", "flickr_audio/wavs/"), ("mini-lncoco", "coco_val")):
        store = MediaStore(SAMPLE / "corpora" / corpus)
        names = [name for name in store.names() if name.startswith(folder) and ".ogg" in name]
        waveforms += [to_mono_16k(decode(store.read(name))) for name in names[:NUM_RECORDINGS]]
    dims = model.dims
    with torch.inference_mode():
        mel = log_mel(waveforms, dims.n_mels, dims.n_audio_ctx, model.device)
        encoded: torch.Tensor = model.encoder(mel)
    return encoded


@pytest.fixture(scope="module")
def decoder(model: whisper.Whisper) -> Callable[..., BatchDecoder]:
    def make(beam_size: int = 1, max_repeats: int | None = None) -> BatchDecoder:
        tokenizer = get_tokenizer(multilingual=False)
        return BatchDecoder(model, tokenizer, MAX_TOKENS, beam_size, max_repeats)

    return make


@pytest.mark.parametrize("beam_size", [1, 3])
def test_texts_and_scores_are_those_of_openai_whisper(
    model: whisper.Whisper,
    states: torch.Tensor,
    decoder: Callable[..., BatchDecoder],
    beam_size: int,
) -> None:
    options = DecodingOptions(
        language="en",
        beam_size=beam_size if beam_size > 1 else None,
        sample_len=MAX_TOKENS,
        without_timestamps=True,
        fp16=False,
    )
    theirs = [whisper.decode(model, one, options) for one in states]
    with torch.inference_mode():
        ours = decoder(beam_size).decode(states, EN)
    assert [one.tokens for one in ours] == [one.tokens for one in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-4)
        assert mine.no_speech_prob == pytest.approx(other.no_speech_prob, rel=1e-4)
    # The comparison says something: texts differ, and end early, late and not at all.
    lengths = {len(one.tokens) for one in theirs}
    assert len({tuple(one.tokens) for one in theirs}) == NUM_WINDOWS
    assert min(lengths) < max(lengths) == MAX_TOKENS


def test_draws_depend_on_the_seed_of_their_window_alone(
    model: whisper.Whisper, states: torch.Tensor, decoder: Callable[..., BatchDecoder]
) -> None:
    with torch.inference_mode():
        together = decoder().decode(states, EN, 0.7, range(NUM_WINDOWS))
        alone = [decoder().decode(states[[n]], EN[:1], 0.7, [n])[0] for n in range(NUM_WINDOWS)]
        others = decoder().decode(states, EN, 0.7, range(100, 100 + NUM_WINDOWS))
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert [one.tokens for one in together] != [one.tokens for one in others]


@pytest.fixture(scope="module")
def polyglot() -> whisper.Whisper:
    """A tiny multilingual model, whose first words depend on what it hears and on the language."""
    torch.manual_seed(0)
    dims = ModelDimensions(80, 20, 16, 2, 1, 51865, 24, 16, 2, 2)
    model = whisper.Whisper(dims)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    return model.requires_grad_(False).eval()


def test_languages_are_those_that_openai_whisper_detects(polyglot: whisper.Whisper) -> None:
    tokenizer = get_tokenizer(multilingual=True, num_languages=99, language="en")
    states = 3 * torch.randn(12, 20, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = BatchDecoder(polyglot, tokenizer, 8, 1, None).detect_languages(states)
    _, probabilities = whisper.detect_language(polyglot, states, tokenizer)
    assert found == [max(one, key=one.__getitem__) for one in probabilities]
    assert len(set(found)) > 2


@pytest.mark.parametrize("beam_size", [1, 3])
def test_each_window_is_decoded_in_its_language(polyglot: whisper.Whisper, beam_size: int) -> None:
    languages = ["ja", "de", "yo", "de"]
    states = torch.randn(1, 20, 16, generator=torch.Generator().manual_seed(2)).expand(4, -1, -1)
    tokenizer = get_tokenizer(multilingual=True, num_languages=99, language="en")
    with torch.inference_mode():
        ours = BatchDecoder(polyglot, tokenizer, 8, beam_size, None).decode(states, languages)
    options = {"sample_len": 8, "without_timestamps": True, "fp16": False}
    options |= {"beam_size": beam_size} if beam_size > 1 else {}
    for language, mine in zip(languages, ours, strict=True):
        theirs = whisper.decode(polyglot, states[0], language=language, **options)
        assert mine.tokens == theirs.tokens
    assert ours[1].tokens == ours[3].tokens
    assert len({tuple(one.tokens) for one in ours}) == 3


def test_a_model_for_english_hears_english(
    states: torch.Tensor, decoder: Callable[..., BatchDecoder]
) -> None:
    assert decoder().detect_languages(states) == EN


@pytest.mark.parametrize(("num_tokens", "language"), [(51865, "xx"), (51865, "yue"), (51864, "de")])
def test_languages_that_a_model_does_not_know(num_tokens: int, language: str) -> None:
    dims = ModelDimensions(80, 20, 16, 2, 1, num_tokens, 24, 16, 2, 2)
    with pytest.raises(BrewlineError, match=f"'{language}'.*see asr.language"):
        tokenizer_for(dims, language)
    assert tokenizer_for(replace(dims, n_vocab=51866), "yue").language == "yue"


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.0, 0.5, 0.3, 0.2, 0.0])
    generator = torch.Generator().manual_seed(0)
    rows = probabilities.log().expand(10_000, -1)
    counts = draw(rows, [generator] * len(rows)).bincount(minlength=5) / len(rows)
    assert counts.tolist() == pytest.approx(probabilities.tolist(), abs=0.02)
    assert counts[0] == counts[4] == 0


def test_a_loop_ends_the_decoding(
    model: whisper.Whisper,
    states: torch.Tensor,
    decoder: Callable[..., BatchDecoder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    phrase = get_tokenizer(multilingual=False).encode(" a dog runs")
    assert len(phrase) == 3

    def decode_phrases(max_repeats: int | None) -> tuple[list[Decoding], int]:
        """What becomes of a phrase said for ever, and in how many steps."""
        chosen = decoder(max_repeats=max_repeats)
        calls = []

        def logits(hidden: torch.Tensor) -> torch.Tensor:
            calls.append(len(hidden))
            rows = torch.zeros(len(hidden), model.dims.n_vocab)
            # The first call asks for the probability that nobody speaks.
            rows[:, phrase[(len(calls) - 2) % 3]] = 20.0
            return rows

        monkeypatch.setattr(chosen, "_logits", logits)
        with torch.inference_mode():
            return chosen.decode(states[:2], EN[:2]), len(calls) - 1

    guarded, num_steps = decode_phrases(3)
    assert [(one.tokens, one.is_loop, one.is_cut) for one in guarded] == [
        ([*phrase, phrase[0]], True, False)
    ] * 2
    # It is looked for after 8 tokens, and after 16 three whole phrases are there.
    assert num_steps == 16
    free, num_steps = decode_phrases(None)
    assert {(len(one.tokens), one.is_loop, one.is_cut) for one in free} == {
        (MAX_TOKENS, False, True)
    }
    assert num_steps == MAX_TOKENS


@pytest.mark.parametrize(
    ("tokens", "period", "kept"),
    [
        ([], 0, []),
        ([1, 2, 3], 0, [1, 2, 3]),
        ([1, 7, 7], 0, [1, 7, 7]),
        ([1, 7, 7, 7], 1, [1, 7]),
        ([1, 7, 7, 7, 7, 7], 1, [1, 7]),
        ([5, 1, 2, 1, 2, 1, 2], 2, [5, 1, 2]),
        ([7, 7, 7, 1], 0, [7, 7, 7, 1]),
    ],
)
def test_loops(tokens: list[int], period: int, kept: list[int]) -> None:
    assert loop_period(tokens, 3) == period
    assert loop_kept_once(tokens, 3) == kept
    assert loop_kept_once(tokens, None) == tokens
