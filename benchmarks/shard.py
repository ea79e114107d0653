"""Speed and memory of packing shards.

`one-worker`, `two-workers`: pictures of 640 x 480 pixels in a tar.gz, with five captions each, to
shards with their index, against what a user would write: a loop over the rows of
`webdataset.ShardWriter`, in which Pillow makes each picture small, from loose files. Each side
is a process of its own, whose start counts.

`parent`: the memory of the process that hands out the work, and of a worker, for a corpus of tiny
pictures with five captions each, against those for a tenth of it.

    python benchmarks/shard.py [--json] [--pictures 1000] [--utterances 600000] [--cases parent ...]
"""

import argparse
import io
import itertools
import json
import multiprocessing
import os
import statistics
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from made_up import write_tables
from PIL import Image
from validate import add_member, peak_memory, row, timed

from brewline.config import load_params
from brewline.core.engine import Processes
from brewline.media.archives import MediaStore
from brewline.samples.packing import pack_corpus
from brewline.tables.parquet import read_table

PROJECT = Path(__file__).parents[1]
CASES = {"one-worker": 1, "two-workers": 2}
TAKES = 5
# Different pictures; the others are copies of them.
NUM_DRAWN = 50
ROUNDS = 3


def draw(number: int) -> bytes:
    """A picture with coarse and fine structure, as large as a photo of COCO's: some 150 kB."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC), np.float32)
    pixels = pixels + rng.normal(scale=8.0, size=pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def draw_tiny() -> bytes:
    """A picture that costs next to nothing."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "navy").save(buffer, "JPEG")
    return buffer.getvalue()


def make_corpus(folder: Path, num_pictures: int, drawn: list[bytes]) -> None:
    """Pictures in an archive, those drawn over and over, the manifest and the transcripts."""
    (folder / "raw").mkdir()
    with tarfile.open(folder / "raw/pictures.tar.gz", "w:gz", compresslevel=1) as archive:
        for number in range(num_pictures):
            add_member(archive, f"{number:06}.jpg", drawn[number % len(drawn)])
    keys = [f"u{number:07}" for number in range(TAKES * num_pictures)]
    spoken = {"caption": "some words", "duration_s": 4.0}
    rows = (
        {**spoken, "utterance_id": key, "audio_path": key}
        | dict.fromkeys(("image_id", "image_path"), f"{number // TAKES:06}.jpg")
        for number, key in enumerate(keys)
    )
    write_tables(folder, rows, {"text": "some words", "num_windows": 1, "num_frames": 200})


def run_bare(folder: Path) -> None:
    """What a user would write."""
    settings = load_params(PROJECT / "params.yaml").shard
    transcripts = {one["utterance_id"]: one for one in read_table(folder / "transcripts.parquet")}
    with (
        tempfile.TemporaryDirectory(dir=folder) as out,
        webdataset.ShardWriter(
            f"{out}/train-%06d.tar", maxcount=settings.utterances_per_shard, verbose=0
        ) as shards,
    ):
        for one in read_table(folder / "manifest.parquet"):
            with Image.open(folder / "loose" / one["image_path"]) as image:
                scale = settings.image_short_side_px / min(image.size)
                size = (round(scale * image.width), round(scale * image.height))
                small = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=settings.jpeg_quality)
            facts = {"caption": one["caption"], "image_id": one["image_id"]}
            facts |= {"transcript": transcripts[one["utterance_id"]]["text"]}
            shards.write({"__key__": one["utterance_id"], "jpg": buffer.getvalue(), "json": facts})


def run_ours(folder: Path, workers: int) -> None:
    """Both steps of stage `shard`, and the index."""
    params = load_params(PROJECT / "params.yaml")
    limit_s = params.runtime.inspect_decode_limit_s
    tables = (folder / "manifest.parquet", folder / "transcripts.parquet")
    with tempfile.TemporaryDirectory(dir=folder) as work:
        engine = Processes(workers)
        pack_corpus(engine, *tables, folder / "raw", params.shard, limit_s, Path(work))


def in_process(run: Callable[..., None], *arguments: Any) -> None:
    """Calls a function in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=run, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{run.__name__} ended with {process.exitcode}")


def measure(cases: list[str], num_pictures: int) -> Iterator[dict[str, Any]]:
    """The middle of some rounds, in turns."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # The index of the tar.gz lies under `work/`; it is made once, before anything is timed.
        os.chdir(folder)
        drawn = [draw(number) for number in range(NUM_DRAWN)]
        make_corpus(folder, num_pictures, drawn)
        (folder / "loose").mkdir()
        for number in range(num_pictures):
            (folder / f"loose/{number:06}.jpg").write_bytes(drawn[number % NUM_DRAWN])
        MediaStore(folder / "raw")
        for case in cases:
            bare, ours, peaks = [], [], []
            for _ in range(ROUNDS):
                bare.append(timed(partial(in_process, run_bare, folder)))
                with peak_memory() as peak:
                    ours.append(timed(partial(in_process, run_ours, folder, CASES[case])))
                    peaks.append(peak())
            largest = tuple(map(max, zip(*peaks, strict=True)))
            yield row(case, statistics.median(bare), statistics.median(ours), largest)


def measure_parent(num_utterances: int) -> dict[str, Any]:
    """Time and memory of packing a corpus, against those of a tenth of it."""
    found = []
    for number in (num_utterances // 10, num_utterances):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            os.chdir(folder)
            in_process(make_corpus, folder, number // TAKES, [draw_tiny()])
            with peak_memory() as peak:
                found.append((timed(partial(in_process, run_ours, folder, 2)), peak()))
    (few_s, few), (many_s, many) = found
    return row("parent", few_s, many_s, many) | {"baseline_mb": round(few[1])}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--pictures", type=int, default=1000, help="with five captions each")
    parser.add_argument("--utterances", type=int, default=600_000, help="of `parent`")
    parser.add_argument("--cases", nargs="+", choices=(*CASES, "parent"), default=list(CASES))
    arguments = parser.parse_args()
    speed = [case for case in arguments.cases if case in CASES]
    lines = measure(speed, arguments.pictures) if speed else iter(())
    if "parent" in arguments.cases:
        lines = itertools.chain(lines, map(measure_parent, [arguments.utterances]))
    for line in lines:
        if arguments.json:
            print(json.dumps(line), flush=True)
        else:
            print(
                f"{line['case']:12} bare {line['baseline_s']:8.2f} s   ours {line['ours_s']:8.2f} s"
                f"   {line['ratio']:.2f} of its speed, {line['peak_mb']} MiB"
                f" (parent {line['parent_mb']}, a worker {line['worker_mb']})"
                + (f"; of a tenth, parent {line['baseline_mb']}" if "baseline_mb" in line else "")
            )


if __name__ == "__main__":
    main()
