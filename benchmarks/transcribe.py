"""Speed of recognition: ours against what one would write with openai-whisper, or faster-whisper.

A random model of the dimensions of `base.en` recognises generated recordings: short ones, as
scripted captions are (2 to 5 s), and long ones, as narrations are (6 to 40 s). Both sides read the
same arrays, have the same weights and the same threads, and decode the same number of tokens at
temperature 0, without timestamps and without fallback. Lines say too on which device and in which
precision ours ran, and how many seconds of speech it recognised in one (`real_time_factor`).

`short_full`, `narration_full`, `short_utterance`: against `model.transcribe(array)` in a loop; the
last one with `audio_context: utterance`. `short_full_fp32`: the first, without bf16.
`vs_faster_whisper`: against faster-whisper's engine in the better of its modes (int8 or fp32, one
by one, as it batches the windows of one recording only). `agreement`: recordings of the miniature
corpora with the miniature weights, against `model.decode` one by one; ours in fp32. Its line says
which share of the texts is the same, and the word error rates of fp32 and bf16 with either
`audio_context`. `parent`: the memory of the process that hands out a corpus of 60,000 and of
600,000 utterances (`--utterances`, and a tenth), with a recogniser that says the same of each.

    python benchmarks/transcribe.py [--json] [--cases short_full ...]
"""

import argparse
import itertools
import json
import lzma
import multiprocessing
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import whisper
from numpy.typing import NDArray
from whisper.model import ModelDimensions
from whisper.tokenizer import Tokenizer, get_tokenizer

from brewline.config import load_params
from brewline.config.asr import AsrParams
from brewline.core.devices import choose_device, choose_dtype
from brewline.core.engine import Processes
from brewline.core.system import keep_freed_memory, peak_memory_mb
from brewline.corpora.readers import READERS
from brewline.media.archives import MediaStore
from brewline.media.audio import AudioError, decode, to_mono_16k
from brewline.speech.batch_plan import languages_to_hear
from brewline.speech.batch_recogniser import BatchTask
from brewline.speech.corpus_transcription import CorpusTranscription
from brewline.speech.error_rates import Pair, Rate, align
from brewline.speech.faster_whisper import convert, max_length
from brewline.speech.progress import summary
from brewline.speech.recogniser import Recogniser
from brewline.speech.recognition import Recognition
from brewline.speech.recordings import list_recordings
from brewline.speech.transcriber import Transcriber
from brewline.speech.whisper_checkpoint import load_whisper
from brewline.speech.windows import SAMPLES_PER_FRAME
from brewline.tables.manifest import MANIFEST
from brewline.tables.parquet import open_table

SAMPLE = Path(__file__).parents[1] / "sample"
CASES = (
    "short_full",
    "short_full_fp32",
    "short_utterance",
    "narration_full",
    "vs_faster_whisper",
    "agreement",
    "parent",
)
RATE_HZ = 16_000
NUM_TOKENS = 20
UTTERANCES_PER_SHARD = 500
ROUNDS = 3
BASE_EN = ModelDimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=512,
    n_audio_head=8,
    n_audio_layer=6,
    n_vocab=51864,
    n_text_ctx=448,
    n_text_state=512,
    n_text_head=8,
    n_text_layer=6,
)

Waveforms = Sequence[NDArray[np.float32]]


def recordings(count: int, shortest_s: float, longest_s: float) -> Waveforms:
    """Noise that swells and fades, of lengths spread evenly and shuffled."""
    rng = np.random.default_rng(0)
    lengths_s = rng.permutation(np.linspace(shortest_s, longest_s, count))
    waveforms = []
    for length_s in lengths_s:
        time_s = np.arange(round(length_s * RATE_HZ)) / RATE_HZ
        swell = np.clip(np.sin(2 * np.pi * 2 * time_s), 0.02, 1)
        waveforms.append((0.1 * swell * rng.normal(size=len(time_s))).astype(np.float32))
    return waveforms


def write_random_model(path: Path) -> None:
    """A checkpoint of the dimensions of base.en, with every tensor initialised."""
    torch.manual_seed(0)
    model = whisper.Whisper(BASE_EN)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    torch.save({"dims": vars(BASE_EN), "model_state_dict": model.state_dict()}, path)


def settings(**changes: Any) -> AsrParams:
    """The project's, without safeguards and with a fixed number of tokens."""
    free = {
        "audio_context": "full",
        "temperatures": [0.0],
        "logprob_threshold": -1e9,
        "max_compression_ratio": 1e9,
        "max_repeats": 1000,
        "max_tokens": NUM_TOKENS,
        "batch_size": 16,
        "precision": "auto",
    }
    return load_params().asr.model_copy(update={**free, **changes})


def ours(checkpoint: Path, changes: dict[str, Any], waveforms: Waveforms) -> Callable[[], Any]:
    """Our recogniser, with all threads as the others; it keeps freed memory, as in the stage."""
    keep_freed_memory()
    recogniser = Recogniser(checkpoint, settings(**changes))
    return lambda: recogniser.recognise(waveforms)


def one_by_one(
    checkpoint: Path, changes: dict[str, Any], waveforms: Waveforms
) -> Callable[[], Any]:
    """openai-whisper, as its README has it."""
    model = whisper.load_model(str(checkpoint), device=str(choose_device()))
    options = {
        "language": "en",
        "temperature": 0,
        "without_timestamps": True,
        "condition_on_previous_text": False,
        "compression_ratio_threshold": None,
        "logprob_threshold": None,
        "no_speech_threshold": None,
        "sample_len": NUM_TOKENS,
        "fp16": choose_device().type == "cuda",
    }
    return lambda: [model.transcribe(waveform, **options) for waveform in waveforms]


def faster_whisper(
    checkpoint: Path, changes: dict[str, Any], waveforms: Waveforms
) -> Callable[[], Any]:
    """faster-whisper, as its README has it, on the same weights in its own format."""
    from faster_whisper import WhisperModel

    with tempfile.TemporaryDirectory() as folder:
        model = load_whisper(checkpoint, torch.device("cpu"))
        tokenizer = get_tokenizer(multilingual=False)
        convert(model, tokenizer, Path(folder), "float32")
        write_tokenizer(tokenizer, Path(folder, "tokenizer.json"))
        device = choose_device().type
        engine = WhisperModel(
            folder,
            device=device,
            compute_type=changes["precision"],
            cpu_threads=torch.get_num_threads(),
        )
    options = {
        "language": "en",
        "beam_size": 1,
        "temperature": 0.0,
        "without_timestamps": True,
        "condition_on_previous_text": False,
        "compression_ratio_threshold": None,
        "log_prob_threshold": None,
        "no_speech_threshold": None,
        # To which it adds the tokens that start, of which there are two.
        "max_new_tokens": max_length(NUM_TOKENS, 2) - 2,
    }

    def run() -> list[Any]:
        # It works while one reads what it found.
        return [list(engine.transcribe(waveform, **options)[0]) for waveform in waveforms]

    return run


def write_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """openai-whisper's vocabulary in the form that faster-whisper reads."""
    encoding = tokenizer.encoding
    letters = bytes_to_unicode()
    special = {number: text for text, number in tokenizer.special_tokens.items()}
    texts = [
        special.get(number)
        or "".join(letters[byte] for byte in encoding.decode_single_token_bytes(number))
        for number in range(encoding.n_vocab)
    ]
    vocabulary = {text: number for number, text in enumerate(texts)}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(list(special.values()))
    made.save(str(path))


def bytes_to_unicode() -> dict[int, str]:
    """The letters that byte-level vocabularies write bytes with; printable ones are themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + number) for number, byte in enumerate(others)
    }


def measure(
    make: Callable[..., Callable[[], Any]],
    checkpoint: Path,
    changes: dict[str, Any],
    waveforms: Waveforms,
) -> tuple[float, float]:
    """Median seconds for all recordings, and the peak memory (MiB) of this process."""
    run = make(checkpoint, changes, waveforms)
    run()
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), peak_memory_mb()


def in_own_process(*arguments: Any) -> tuple[float, float]:
    """`measure` in a process of its own, because peak memory never falls."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, *arguments).result()


def row(case: str, baseline_s: float, ours_s: float, peak_mb: float) -> dict[str, Any]:
    """What is printed of a case."""
    return {
        "case": case,
        "baseline_s": round(baseline_s, 3),
        "ours_s": round(ours_s, 3),
        "ratio": round(baseline_s / ours_s, 2),
        "peak_mb": round(peak_mb),
    }


def measure_speed(case: str, checkpoint: Path, count: int) -> dict[str, Any]:
    """A case of generated recordings."""
    bounds_s = (6, 40) if case.startswith("narration") else (2, 5)
    waveforms = recordings(count, *bounds_s)
    changes: dict[str, Any] = {}
    if case.endswith("utterance"):
        changes["audio_context"] = "utterance"
    if case.endswith("fp32"):
        changes["precision"] = "fp32"
    ours_s, peak_mb = in_own_process(ours, checkpoint, changes, waveforms)
    device = choose_device()
    how = {
        "device": device.type,
        "precision": str(choose_dtype(changes.get("precision", "auto"), device)).split(".")[1],
        "real_time_factor": round(sum(map(len, waveforms)) / RATE_HZ / ours_s, 1),
    }
    if case != "vs_faster_whisper":
        baseline_s, _ = in_own_process(one_by_one, checkpoint, {}, waveforms)
        return row(case, baseline_s, ours_s, peak_mb) | how
    modes = {
        mode: in_own_process(faster_whisper, checkpoint, {"precision": mode}, waveforms)[0]
        for mode in ("int8", "float32")
    }
    best = min(modes, key=lambda mode: modes[mode])
    return row(case, modes[best], ours_s, peak_mb) | how | {"baseline": best}


def measure_agreement(folder: Path, count: int) -> dict[str, Any]:
    """The case of real texts."""
    checkpoint = folder / "mini.pt"
    packed = SAMPLE / "weights/whisper/mini.pt.xz"
    checkpoint.write_bytes(lzma.decompress(packed.read_bytes()))
    waveforms, captions = real_recordings(count)
    model = load_whisper(checkpoint, torch.device("cpu"))
    options = whisper.DecodingOptions(language="en", without_timestamps=True, fp16=False)
    start = time.perf_counter()
    expected = []
    for waveform in waveforms:
        padded = whisper.pad_or_trim(waveform, model.dims.n_audio_ctx * SAMPLES_PER_FRAME)
        mel = whisper.log_mel_spectrogram(padded, model.dims.n_mels)
        expected.append(whisper.decode(model, mel, options).text)
    baseline_s = time.perf_counter() - start
    texts, seconds = {}, {}
    for precision, context in itertools.product(("fp32", "bf16"), ("full", "utterance")):
        changes = {
            "precision": precision,
            "audio_context": context,
            "max_tokens": model.dims.n_text_ctx // 2,
        }
        recognise = ours(checkpoint, changes, waveforms)
        start = time.perf_counter()
        texts[f"{precision}_{context}"] = [found.text for found in recognise()]
        seconds[f"{precision}_{context}"] = time.perf_counter() - start
    same = np.mean([a == b for a, b in zip(texts["fp32_full"], expected, strict=True)])
    peak_mb = peak_memory_mb()
    rates = {name: word_error_rate(captions, found) for name, found in texts.items()}
    return row("agreement", baseline_s, seconds["fp32_full"], peak_mb) | {
        "num_recordings": len(waveforms),
        "same_text": round(float(same), 4),
        "word_error_rate": {"decode": word_error_rate(captions, expected)} | rates,
    }


@dataclass(frozen=True)
class Scripted:
    """Says the same of each recording."""

    def __call__(self, task: BatchTask) -> list[Recognition]:
        return [
            Recognition("a dog on the street", 1, np.zeros((1, 4), np.float16), 1, -0.1, 0, 1, 0)
            for _ in task.batch.utterances
        ]


def audio_path(number: int) -> str:
    """As SpokenCOCO has it."""
    return f"wavs/val/0/m1a2b3c4d5e6f7-3D9RGL31{number:012d}.wav"


def write_recordings(path: Path, count: int) -> None:
    """Recordings that are never opened."""
    path.parent.mkdir()
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            archive.addfile(tarfile.TarInfo(audio_path(number)))
            archive.members.clear()


def write_manifest(path: Path, count: int) -> None:
    """Utterances as SpokenCOCO lists them."""
    caption = "a man with a red hat is waiting for a bus on a street in the rain"
    with open_table(path, MANIFEST) as add_row:
        for number in range(count):
            row = dict.fromkeys(MANIFEST.names) | {
                "utterance_id": f"m1a2b3c4d5e6f7-3D9RGL31{number:012d}",
                "corpus": "spokencoco",
                "split": ("train", "dev", "test")[min(2, 22 * number // count // 20)],
                "image_id": f"COCO_val2014_{number // 5:012d}",
                "image_path": f"val2014/COCO_val2014_{number // 5:012d}.jpg",
                "audio_path": audio_path(number),
                "speaker_id": f"m{number % 2400:012d}",
                "caption": f"{caption} {number}",
                "duration_s": 2.0 + number % 500 / 100,
                "sample_rate_hz": RATE_HZ,
                "num_channels": 1,
                "audio_sha256": f"{number:064x}",
                "language": "en",
            }
            add_row(row)


def transcribe_generated(count: int) -> float:
    """Does what the stage does with a generated corpus; the peak memory (MiB) of this process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = folder / "manifest.parquet"
        # In a process of its own, whose memory is not counted.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(write_manifest, manifest, count).result()
            pool.submit(write_recordings, folder / "raw/audio.tar", count).result()
        (folder / "work").mkdir()
        # What a batch costs is not what is measured.
        asr = load_params().asr.model_copy(update={"batch_size": UTTERANCES_PER_SHARD})
        languages_to_hear(manifest, asr.spoken)
        recordings = list_recordings(folder / "raw", manifest, folder / "recordings.parquet")
        job = Transcriber(
            manifest, recordings, folder / "work", asr, "scripted", 4, Scripted, limit_s=60.0
        )
        transcription = CorpusTranscription(job, UTTERANCES_PER_SHARD)
        for _ in transcription.run(Processes(2)):
            pass
        summary(transcription.status_counts())
        transcription.check_failures(0.02)
        transcription.write_outputs(folder / "table.parquet", folder / "states")
    return peak_memory_mb()


def measure_parent(count: int) -> dict[str, Any]:
    """The case of a large corpus: peaks at a tenth of it and at all of it, in MiB, and seconds."""
    found: dict[str, Any] = {"case": "parent", "utterances": count}
    for name, size in (("tenth", count // 10), ("all", count)):
        start = time.perf_counter()
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found[f"peak_mb_{name}"] = round(pool.submit(transcribe_generated, size).result())
        found[f"seconds_{name}"] = round(time.perf_counter() - start, 1)
    return found | {"growth_mb": found["peak_mb_all"] - found["peak_mb_tenth"]}


def real_recordings(count: int) -> tuple[Waveforms, list[str]]:
    """Recordings of the miniature corpora with what is said in them, half of each kind."""
    waveforms, captions = [], []
    for corpus in ("mini-flickr8k", "mini-lncoco"):
        store = MediaStore(SAMPLE / "corpora" / corpus)
        source = load_params().sources[corpus]
        for listing in READERS[source.reader](store, source):
            path = store.find(listing.audio_path)
            if listing.split == "train" or path is None or not listing.caption:
                continue
            try:
                waveforms.append(to_mono_16k(decode(store.read(path))))
            except AudioError:
                continue
            captions.append(listing.caption)
            if len(waveforms) == count // 2 * (1 if corpus == "mini-flickr8k" else 2):
                break
    return waveforms, captions


def word_error_rate(captions: list[str], texts: list[str]) -> float:
    """As the project computes it."""
    rate = Rate()
    pairs = zip(captions, texts, strict=True)
    for heard in align(Pair(str(n), *pair, "en") for n, pair in enumerate(pairs)):
        rate.add(heard)
    return round(rate.wer, 4)


def sentence(found: dict[str, Any]) -> str:
    """A row for people."""
    if found["case"] == "parent":
        return " ".join(f"{name} {value}" for name, value in found.items())
    rest = {name: value for name, value in found.items() if name not in row("", 1, 1, 1)}
    return (
        f"{found['case']:18} baseline {found['baseline_s']:7.2f} s   "
        f"ours {found['ours_s']:7.2f} s   "
        f"{found['ratio']:.1f} times faster, {found['peak_mb']} MiB {rest or ''}"
    )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--recordings", type=int, default=16, help="generated ones")
    parser.add_argument("--texts", type=int, default=200, help="recordings of `agreement`")
    parser.add_argument("--utterances", type=int, default=600_000, help="of `parent`")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "base.pt")
        write_random_model(checkpoint)
        for case in arguments.cases:
            if case == "parent":
                found = measure_parent(arguments.utterances)
            elif case == "agreement":
                found = measure_agreement(Path(folder), arguments.texts)
            else:
                found = measure_speed(case, checkpoint, arguments.recordings)
            print(json.dumps(found) if arguments.json else sentence(found), flush=True)


if __name__ == "__main__":
    main()
