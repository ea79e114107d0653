"""Speed and memory of inspection and validation.

`wav flac vorbis opus`: all checks on recordings of 4 s in an archive, from listing to Parquet,
against a bare loop of `soundfile.read` over the same recordings as loose files, with the same
number of processes; the start of the processes counts on both sides. `m4a webm adts amr wma`: the
same against a bare loop of PyAV.

`corpus`: stage `inspect` on a generated corpus in the layout of Localized Narratives, a picture for
every five utterances, against the bare loop over its recordings, and then stage `validate` on what
it found. Peak memory is that of the largest process, and of all together.
`judge`: stage `validate` alone on made-up facts, of which two in a hundred are at fault, against
the same with a tenth of the utterances: their growth, in time and memory.
`parent`: stage `inspect` on as many recordings without sound: the memory of the process that hands
out the work, and of a worker, against those for a tenth of them.
`noop`: `dvc repro` on it with nothing to do, against the same with a corpus of 100 utterances.
With `--gzip` the archive of these four is a tar.gz, as SpokenCOCO's is: it is gone through once, to
be listed, and read from the nearest of its seek points on.

    python benchmarks/validate.py [--json] [--seconds 5] [--utterances 100000] [--gzip]
        [--cases wav ...]
"""

import argparse
import io
import itertools
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import soundfile
import yaml
from PIL import Image

from brewline.config import load_params
from brewline.core.engine import Processes
from brewline.media.archives import MediaStore
from brewline.quality.inspection import inspect_files, join_runs, list_files
from brewline.quality.results import write_tables
from brewline.quality.verdicts import Judge
from brewline.tables.facts import PICTURES, RECORDINGS
from brewline.tables.listing import Listing
from brewline.tables.parquet import write_table

PROJECT = Path(__file__).parents[1]
CODECS = {
    "wav": ("WAV", "PCM_16", "wav"),
    "flac": ("FLAC", "PCM_16", "flac"),
    "vorbis": ("OGG", "VORBIS", "ogg"),
    "opus": ("OGG", "OPUS", "ogg"),
}
# What PyAV reads: format, codec, samples a second, bits a second.
AV_CODECS = {
    "m4a": ("ipod", "aac", 16_000, 64_000),
    "webm": ("webm", "libopus", 48_000, 64_000),
    "adts": ("adts", "aac", 16_000, 64_000),
    "amr": ("amr", "libopencore_amrnb", 8_000, 12_200),
    "wma": ("asf", "wmav2", 16_000, 32_000),
}
CASES = (*CODECS, *AV_CODECS, "corpus", "judge", "parent", "noop")
WORKERS = 2
RATE_HZ = 16_000
# Different recordings of a codec; each is read many times.
NUM_FILES = 64
ROUNDS = 3
# Of the generated corpus: 1 s at 8 kHz, so that 100,000 of them are 1.6 GB.
SHORT_RATE_HZ = 8_000
TAKES = 5


def speech_like(number: int) -> np.ndarray:
    """Four seconds of harmonics that come and go over some noise: (num_samples,) float32."""
    rng = np.random.default_rng(number)
    time_s = np.arange(4 * RATE_HZ) / RATE_HZ
    harmonics = sum(np.sin(2 * np.pi * k * (110 + number) * time_s) / k for k in range(1, 20))
    swell = np.clip(np.sin(2 * np.pi * 3 * time_s), 0, 1)
    return (0.1 * harmonics * swell + 0.003 * rng.normal(size=len(time_s))).astype(np.float32)


def add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a file to a tar."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_recordings(folder: Path, codec: str) -> list[Path]:
    """Writes the recordings of a codec as loose files."""
    suffix = CODECS[codec][2] if codec in CODECS else codec
    paths = []
    for number in range(NUM_FILES):
        paths.append(folder / f"{number}.{suffix}")
        paths[-1].write_bytes(encode(speech_like(number), codec))
    return paths


def pack(paths: list[Path], repeats: int, archive: Path) -> list[str]:
    """Writes each file so many times into a tar; returns the names: a member is opened once."""
    names = []
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as members:
        for number in range(repeats):
            for path in paths:
                names.append(f"{number}/{path.name}")
                add_member(members, names[-1], path.read_bytes())
    return names


def encode(samples: np.ndarray, codec: str) -> bytes:
    """Packs samples at 16 kHz, (num_samples,), in one of the codecs."""
    buffer = io.BytesIO()
    if codec in CODECS:
        format, subtype, _ = CODECS[codec]
        soundfile.write(buffer, samples, RATE_HZ, format=format, subtype=subtype)
        return buffer.getvalue()
    format, name, rate_hz, bit_rate = AV_CODECS[codec]
    with av.open(buffer, "w", format=format) as container:
        stream = container.add_stream(name, rate=rate_hz, layout="mono", bit_rate=bit_rate)
        stream.codec_context.open()
        resampler = av.AudioResampler(
            stream.codec_context.format, "mono", rate_hz, stream.codec_context.frame_size
        )
        integers = np.round(samples * 32_767).astype(np.int16)[None]
        whole = av.AudioFrame.from_ndarray(integers, "s16", "mono")
        whole.sample_rate, whole.pts = RATE_HZ, 0
        for frame in (*resampler.resample(whole), *resampler.resample(None), None):
            container.mux(stream.encode(frame))
    return buffer.getvalue()


def read_bare(path: Path) -> int:
    """What a user would write."""
    return len(soundfile.read(path)[0])


def read_bare_av(path: Path) -> int:
    """What a user would write with PyAV."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    return np.concatenate(frames, axis=1).shape[1]


def run_bare(paths: list[Path], read: Callable[[Path], int] = read_bare) -> None:
    """The bare loop in processes."""
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        for _ in pool.imap_unordered(read, paths, chunksize=32):
            pass


def run_ours(folder: Path, names: list[str]) -> None:
    """All checks, and both tables."""
    params = load_params(PROJECT / "params.yaml")
    limits, decode_limit_s = params.validation, params.runtime.inspect_decode_limit_s
    listings = [
        Listing(f"u{number:07}", "train", name, "1", caption="some words")
        for number, name in enumerate(names)
    ]
    store = MediaStore(folder / "raw")
    with tempfile.TemporaryDirectory() as work:
        files, rows = list_files(store, listings, Path(work, "files")), Path(work, "rows")
        inspect_files(Processes(WORKERS), folder / "raw", files, rows, decode_limit_s, 250.0)
        join_runs(files, rows, folder / "facts")
    found = Judge(store, folder / "facts", limits).corpus(listings)
    write_tables(found, "bench", folder / "manifest.parquet", folder / "quarantine.parquet")


@contextmanager
def peak_memory() -> Iterator[Callable[[], tuple[float, float, float]]]:
    """Watches this process' children; gives peaks in MiB, in which shared pages count once.

    They are those of all together, of the parent, and of the largest worker.
    """
    peaks, stopped = (0, 0, 0), threading.Event()

    def watch() -> None:
        nonlocal peaks
        me = psutil.Process().pid
        while not stopped.wait(0.2):
            parents, workers = [], [0]
            for child in psutil.Process().children(recursive=True):
                # A process may end while it is looked at.
                try:
                    own = child.memory_full_info().pss
                    (parents if child.ppid() == me else workers).append(own)
                except psutil.Error:
                    continue
            found = (sum(parents) + sum(workers), sum(parents), max(workers))
            peaks = tuple(map(max, peaks, found))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: tuple(peak / 2**20 for peak in peaks)
    finally:
        stopped.set()
        thread.join()


def timed(run: Callable[[], Any]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def row(
    case: str, baseline_s: float, ours_s: float, peaks_mb: tuple[float, float, float]
) -> dict[str, Any]:
    """A line of the result."""
    return {
        "case": case,
        "baseline_s": round(baseline_s, 3),
        "ours_s": round(ours_s, 3),
        "ratio": round(baseline_s / ours_s, 3),
        "peak_mb": round(peaks_mb[0]),
        "parent_mb": round(peaks_mb[1]),
        "worker_mb": round(peaks_mb[2]),
    }


def cpu_s() -> float:
    """Seconds of processor of this process and those it started: what a busy machine shows."""
    return sum(os.times()[:4])


def measure_codec(codec: str, seconds: float) -> dict[str, Any]:
    """Compares the speed on one codec; the middle of some rounds, in turns."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = write_recordings(folder, codec)
        read = read_bare if codec in CODECS else read_bare_av
        once_s = timed(lambda: [read(path) for path in paths])
        repeats = max(1, round(seconds / once_s))
        names = pack(paths, repeats, folder / "raw/audio.tar")
        bare, ours, ratios = [], [], []
        with peak_memory() as peak:
            for _ in range(ROUNDS):
                start_s = cpu_s()
                bare.append(timed(lambda: run_bare(paths * repeats, read)))
                middle_s = cpu_s()
                ours.append(timed(lambda: run_ours(folder, names)))
                ratios.append((middle_s - start_s) / (cpu_s() - middle_s))
            found = row(codec, statistics.median(bare), statistics.median(ours), peak())
        return found | {"ratio_cpu": round(statistics.median(ratios), 3)}


def open_archive(folder: Path, gzipped: bool) -> tarfile.TarFile:
    """Begins the archive of a corpus."""
    if gzipped:
        return tarfile.open(folder / "media.tar.gz", "w:gz", compresslevel=1)
    return tarfile.open(folder / "media.tar", "w")


def make_project(folder: Path, num_utterances: int, gzipped: bool, with_sound: bool = True) -> None:
    """A project with one corpus and the stages that validate it; the recordings may be empty."""
    raw = folder / "data/raw/bench"
    raw.mkdir(parents=True)
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "navy").save(picture, "JPEG")
    lines: dict[str, list[str]] = {"train": [], "val": []}
    noise = np.random.default_rng(0).integers(-9000, 9000, SHORT_RATE_HZ + num_utterances, "<i2")
    header = io.BytesIO()
    soundfile.write(header, np.zeros(SHORT_RATE_HZ), SHORT_RATE_HZ, format="WAV", subtype="PCM_16")
    with open_archive(raw, gzipped) as archive:
        for number in range(num_utterances):
            image, take = divmod(number, TAKES)
            part = "val" if image % 10 == 0 else "train"
            name = f"coco_{part}/coco_{part}_{image}_{take}.wav"
            samples = noise[number : number + SHORT_RATE_HZ].tobytes()
            add_member(archive, name, header.getvalue()[:44] + samples if with_sound else b"")
            if take == 0:
                add_member(archive, f"{part}2017/{image:012}.jpg", picture.getvalue())
            narrative = {
                "dataset_id": f"mscoco_{part}2017",
                "image_id": str(image),
                "annotator_id": take,
                "caption": f"In this picture, number {image}, there is nothing to see.",
                "voice_recording": name,
            }
            lines[part].append(json.dumps(narrative))
    for part, rows in lines.items():
        (raw / f"coco_{part}_localized_narratives.jsonl").write_text("\n".join(rows) + "\n")
    shutil.copytree(PROJECT / "src", folder / "src", ignore=shutil.ignore_patterns("*.pyc"))
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    params |= {
        "corpora": ["bench"],
        "experiments": {},
        "tables": {},
        "sound_tables": {},
        "probes": {},
        "probed_corpora": [],
    }
    source = {"reader": "localized_narratives", "licence": "", "files": {}, "dev_fraction": 0.1}
    params["sources"] = {"bench": source}
    params["runtime"]["inspect_workers"] = WORKERS
    # The recordings are noise, which is packed fastest.
    params["validate"]["min_level_range_db"] = 0.0
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    pipeline = yaml.safe_load((PROJECT / "dvc.yaml").read_text())
    stages = {name: pipeline["stages"][name] for name in ("inspect", "validate")}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"vars": pipeline["vars"], "stages": stages}))
    shutil.copy(PROJECT / "versions.yaml", folder)


def open_store(folder: Path) -> MediaStore:
    """The corpus of a project; the list of a tar.gz is kept where its stages find it."""
    os.chdir(folder)
    return MediaStore(folder / "data/raw/bench")


def stored_names(store: MediaStore, suffix: str) -> list[str]:
    """The files of a kind in the order of their archive, which facts are in."""
    return store.in_stored_order(name for name in store.names() if name.endswith(suffix))


def make_facts(folder: Path, num_utterances: int) -> None:
    """Facts of the corpus of a project as inspection would have found them, with some faults."""
    rng = np.random.default_rng(0)
    store = open_store(folder)
    recordings, pictures = stored_names(store, ".wav"), stored_names(store, ".jpg")
    assert len(recordings) == num_utterances
    duration_s = rng.uniform(2.0, 8.0, num_utterances)
    duration_s[rng.random(num_utterances) < 0.01] = 0.01
    good = {"has_end": True, "sample_rate_hz": 16_000, "num_channels": 1, "num_non_finite": 0}
    good |= {"num_clipped": 0, "low": -0.5, "high": 0.5, "mean": 0.0, "rms_dbfs": -20.0}
    good |= {"mono_peak": 0.5, "level_dbfs": -15.0, "noise_dbfs": -50.0, "burst_share": 0.1}
    is_open = rng.random(num_utterances) > 0.01
    write_table(
        folder / "data/facts/bench/recordings.parquet",
        RECORDINGS,
        (
            good
            | {"path": path, "sha256": f"{number:064x}", "content": f"{number:032x}"}
            | {"duration_s": length, "promised_duration_s": length, "loudness_lufs": -20.0}
            | {"num_samples": int(length * 16_000)}
            if opens
            else {"path": path, "reason": "damaged", "detail": "the decoder says: no"}
            for number, (path, length, opens) in enumerate(
                zip(recordings, duration_s.tolist(), is_open, strict=True)
            )
        ),
    )
    looks = rng.integers(0, 1 << 63, len(pictures))
    good = {"width_px": 640, "height_px": 480, "mode": "RGB", "orientation": 1, "format": "JPEG"}
    write_table(
        folder / "data/facts/bench/pictures.parquet",
        PICTURES,
        (
            good | {"path": path, "sha256": f"{look:064x}", "content": f"{look:016x}"}
            for path, look in zip(pictures, looks.tolist(), strict=True)
        ),
    )


def measure_growth(case: str, num_utterances: int, gzipped: bool) -> dict[str, Any]:
    """A stage on a corpus without sound, and on one of a tenth of its size.

    `judge`: stage `validate` on made-up facts. `parent`: stage `inspect`.
    """
    stage = "validate" if case == "judge" else "inspect"
    results = []
    for number in (num_utterances // 10, num_utterances):
        with tempfile.TemporaryDirectory() as temporary, peak_memory() as peak:
            folder = Path(temporary)
            make_project(folder, number, gzipped, with_sound=False)
            if case == "judge":
                make_facts(folder, number)
            start_s = cpu_s()
            taken_s = timed(
                partial(call, folder, sys.executable, "-m", f"brewline.stages.{stage}", "bench")
            )
            results.append((taken_s, peak(), cpu_s() - start_s))
    (few_s, few, _), (many_s, many, many_cpu_s) = results
    more = {"baseline_mb": round(few[1]), "ours_cpu_s": round(many_cpu_s, 1)}
    return row(case, few_s, many_s, many) | more


def call(folder: Path, *command: str) -> None:
    """Runs a program of this environment in a project."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": "src",
        "DVC_NO_ANALYTICS": "1",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


def noop(folder: Path) -> float:
    """Seconds of `dvc repro` where everything is up to date."""
    call(folder, "dvc", "init", "--no-scm", "--quiet")
    call(folder, "dvc", "commit", "--force", "--quiet")
    return statistics.median(timed(lambda: call(folder, "dvc", "repro")) for _ in range(ROUNDS))


def loose_recordings(folder: Path) -> list[Path]:
    """The first recordings of a project's corpus as loose files."""
    store = open_store(folder)
    (folder / "loose").mkdir()
    paths = []
    for number, name in enumerate(stored_names(store, ".wav")[:1000]):
        paths.append(folder / f"loose/{number}.wav")
        paths[-1].write_bytes(store.read(name))
    return paths


def measure_corpus(
    cases: list[str], num_utterances: int, gzipped: bool
) -> Iterator[dict[str, Any]]:
    """Both stages on many utterances, and DVC with nothing to do."""
    inspect, validate = (
        (sys.executable, "-m", f"brewline.stages.{name}", "bench")
        for name in ("inspect", "validate")
    )
    with tempfile.TemporaryDirectory() as temporary:
        large, small = Path(temporary, "large"), Path(temporary, "small")
        make_project(large, num_utterances, gzipped)
        loose = itertools.cycle(loose_recordings(large))
        baseline_s = timed(lambda: run_bare(list(itertools.islice(loose, num_utterances))))
        for case, stage in (("corpus", inspect), ("validate", validate)):
            with peak_memory() as peak:
                ours_s = timed(partial(call, large, *stage))
                yield row(case, baseline_s, ours_s, peak())
        if "noop" in cases:
            make_project(small, 100, gzipped)
            call(small, *inspect)
            call(small, *validate)
            baseline_s = noop(small)
            with peak_memory() as peak:
                yield row("noop", baseline_s, noop(large), peak())


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a bare loop alone")
    parser.add_argument("--utterances", type=int, default=100_000, help="of the generated corpus")
    parser.add_argument("--gzip", action="store_true", help="its archive is a tar.gz")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    arguments = parser.parse_args()
    codecs = [case for case in (*CODECS, *AV_CODECS) if case in arguments.cases]
    rows = (measure_codec(codec, arguments.seconds) for codec in codecs)
    grown = (case for case in ("judge", "parent") if case in arguments.cases)
    growth = (measure_growth(case, arguments.utterances, arguments.gzip) for case in grown)
    whole = [case for case in arguments.cases if case in ("corpus", "noop")]
    corpus = measure_corpus(whole, arguments.utterances, arguments.gzip) if whole else ()
    for line in itertools.chain(rows, growth, corpus):
        if arguments.json:
            print(json.dumps(line), flush=True)
        else:
            print(
                f"{line['case']:8} bare {line['baseline_s']:8.2f} s   ours {line['ours_s']:8.2f} s"
                f"   {line['ratio']:.2f} of its speed, {line['peak_mb']} MiB"
                f" (parent {line['parent_mb']}, a worker {line['worker_mb']})"
                + (f"; of a tenth, {line['baseline_mb']} MiB" if "baseline_mb" in line else "")
                + (f"; {line['ours_cpu_s']} s of processor" if "ours_cpu_s" in line else "")
                + (f", {line['ratio_cpu']:.2f} by processor" if "ratio_cpu" in line else "")
            )


if __name__ == "__main__":
    main()
