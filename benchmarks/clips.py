"""Speed and memory of cutting clips out of videos.

`cutting`: clips of 10 s, H.264 with AAC, to sound as FLAC and four frames as JPEGs, against a bare
loop of PyAV that decodes the same sound, brought to 16 kHz, and the same frames, and writes
nothing. Both run in one process, in turns; the best of several rounds counts, in seconds of the
processor.

`parent`: the memory of the process that hands out the work of packing a corpus of tiny clips of
sound, and of a worker, against those for a tenth of it; nothing but memory is compared.

    python benchmarks/clips.py [--json] [--rounds 5] [--clips 100000] [--cases cutting parent]
"""

import argparse
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from made_up import write_tables
from shard import in_process, run_ours
from validate import add_member, peak_memory, row, timed

from brewline.config import load_params
from brewline.media.containers import PlacedFile
from brewline.samples.clips import ClipTask, cut_clip, encode_flac

SETTINGS = load_params(Path(__file__).parents[1] / "params.yaml").shard
SECONDS = 10
SIZE = (640, 360)
FRAMES_PER_S = 25
SOUND_HZ = 44_100
RATE_HZ = 16_000
CASES = ("cutting", "parent")


def make_video(number: int) -> bytes:
    """Noise that is smooth and moves, and noise that is heard."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 255, (9, 16 + FRAMES_PER_S * SECONDS // 10, 3), dtype=np.uint8)
    wide = np.kron(coarse, np.ones((40, 40, 1), np.uint8))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        pictures = container.add_stream("libx264", rate=FRAMES_PER_S)
        pictures.width, pictures.height, pictures.pix_fmt = *SIZE, "yuv420p"
        sound = container.add_stream("aac", rate=SOUND_HZ, layout="stereo")
        for place in range(FRAMES_PER_S * SECONDS):
            pixels = np.ascontiguousarray(wide[:, 4 * place : 4 * place + SIZE[0]])
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(pictures.encode(None))
        samples = rng.normal(0, 0.1, (2, SECONDS * SOUND_HZ)).astype(np.float32)
        for start in range(0, samples.shape[1], 1024):
            part = np.ascontiguousarray(samples[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(part, "fltp", "stereo")
            frame.sample_rate, frame.pts = SOUND_HZ, start
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return buffer.getvalue()


def run_bare(videos: list[bytes]) -> None:
    """What a user would write: all of the sound, and the pictures at four times."""
    count = SETTINGS.frames_per_clip
    times_s = [(number + 0.5) * SECONDS / count for number in range(count)]
    for content in videos:
        with av.open(io.BytesIO(content)) as container:
            resampler = av.AudioResampler("s16", "mono", RATE_HZ)
            for frame in container.decode(audio=0):
                for part in resampler.resample(frame):
                    part.to_ndarray()
        with av.open(io.BytesIO(content)) as container:
            wanted = iter(times_s)
            time_s, shown = next(wanted), None
            for frame in container.decode(video=0):
                while shown is not None and time_s is not None and frame.time > time_s:
                    shown.to_ndarray(format="rgb24")
                    time_s = next(wanted, None)
                if time_s is None:
                    break
                shown = frame


def cut_all(videos: list[bytes]) -> None:
    """What stage `shard` does with each clip."""
    task = ClipTask(PlacedFile("v", ()), np.nan, np.nan, is_video=True)
    for content in videos:
        clip = cut_clip(content, task, SETTINGS)
        assert len(clip.frames) == SETTINGS.frames_per_clip


def measure_cutting(rounds: int) -> dict[str, Any]:
    """Seconds of the processor for some clips, the best of several rounds, in turns."""
    videos = [make_video(number) for number in range(4)]
    spent: dict[Callable[[list[bytes]], None], list[float]] = {run_bare: [], cut_all: []}
    for _ in range(rounds):
        for run, found in spent.items():
            start = time.process_time()
            run(videos)
            found.append(time.process_time() - start)
    return row("cutting", min(spent[run_bare]), min(spent[cut_all]), (0, 0, 0))


def make_corpus(folder: Path, num_clips: int) -> None:
    """One tiny sound under as many names as there are clips, the manifest and empty transcripts."""
    (folder / "raw").mkdir()
    sound = encode_flac(0.1 * np.sin(np.arange(RATE_HZ // 20)))
    keys = [f"{number:07}" for number in range(num_clips)]
    with tarfile.open(folder / "raw/sounds.tar", "w") as archive:
        for key in keys:
            add_member(archive, f"{key}.flac", sound)
    clip = {"is_clip": True, "duration_s": 0.05, "captions": ["a tone"], "events": []}
    rows = ({**clip, "utterance_id": key, "audio_path": f"{key}.flac"} for key in keys)
    write_tables(folder, rows, {"text": "", "num_windows": 0, "num_frames": 0})


def measure_parent(num_clips: int) -> dict[str, Any]:
    """Memory of packing a corpus, against that of a tenth of it."""
    found = []
    for number in (num_clips // 10, num_clips):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            os.chdir(folder)
            in_process(make_corpus, folder, number)
            with peak_memory() as peak:
                found.append((timed(partial(in_process, run_ours, folder, 2)), peak()))
    (few_s, few), (many_s, many) = found
    return row("parent", few_s, many_s, many) | {
        "tenth_parent_mb": round(few[1]),
        "tenth_worker_mb": round(few[2]),
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=100_000, help="of `parent`")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["cutting"])
    options = parser.parse_args()
    for case in options.cases:
        if case == "cutting":
            found = measure_cutting(options.rounds)
            text = (
                f"bare {found['baseline_s']:.2f} s   ours {found['ours_s']:.2f} s   "
                f"{found['ratio']:.2f} of its speed"
            )
        else:
            found = measure_parent(options.clips)
            text = (
                f"parent {found['parent_mb']} MiB, of a tenth {found['tenth_parent_mb']}; a worker "
                f"{found['worker_mb']} MiB, of a tenth {found['tenth_worker_mb']}"
            )
        print(json.dumps(found) if options.json else f"{case:8} {text}", flush=True)


if __name__ == "__main__":
    main()
