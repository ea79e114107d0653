"""The recogniser's safeguards and windows with a scripted engine, and real engines side by side."""

import base64
import gzip
import lzma
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import whisper
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from whisper.model import ModelDimensions
from whisper.timing import add_word_timestamps
from whisper.tokenizer import get_tokenizer

from brewline.config import load_params
from brewline.config.asr import AsrParams
from brewline.core.errors import BrewlineError
from brewline.media.archives import MediaStore
from brewline.media.audio import decode, to_mono_16k
from brewline.speech import recogniser as recogniser_module
from brewline.speech import whisper_checkpoint
from brewline.speech.attention import attend
from brewline.speech.decoding import Decoding
from brewline.speech.faster_whisper import FasterWhisper
from brewline.speech.openai_whisper import OpenAIWhisper, log_mel
from brewline.speech.recogniser import Recogniser
from brewline.speech.whisper_checkpoint import load_whisper
from brewline.speech.windows import split_at_pauses

PROJECT = Path(__file__).parents[2]
TOKENIZER = get_tokenizer(multilingual=False)
# In frames of 320 samples.
CONTEXT = 500
WIDTH = 2

CUT = Decoding(TOKENIZER.encode(" a dog and"), -0.2, 0.1, is_loop=False, is_cut=True)
NO_NUMBER = Decoding(TOKENIZER.encode(" a dog"), float("nan"), 0.1, False)
SURE = Decoding(TOKENIZER.encode(" a dog"), -0.2, 0.1, False)
OTHER = Decoding(TOKENIZER.encode(" the cat"), -0.5, 0.1, False)
UNSURE = Decoding(TOKENIZER.encode(" a fog"), -1.5, 0.1, False)
SILENT = Decoding(TOKENIZER.encode(" thank you"), -1.5, 0.9, False)
CONFIDENT_SILENT = Decoding(TOKENIZER.encode(" a dog"), -0.2, 0.9, False)
LOOP = Decoding(TOKENIZER.encode(" a dog"), -0.1, 0.1, True)
REPETITIVE = Decoding(TOKENIZER.encode(" no no no" * 12), -0.1, 0.1, False)


def settings(**changes: Any) -> AsrParams:
    """The project's, with two temperatures."""
    changes = {"temperatures": [0.0, 0.5], "precision": "fp32", "batch_size": 4} | changes
    return load_params(PROJECT / "params.yaml").asr.model_copy(update=changes)


class ScriptedEngine:
    """Tells a window by its number of frames; says at each temperature what its script says."""

    dimensions = ModelDimensions(80, CONTEXT, WIDTH, 1, 1, 51864, 448, WIDTH, 1, 1)
    tokenizer = TOKENIZER

    def __init__(self, script: dict[int, list[Decoding]]) -> None:
        self.script = script
        self.encoded: list[tuple[list[int], int]] = []
        self.decoded: list[tuple[list[int], float]] = []
        # By the number of frames.
        self.asked: list[int] = []
        self.spoken: dict[int, str] = {}

    def encode(self, waveforms: Sequence[NDArray[np.float32]], num_frames: int) -> Tensor:
        frames = [len(waveform) // 320 for waveform in waveforms]
        self.encoded.append((frames, num_frames))
        return torch.tensor(frames, dtype=torch.float32)[:, None, None].expand(
            -1, num_frames, WIDTH
        )

    def detect_languages(self, states: Tensor) -> list[str]:
        frames = [int(row[0, 0]) for row in states]
        self.asked += frames
        return ["ja" if number % 2 else "de" for number in frames]

    def decode(
        self, states: Tensor, languages: Sequence[str], temperature: float, seeds: Sequence[int]
    ) -> list[Decoding]:
        frames = [int(row[0, 0]) for row in states]
        self.decoded.append((frames, temperature))
        self.spoken |= dict(zip(frames, languages, strict=True))
        assert len(seeds) == len(frames)
        take = 0 if temperature == 0 else 1
        return [self.script.get(number, [SURE])[take] for number in frames]


def scripted(
    monkeypatch: pytest.MonkeyPatch, script: dict[int, list[Decoding]], **changes: Any
) -> tuple[Recogniser, ScriptedEngine]:
    engine = ScriptedEngine(script)
    monkeypatch.setattr(recogniser_module, "load_engine", lambda *_: engine)
    return Recogniser(Path("none"), settings(**changes)), engine


def waveform(num_frames: int) -> NDArray[np.float32]:
    return np.ones(num_frames * 320, np.float32)


def said(text: str, **changes: Any) -> Decoding:
    return replace(SURE, tokens=TOKENIZER.encode(text), **changes)


@pytest.mark.parametrize("text", [" .", "…", " - ?!", " ♪♪", "", " _"])
def test_a_text_without_a_word_is_no_text(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    recogniser, _ = scripted(monkeypatch, {100: [said(text)], 90: [said("7")]})
    wordless, digit = recogniser.recognise([waveform(100), waveform(90)])
    assert (wordless.text, wordless.reason) == ("", "no_words")
    assert (digit.text, digit.reason) == ("7", None)
    imported = recogniser.recognise([waveform(80)] * 3, [text, "a dog", ""])
    assert [one.text for one in imported] == ["", "a dog", ""]
    assert [one.reason for one in imported] == ["no_words" if text else None, None, None]


def test_doubts_of_a_text_without_a_word_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    unlikely = said(" .", avg_logprob=-1.5)
    recogniser, _ = scripted(monkeypatch, {100: [unlikely, unlikely]})
    (found,) = recogniser.recognise([waveform(100)])
    assert (found.text, found.reason, found.temperature) == ("", "unsure", 0.5)
    recogniser, _ = scripted(monkeypatch, {100: [unlikely, SURE]})
    (found,) = recogniser.recognise([waveform(100)])
    assert (found.text, found.reason) == ("a dog", None)


@pytest.mark.parametrize(
    ("first", "second", "text", "reason"),
    [
        (" .", " a dog", "a dog", None),
        (" .", " ...", "", "no_words"),
        (" .", None, "", "no_words"),
        (None, None, "", "no_speech"),
    ],
)
def test_a_window_without_words_is_a_pause(
    monkeypatch: pytest.MonkeyPatch,
    first: str | None,
    second: str | None,
    text: str,
    reason: str | None,
) -> None:
    found = [SILENT if one is None else said(one) for one in (first, second)]
    recogniser, _ = scripted(monkeypatch, {457: [found[0]], 243: [found[1]]})
    loud = waveform(700)
    loud[455 * 320 : 460 * 320] = 0
    (joined,) = recogniser.recognise([loud])
    assert (joined.num_windows, joined.text, joined.reason) == (2, text, reason)


@pytest.mark.parametrize(
    ("first", "second", "text", "temperature", "reason"),
    [
        (SURE, None, "a dog", 0.0, None),
        # Another temperature would not make it shorter.
        (CUT, None, "a dog and", 0.0, "cut"),
        (UNSURE, OTHER, "the cat", 0.5, None),
        (UNSURE, UNSURE, "a fog", 0.5, "unsure"),
        (LOOP, OTHER, "the cat", 0.5, None),
        (LOOP, LOOP, "a dog", 0.5, "repetitive"),
        (REPETITIVE, OTHER, "the cat", 0.5, None),
        (SILENT, None, "", 0.0, "no_speech"),
        # What is likely is said, whatever the chance of silence.
        (CONFIDENT_SILENT, None, "a dog", 0.0, None),
        (UNSURE, SILENT, "", 0.5, "no_speech"),
    ],
)
def test_doubtful_texts_are_decoded_again(
    monkeypatch: pytest.MonkeyPatch,
    first: Decoding,
    second: Decoding | None,
    text: str,
    temperature: float,
    reason: str | None,
) -> None:
    recogniser, engine = scripted(monkeypatch, {100: [first, second or SURE]})
    # Its neighbours in the batch are not decoded again.
    neighbour, found, other = recogniser.recognise([waveform(n) for n in (90, 100, 110)])
    assert (found.text, found.temperature, found.reason) == (text, temperature, reason)
    assert neighbour.text == other.text == "a dog"
    again = [frames for frames, at in engine.decoded if at > 0]
    assert again == ([[100]] if second else [])


def test_what_is_no_number_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser, engine = scripted(monkeypatch, {100: [NO_NUMBER]})
    with pytest.raises(BrewlineError, match="scores are no numbers"):
        recogniser.recognise([waveform(100)])
    # Only encoded, too.
    for value in (float("nan"), 1e6):
        states = torch.full((1, 90, WIDTH), value)
        monkeypatch.setattr(engine, "encode", lambda *_, states=states: states)
        with pytest.raises(BrewlineError, match="states are no numbers, or too large"):
            recogniser.recognise([waveform(90)], ["known"])


def test_long_recordings_are_joined_from_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser, engine = scripted(monkeypatch, {}, batch_size=2)
    loud = waveform(1200)
    # The quietest places within reach of the ends of windows.
    for frame in (430, 900):
        loud[frame * 320 : (frame + 5) * 320] = 0
    (found,) = recogniser.recognise([loud])
    assert (found.text, found.num_windows) == ("a dog a dog a dog", 3)
    assert found.num_frames == len(found.states) == 1200
    lengths = sorted(n for frames, _ in engine.encoded for n in frames)
    assert sum(lengths) == 1200
    assert max(lengths) <= CONTEXT
    assert found.avg_logprob == pytest.approx(-0.2)


def test_silence_in_one_window_of_several_is_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    script = {n: [SILENT, SILENT] for n in range(251, CONTEXT + 1)}
    recogniser, _ = scripted(monkeypatch, script)
    loud = waveform(700)
    loud[455 * 320 : 460 * 320] = 0
    (found,) = recogniser.recognise([loud])
    assert (found.text, found.reason, found.num_windows) == ("a dog", None, 2)


def test_each_recording_is_decoded_in_its_language(monkeypatch: pytest.MonkeyPatch) -> None:
    waveforms = [waveform(n) for n in (80, 90, 100)]
    recogniser, engine = scripted(monkeypatch, {}, language="fr")
    found = recogniser.recognise(waveforms, ["known", None, None], ["es", None, "it"])
    assert engine.spoken == {90: "fr", 100: "it"}
    assert [one.language for one in found] == ["es", "fr", "it"]
    assert engine.asked == []


def test_languages_are_told_from_the_first_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser, engine = scripted(monkeypatch, {}, language="auto")
    long = waveform(1200)
    # Cut into windows of 433, 472 and 295 frames.
    for frame in (430, 902):
        long[frame * 320 : (frame + 5) * 320] = 0
    waveforms = [long, waveform(90), waveform(80), waveform(70)]
    found = recogniser.recognise(waveforms, [None, None, None, "known"], [None, None, "it", None])
    first = sorted(n for n in engine.spoken if n > 100)
    assert len(first) == 3
    assert {engine.spoken[n] for n in first} == {found[0].language}
    # Of each recording the first window is asked, if nobody knows.
    assert len(engine.asked) == 2
    assert 90 in engine.asked
    assert [one.language for one in found[1:]] == ["de", "it", None]
    assert sum(len(frames) for frames, _ in engine.encoded) == 6


def test_texts_of_windows_are_joined_as_the_script_does(monkeypatch: pytest.MonkeyPatch) -> None:
    class Japanese:
        def decode(self, tokens: list[int]) -> str:
            return "犬です。" if tokens == SURE.tokens else " iPhone"

    long = waveform(700)
    long[455 * 320 : 460 * 320] = 0
    for second, text in ((SURE, "犬です。犬です。"), (OTHER, "iPhone犬です。")):
        script = {n: [second] for n in range(251, CONTEXT + 1)}
        recogniser, engine = scripted(monkeypatch, script)
        monkeypatch.setattr(engine, "tokenizer", Japanese())
        (found,) = recogniser.recognise([long])
        assert found.text == text


@pytest.mark.parametrize(("context", "expected"), [("full", [500, 500]), ("utterance", [90, 200])])
def test_context_and_order_of_batches(
    monkeypatch: pytest.MonkeyPatch, context: str, expected: list[int]
) -> None:
    recogniser, engine = scripted(monkeypatch, {}, batch_size=2, audio_context=context)
    found = recogniser.recognise([waveform(n) for n in (200, 80, 190, 90)])
    assert [len(one.states) for one in found] == [200, 80, 190, 90]
    assert engine.encoded == [([80, 90], expected[0]), ([190, 200], expected[1])]


def test_states_of_the_padding_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser, _ = scripted(monkeypatch, {}, states="all", audio_context="full")
    short, long = recogniser.recognise([waveform(80), waveform(600)])
    assert (short.num_frames, len(short.states)) == (80, CONTEXT)
    assert long.num_frames == 600
    assert CONTEXT < len(long.states) <= 2 * CONTEXT


def test_known_texts_are_encoded_only(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser, engine = scripted(monkeypatch, {})
    known, heard = recogniser.recognise([waveform(80), waveform(90)], ["a horse", None])
    assert (known.text, known.avg_logprob, known.temperature) == ("a horse", None, None)
    assert len(known.states) == 80
    assert heard.text == "a dog"
    assert engine.decoded == [([90], 0.0)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature Whisper."""
    path = tmp_path_factory.mktemp("whisper") / "mini.pt"
    packed = PROJECT / "sample/weights/whisper/mini.pt.xz"
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    return path


@pytest.fixture(scope="module")
def narrations() -> list[NDArray[np.float32]]:
    store = MediaStore(PROJECT / "sample/corpora/mini-lncoco")
    names = [name for name in store.names() if name.startswith("coco_val")]
    return [to_mono_16k(decode(store.read(name))) for name in names[:6]]


@pytest.mark.parametrize("name", sorted(whisper._ALIGNMENT_HEADS))
def test_heads_of_published_models_fit_their_sizes(name: str) -> None:
    size = {"turbo": "large-v3-turbo", "large": "large-v3", "large-v1": "large-v2"}.get(name, name)
    rows = [row for row in whisper_checkpoint._PUBLISHED if size.startswith(row[0])]
    _, width, audio_layers, text_layers = rows[-1]
    num_tokens = 51866 if "v3" in size else 51864 if size.endswith(".en") else 51865
    heads = width // 64
    dims = ModelDimensions(
        80, 1500, width, heads, audio_layers, num_tokens, 448, width, heads, text_layers
    )
    assert whisper_checkpoint._published_as(dims) == size
    packed = base64.b85decode(whisper._ALIGNMENT_HEADS[name])
    assert len(gzip.decompress(packed)) == text_layers * heads
    assert whisper_checkpoint._published_as(replace(dims, n_audio_state=width + 64)) is None


def test_states_are_those_of_openai_whispers_encoder(
    checkpoint: Path, narrations: list[NDArray[np.float32]]
) -> None:
    model, cpu = load_whisper(checkpoint, torch.device("cpu")), torch.device("cpu")
    dims = model.dims
    with torch.inference_mode():
        expected = model.encoder(log_mel(narrations[:2], dims.n_mels, dims.n_audio_ctx, cpu))
    found = OpenAIWhisper(checkpoint, settings(), cpu).encode(narrations[:2], dims.n_audio_ctx)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("num_queries", [1, 16, 17, 500])
@pytest.mark.parametrize("num_keys", [100, 500])
def test_attention_in_bf16_is_pytorchs(num_queries: int, num_keys: int) -> None:
    torch.manual_seed(0)
    queries = torch.randn(2, 3, num_queries, 16).bfloat16()
    keys, values = torch.randn(2, 2, 3, num_keys, 16).bfloat16().unbind()
    exact = scaled_dot_product_attention(queries.float(), keys.float(), values.float())
    torch.testing.assert_close(attend(queries, keys, values).float(), exact, atol=0.02, rtol=0)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_both_engines_hear_the_same(
    checkpoint: Path, narrations: list[NDArray[np.float32]], beam_size: int
) -> None:
    pytest.importorskip("ctranslate2")
    chosen = settings(beam_size=beam_size)
    cpu = torch.device("cpu")
    one, other = OpenAIWhisper(checkpoint, chosen, cpu), FasterWhisper(checkpoint, chosen, cpu)
    states, same = one.encode(narrations, 800), other.encode(narrations, 800)
    languages = ["en"] * len(narrations)
    torch.testing.assert_close(states, same, atol=1e-4, rtol=0)
    for mine, theirs in zip(
        one.decode(states, languages), other.decode(same, languages), strict=True
    ):
        assert mine.tokens == theirs.tokens
        assert mine.avg_logprob == pytest.approx(theirs.avg_logprob, abs=1e-3)
        assert mine.no_speech_prob == pytest.approx(theirs.no_speech_prob, abs=1e-4)
        assert mine.is_cut == theirs.is_cut


def test_words_are_timed_as_openai_whisper_does(
    checkpoint: Path, narrations: list[NDArray[np.float32]]
) -> None:
    cpu = torch.device("cpu")
    model, engine = load_whisper(checkpoint, cpu), OpenAIWhisper(checkpoint, settings(), cpu)
    context, first_frame = model.dims.n_audio_ctx, 700
    states = engine.encode(narrations[:3], context)
    found = engine.decode(states, ["en"] * 3)
    for waveform, row, decoding in zip(narrations, states, found, strict=False):
        frames = min(len(waveform) // 320, context)
        segment: dict[str, Any] = {"tokens": decoding.tokens, "seek": 2 * first_frame}
        segment |= {"start": first_frame / 50, "end": (first_frame + frames) / 50}
        add_word_timestamps(
            segments=[segment],
            model=model,
            tokenizer=TOKENIZER,
            mel=log_mel([waveform[: frames * 320]], model.dims.n_mels, context, cpu)[0],
            num_frames=2 * frames,
            last_speech_timestamp=first_frame / 50,
        )
        ours = engine.time_words(row, "en", decoding.tokens, first_frame, frames)
        assert len(ours) > 2
        theirs = [(word["word"].strip(), word["start"], word["end"]) for word in segment["words"]]
        assert [(one["word"], one["start_s"], one["end_s"]) for one in ours] == [
            (word, pytest.approx(start, abs=0.021), pytest.approx(end, abs=0.021))
            for word, start, end in theirs
        ]


@pytest.mark.parametrize("engine", ["openai-whisper", "faster-whisper"])
def test_words_have_times_within_their_recording(
    checkpoint: Path, narrations: list[NDArray[np.float32]], engine: str
) -> None:
    if engine == "faster-whisper":
        pytest.importorskip("ctranslate2")
    asked = settings(engine=engine, word_times=True)
    # Two windows, and one recording whose text is known.
    long = np.concatenate([narrations[0], narrations[1], narrations[2], narrations[3]])
    heard = [long, narrations[1]], [None, "a dog"]
    found, imported = Recogniser(checkpoint, asked).recognise(*heard)
    assert found.num_windows > 1
    assert found.words is not None
    assert " ".join(word["word"] for word in found.words) == found.text
    starts = [word["start_s"] for word in found.words]
    assert starts == sorted(starts)
    assert all(one["start_s"] <= one["end_s"] <= len(long) / 16_000 for one in found.words)
    assert starts[-1] > len(narrations[0]) / 16_000
    assert {type(value) for word in found.words for value in word.values()} == {str, float}
    assert imported.words is None
    plain, _ = Recogniser(checkpoint, settings(engine=engine)).recognise(*heard)
    assert (plain.words, plain.text) == (None, found.text)
    assert np.array_equal(plain.states, found.states)


def test_a_recording_without_a_text_has_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser, _ = scripted(monkeypatch, {100: [SILENT]}, word_times=True)
    (found,) = recogniser.recognise([waveform(100)])
    assert (found.text, found.words) == ("", [])


@pytest.mark.parametrize("num_frames", [79, 80, 81])
def test_as_many_states_as_mel_channels_are_states(checkpoint: Path, num_frames: int) -> None:
    """CTranslate2 would take 80 states for a spectrogram."""
    pytest.importorskip("ctranslate2")
    noise = np.random.default_rng(0).normal(size=num_frames * 320).astype(np.float32)
    chosen, cpu = settings(max_tokens=8), torch.device("cpu")
    one, other = OpenAIWhisper(checkpoint, chosen, cpu), FasterWhisper(checkpoint, chosen, cpu)
    length = num_frames + (num_frames == 80)
    mine = one.decode(one.encode([noise], length), ["en"])[0]
    theirs = other.decode(other.encode([noise], num_frames), ["en"])[0]
    assert mine.tokens == theirs.tokens


def test_both_engines_tell_and_speak_the_same_languages(tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    torch.manual_seed(0)
    # CTranslate2 takes no narrower heads.
    dims = ModelDimensions(80, 100, 64, 1, 1, 51865, 24, 64, 1, 2)
    model = whisper.Whisper(dims)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path / "polyglot.pt"
    torch.save({"dims": vars(dims), "model_state_dict": model.state_dict()}, path)
    chosen, cpu = settings(language="auto", max_tokens=6), torch.device("cpu")
    one, other = OpenAIWhisper(path, chosen, cpu), FasterWhisper(path, chosen, cpu)
    generator = np.random.default_rng(0)
    noises = [generator.normal(0, 0.1 * n, 32_000).astype(np.float32) for n in range(1, 7)]
    states, same = one.encode(noises, 100), other.encode(noises, 100)
    found = one.detect_languages(states)
    assert found == other.detect_languages(same)
    languages = ["ja", "de", "fr", *found[3:]]
    mine, theirs = one.decode(states, languages), other.decode(same, languages)
    assert [each.tokens for each in mine] == [each.tokens for each in theirs]
    assert len({tuple(each.tokens) for each in mine}) > 1


def test_int8_hears_nearly_the_same(
    checkpoint: Path, narrations: list[NDArray[np.float32]]
) -> None:
    pytest.importorskip("ctranslate2")
    exact = Recogniser(checkpoint, settings()).recognise(narrations)
    changes = {"engine": "faster-whisper", "precision": "int8"}
    rough = Recogniser(checkpoint, settings(**changes)).recognise(narrations)
    same = [a.text == b.text for a, b in zip(exact, rough, strict=True)]
    assert sum(same) >= len(same) - 2
    assert np.abs(exact[0].states - rough[0].states).max() > 0


def test_what_a_checkpoint_cannot_do_is_told(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(BrewlineError, match=r"'xx', but this checkpoint knows English only"):
        Recogniser(checkpoint, settings(language="xx"))
    with pytest.raises(BrewlineError, match=r"'de', but this checkpoint knows English only"):
        whisper_checkpoint.read_dimensions(checkpoint, {"en", "de"})
    assert whisper_checkpoint.read_dimensions(checkpoint, {"en"}).n_vocab == 51864
    broken = tmp_path / "broken.pt"
    broken.write_bytes(checkpoint.read_bytes()[:10_000])
    with pytest.raises(BrewlineError, match=r"broken.pt is not a Whisper checkpoint"):
        Recogniser(broken, settings())


class Loudness:
    """Takes for speech what is not silent."""

    def __call__(self, samples: NDArray[np.float32]) -> float:
        return float(self.frames(samples).mean())

    def frames(self, samples: NDArray[np.float32]) -> NDArray[np.bool_]:
        padded = np.pad(samples, (0, -len(samples) % 512))
        return np.abs(padded).reshape(-1, 512).max(axis=1) > 0


def test_where_nobody_speaks_nothing_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for a text nor for its language; the states are there."""
    monkeypatch.setattr(recogniser_module, "SpeechShare", Loudness)
    recogniser, engine = scripted(monkeypatch, {}, vad="silero", language="auto")
    half = np.concatenate([0 * waveform(400), waveform(400)])
    silent, spoken, long = recogniser.recognise([0 * waveform(60), waveform(101), half])
    assert (silent.text, silent.reason, silent.language) == ("", "no_speech", None)
    assert (silent.num_frames, silent.states.shape) == (60, (60, WIDTH))
    assert silent.avg_logprob is None
    assert (spoken.text, spoken.reason, spoken.language) == ("a dog", None, "ja")
    # Of its windows the first is the pause, but for what the speech keeps of it.
    assert (long.text, long.num_windows, long.num_frames) == ("a dog", 2, 800)
    # One of silence keeps 0.4 s of it as it ends: 20 frames, and what rounds to a frame of either.
    pause, spoken_frames = long.states[0, 0], long.states[-1, 0]
    assert (pause + spoken_frames, spoken_frames - 400) == (800, pytest.approx(20, abs=2))
    assert engine.asked == [101, spoken_frames]
    assert sum(len(frames) for frames, _ in engine.decoded) == 2
    # A text that is known needs no ear.
    (known,) = recogniser.recognise([0 * waveform(60)], ["a cat"])
    assert known.text == "a cat"


def test_long_recordings_are_cut_where_nobody_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two of three sentences fit into a window."""
    parts = [300, -20, 190, -30, 300]
    long = np.concatenate([waveform(abs(n)) * (n > 0) for n in parts])
    monkeypatch.setattr(recogniser_module, "SpeechShare", Loudness)
    recogniser, engine = scripted(monkeypatch, {}, vad="silero", language="en")
    (found,) = recogniser.recognise([long])
    assert (found.num_windows, found.num_frames, len(found.states)) == (3, 840, 840)
    lengths = [frames for batch, _ in engine.encoded for frames in batch]
    # Cut in the middle of the pauses, which lie at 300 to 320 and 510 to 540.
    assert sorted(lengths) == [
        pytest.approx(215, abs=2),
        pytest.approx(310, abs=2),
        pytest.approx(315, abs=2),
    ]
    # A recording whose text is known is not listened to.
    monkeypatch.setattr(Loudness, "frames", None)
    (known,) = recogniser.recognise([long], ["a cat"])
    assert (known.text, known.num_frames) == ("a cat", 840)


def test_pauses_are_where_windows_end_and_nothing_is_left_out() -> None:
    """Against the rules, one by one, over recordings that are drawn."""
    rng = np.random.default_rng(5)
    limit = CONTEXT * 320
    for _ in range(300):
        # Long pauses, short ones, and speech without any for longer than a window.
        lengths = rng.choice([1, 3, 8, 30, 150, 700], size=rng.integers(1, 12))
        frames = np.repeat(np.arange(len(lengths)) % 2 == rng.integers(2), lengths)
        samples = max(1, len(frames) * 512 - int(rng.integers(512)))
        sound = np.arange(samples, dtype=np.float32)
        speech = np.repeat(frames, 512)[:samples]
        windows = list(split_at_pauses(sound, frames, 512, limit))
        assert np.array_equal(np.concatenate([part for part, _ in windows]), sound)
        starts = [int(part[0]) for part, _ in windows]
        assert all(start % 320 == 0 for start in starts)
        assert all(0 < len(part) <= limit for part, _ in windows)
        for start, (part, is_spoken) in zip(starts, windows, strict=True):
            stop = start + len(part)
            assert is_spoken or not speech[start:stop].any()
            # A cut in speech has no pause that it could have been made in.
            is_inside = stop < samples and speech[stop - 320 : stop + 320].all()
            assert not is_inside or longest_pause(speech[start : start + limit]) < 0.2 * 16_000
        silent = sum(len(part) for part, is_spoken in windows if not is_spoken)
        assert silent >= speech.size - speech.sum() - 3 * 16_000 * (len(lengths) // 2 + 1)


def longest_pause(speech: NDArray[np.bool_]) -> int:
    """In samples; what is silent at either end is none."""
    edges = np.flatnonzero(np.diff(np.pad(~np.trim_zeros(speech), 1).astype(np.int8)))
    return int(max(np.diff(edges)[::2], default=0))


@pytest.mark.skipif(not find_spec("silero_vad"), reason="silero-vad is not installed")
def test_the_noise_of_a_room_gets_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    recogniser, _ = scripted(monkeypatch, {}, vad="silero")
    # Importing it would leave one to all the models of the process.
    assert torch.get_num_threads() == 2
    torch.set_num_threads(num_threads)
    noise = (0.05 * np.random.default_rng(0).normal(size=48_000)).astype(np.float32)
    speech = to_mono_16k(decode((PROJECT / "sample/recording.ogg").read_bytes()))
    found = recogniser.recognise([noise, speech])
    assert [one.text for one in found] == ["", "a dog"]
