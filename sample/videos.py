"""mini-videos: short clips whose sound changes with what is seen, in MP4 and WebM.

A clip has a few acts, each in another place. In some of them a thing is seen and heard; in the
others something else is seen, and nothing heard. Everything is at known times, so that it can be
checked whether a model picks the frame that belongs to a sound. Things that sound are where they
are at home: the miniature CLIP knows places better than things.

Clips whose sound never changes (`Filmed(changing=False)`) are a control: one thing is seen and
heard from the beginning to the end, so that each frame is as good as another.
"""

import csv
import io
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from corpora import in_processes, write_tars
from drawing import Backdrop, Box
from language import sentence, thing_caption
from noises import AT_HOME, CALLS, room, sound
from PIL import Image
from scenes import INDOOR_PLACES, KINDS, PLACE_KINDS, PLACES, SIDES, SKIES, Scene, Thing
from speech import SAMPLE_RATE_HZ

FRAMES_PER_S = 8
SIDE_PX = 128
_ACTS = 4
_ACT_S = (0.85, 1.2)
_CAPTIONS = 3


@dataclass(frozen=True)
class Filmed:
    """How many clips each split has, and whether their sound changes."""

    clips: dict[str, int] = field(default_factory=lambda: {"train": 300, "dev": 60, "test": 100})
    changing: bool = True
    name: str = "videos"


@dataclass(frozen=True)
class Act:
    """A thing that is seen somewhere from one time to another, and heard or not."""

    place: str
    sky: str
    thing: Thing
    start_s: float
    end_s: float
    is_heard: bool


@dataclass(frozen=True)
class Clip:
    """What happens in a clip."""

    acts: tuple[Act, ...]

    @property
    def duration_s(self) -> float:
        return self.acts[-1].end_s

    @property
    def heard(self) -> list[Act]:
        return [act for act in self.acts if act.is_heard]


def sample_clip(rng: random.Random, changing: bool) -> Clip:
    """Draws a clip; no place comes twice in it."""
    ends = [0.0]
    for _ in range(_ACTS):
        # Acts change with a picture.
        ends.append(round((ends[-1] + rng.uniform(*_ACT_S)) * FRAMES_PER_S) / FRAMES_PER_S)
    if not changing:
        return Clip((_act(rng.choice(PLACES), 0.0, ends[-1], True, rng),))
    places = rng.sample(PLACES, _ACTS)
    heard = rng.sample(places, rng.choice((1, 2)))
    acts = (
        _act(place, start, end, place in heard, rng)
        for place, start, end in zip(places, ends[:-1], ends[1:], strict=True)
    )
    return Clip(tuple(acts))


def _act(place: str, start_s: float, end_s: float, is_heard: bool, rng: random.Random) -> Act:
    sky = "" if place in INDOOR_PLACES else rng.choice(SKIES)
    silent = [kind for kind in PLACE_KINDS[place] if kind not in CALLS]
    kind = AT_HOME[place] if is_heard else rng.choice(silent)
    return Act(place, sky, _thing(kind, rng), start_s, end_s, is_heard)


def _thing(kind: str, rng: random.Random) -> Thing:
    near = KINDS[kind].group not in {"sky", "water"}
    return Thing(kind, rng.choice(KINDS[kind].colours), "big", rng.choice(SIDES), near)


def captions(clip: Clip, rng: random.Random) -> list[str]:
    """What is heard, in words, several times."""
    scenes = [Scene(act.place, act.sky, (act.thing,)) for act in clip.heard]
    found: dict[str, None] = {}
    while len(found) < _CAPTIONS:
        found[sentence(" and ".join(thing_caption(scene, rng) for scene in scenes))] = None
    return list(found)


def pictures(clip: Clip, rng: random.Random) -> list[Image.Image]:
    """The pictures of a clip; in each act a thing moves to one side."""
    backdrops = [Backdrop(act.place, act.sky, rng) for act in clip.acts]
    boxes = [
        backdrop.box(act.thing, rng) for backdrop, act in zip(backdrops, clip.acts, strict=True)
    ]
    ways = [rng.choice((-0.2, 0.2)) for _ in clip.acts]
    found = []
    for number in range(round(clip.duration_s * FRAMES_PER_S)):
        time_s = number / FRAMES_PER_S
        place = next(place for place, act in enumerate(clip.acts) if time_s < act.end_s)
        act = clip.acts[place]
        gone = (time_s - act.start_s) / (act.end_s - act.start_s) - 0.5
        picture = backdrops[place].picture(act.thing, _moved(boxes[place], ways[place] * gone))
        found.append(picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX))
    return found


def _moved(box: Box, way: float) -> Box:
    way = min(max(way, -box[0]), 1 - box[2])
    return box[0] + way, box[1], box[2] + way, box[3]


def waveform(clip: Clip, rng: random.Random) -> np.ndarray:
    """The sound of a clip, float32 [samples] at 16 kHz."""
    wave = room(round(clip.duration_s * SAMPLE_RATE_HZ), rng)
    for act in clip.acts:
        if act.is_heard:
            start = round(act.start_s * SAMPLE_RATE_HZ)
            heard = sound(act.thing.kind, act.end_s - act.start_s, rng)
            wave[start : start + len(heard)] += heard[: len(wave) - start]
    return wave


def film(images: Iterable[Image.Image], wave: np.ndarray, suffix: str) -> bytes:
    """An MP4 (H.264 and AAC) or a WebM (VP8 and Opus); equal inputs give equal bytes."""
    buffer = io.BytesIO()
    is_mp4 = suffix == "mp4"
    # Without it the file says when it was made, and by which version.
    plain = {"fflags": "+bitexact"}
    with av.open(buffer, "w", format=suffix, options=plain) as container:
        video = container.add_stream("libx264" if is_mp4 else "libvpx", rate=FRAMES_PER_S)
        video.width = video.height = SIDE_PX
        video.pix_fmt = "yuv420p"
        # More threads cut a picture into more parts.
        video.codec_context.thread_count = 1
        video.options = (
            {"crf": "34", "preset": "medium"}
            if is_mp4
            else {"crf": "36", "b:v": "90k", "deadline": "good", "cpu-used": "1"}
        )
        audio = container.add_stream("aac" if is_mp4 else "libopus", rate=SAMPLE_RATE_HZ)
        audio.layout = "mono"
        audio.bit_rate = 18_000
        for stream in (video, audio):
            stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_S)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        pcm = (wave * 32767).round().clip(-32768, 32767).astype(np.int16)
        sound = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        sound.sample_rate, sound.pts = SAMPLE_RATE_HZ, 0
        sound.time_base = Fraction(1, SAMPLE_RATE_HZ)
        container.mux(audio.encode(sound))
        container.mux(audio.encode())
    return buffer.getvalue()


def _make(name: str, changing: bool, suffix: str) -> tuple[bytes, Clip, list[str]]:
    rng = random.Random(name)
    clip = sample_clip(rng, changing)
    texts = captions(clip, rng)
    images = pictures(clip, rng)
    return film(images, waveform(clip, rng), suffix), clip, texts


def build_videos(folder: Path, size: Filmed) -> None:
    """Tars of clips, and two tables: what each one is called, and what happens when."""
    splits = [split for split, count in size.clips.items() for _ in range(count)]
    suffixes = ["webm" if number % 5 == 0 else "mp4" for number in range(len(splits))]
    names = [f"clip{number:05}" for number in range(len(splits))]
    jobs = [
        (f"{size.name}/{name}", size.changing, suffix)
        for name, suffix in zip(names, suffixes, strict=True)
    ]
    made = in_processes(_make, jobs)
    paths = [f"videos/{name}.{suffix}" for name, suffix in zip(names, suffixes, strict=True)]
    films = {path: film for path, (film, _, _) in zip(paths, made, strict=True)}
    write_tars(folder, "videos", films)
    told = zip(paths, splits, made, strict=True)
    clips = [(path, split, text) for path, split, (_, _, texts) in told for text in texts]
    _write_csv(folder / "clips.csv", ("video", "split", "caption"), clips)
    events = [
        (path, f"{act.start_s:.3f}", f"{act.end_s:.3f}", act.thing.kind)
        for path, (_, clip, _) in zip(paths, made, strict=True)
        for act in clip.acts
        if act.is_heard
    ]
    _write_csv(folder / "events.csv", ("video", "start", "end", "label"), events)


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
