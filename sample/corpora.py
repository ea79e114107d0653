"""The miniature corpora in their published layouts: loose annotations beside uncompressed tars.

Any number of pictures or actors: `study/` makes larger ones. Each picture and each recording
follows from a seed of its own, so all processors make them, and their number changes no byte.
"""

import functools
import io
import json
import multiprocessing
import random
import tarfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from corrupt import DAMAGES
from drawing import Finish, draw_scene, jpeg_bytes
from language import (
    RAVDESS_STATEMENTS,
    Part,
    narration,
    scripted_captions,
    spoken_narration,
    written_narration,
)
from scenes import SIDES, Scene, Thing, sample_scene
from speech import (
    FEMALE,
    MALE,
    SAMPLE_RATE_HZ,
    Condition,
    Voice,
    degrade,
    make_babble,
    opus_bytes,
    sample_voice,
    synthesise,
)

TAR_LIMIT_BYTES = 9_000_000

Members = dict[str, bytes]


@dataclass(frozen=True)
class Captioned:
    """How many pictures of each split have captions that are read aloud, by how many speakers.

    Pictures are `aspect` times as wide as high.
    """

    pictures: dict[str, int] = field(default_factory=lambda: {"train": 240, "dev": 90, "test": 90})
    unused_pictures: int = 3
    speakers: int = 60
    aspect: float = 1.0


@dataclass(frozen=True)
class Narrated:
    """How many pictures are told about, how many of them twice, by how many speakers."""

    pictures: dict[str, int] = field(default_factory=lambda: {"train": 800, "val": 200})
    told_twice: dict[str, int] = field(default_factory=lambda: {"train": 40, "val": 20})
    speakers: int = 80


@dataclass(frozen=True)
class Acted:
    """How many actors act how many emotions, the first ones of RAVDESS."""

    actors: int = 8
    emotions: int = 5


@dataclass(frozen=True)
class Emotion:
    """How an emotion sounds: factors of rate and volume, steps of pitch, range of pitch."""

    rate: float
    pitch: int
    pitch_range: int
    volume: float


# By RAVDESS' numbers.
_EMOTION_SOUNDS = {
    "01": Emotion(1.0, 0, 50, 1.0),
    "02": Emotion(0.88, -5, 32, 0.75),
    "03": Emotion(1.08, 14, 85, 1.15),
    "04": Emotion(0.76, -10, 14, 0.55),
    "05": Emotion(1.18, 4, 70, 1.6),
    "06": Emotion(1.24, 12, 38, 0.8),
    "07": Emotion(0.84, -4, 62, 1.2),
    "08": Emotion(1.0, 18, 95, 1.25),
}


def in_processes(make: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
    """What `make` gives for each job, in their order."""
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(make, *zip(*jobs, strict=True), chunksize=16))


def write_tar(path: Path, members: Members) -> None:
    """An uncompressed tar: members sorted, no times, no owners."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(members):
            info = tarfile.TarInfo(name)
            info.size = len(members[name])
            archive.addfile(info, io.BytesIO(members[name]))


def write_tars(folder: Path, stem: str, members: Members) -> None:
    """One tar, or `stem-0.tar`, `stem-1.tar` ... where one would pass the limit."""
    shares: list[Members] = [{}]
    size = 0
    for name in sorted(members):
        cost = len(members[name]) + 1024
        if size + cost > TAR_LIMIT_BYTES:
            shares.append({})
            size = 0
        shares[-1][name] = members[name]
        size += cost
    for number, share in enumerate(shares):
        name = f"{stem}-{number}.tar" if len(shares) > 1 else f"{stem}.tar"
        write_tar(folder / name, share)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _scene(corpus: str, index: int) -> tuple[Scene, random.Random]:
    rng = random.Random(f"{corpus}/image/{index}")
    return sample_scene(rng), rng


def _speaker(corpus: str, number: int) -> Voice:
    return sample_voice(random.Random(f"{corpus}/speaker/{number}"))


def _faded(rng: random.Random, strength: float) -> Finish:
    """The look of an old warm photograph, a little different for each picture."""
    cast = (
        1 + strength * rng.uniform(0.02, 0.10),
        1 - strength * rng.uniform(0.0, 0.06),
        1 - strength * rng.uniform(0.12, 0.26),
    )
    return Finish(
        cast=cast,
        contrast=1 - strength * rng.uniform(0.10, 0.26),
        vignette=strength * rng.uniform(0.2, 0.45),
        blur_px=strength * rng.uniform(0.3, 1.1),
    )


# --- mini-flickr8k -------------------------------------------------------------------------------


def scripted_condition(rng: random.Random) -> Condition:
    """A quiet room, mostly."""
    if rng.random() < 0.5:
        return Condition()
    return Condition(noise=rng.choice(("white", "pink")), snr_db=rng.uniform(15, 32))


def build_flickr8k(folder: Path, size: Captioned) -> None:
    """Five short captions an image, each read by one of a few dozen speakers."""
    rng = random.Random("flickr8k")
    num_spoken = sum(size.pictures.values())
    stems = [
        f"{rng.randint(10**9, 4 * 10**9 - 1)}_{rng.getrandbits(40):010x}"
        for _ in range(num_spoken + size.unused_pictures)
    ]
    jobs = [(index, size.speakers, size.aspect) for index in range(len(stems))]
    made = in_processes(_caption_picture, jobs)
    images = {f"Images/{stem}.jpg": jpeg for stem, (jpeg, _) in zip(stems, made, strict=True)}
    write_tar(folder / "Images.tar", images)
    readings: dict[str, tuple[str, int, str]] = {}
    lines: dict[str, list[str]] = {"token": [], "wav2capt": [], "wav2spk": []}
    for index, (stem, (_, captions)) in enumerate(zip(stems, made, strict=True)):
        for number, (caption, speaker) in enumerate(captions):
            lines["token"].append(f"{stem}.jpg#{number}\t{caption[:-1]} .")
            if index >= num_spoken:
                continue
            name = f"{stem}_{number}"
            readings[f"flickr_audio/wavs/{name}.ogg"] = caption, speaker, name
            lines["wav2capt"].append(f"{name}.wav {stem}.jpg #{number}")
            lines["wav2spk"].append(f"{name}.wav {speaker}")
    recordings = in_processes(_read_aloud, list(readings.values()))
    write_tars(folder, "flickr_audio", dict(zip(readings, recordings, strict=True)))
    _write_lines(folder / "Flickr8k.token.txt", sorted(lines["token"]))
    _write_lines(folder / "flickr_audio" / "wav2capt.txt", sorted(lines["wav2capt"]))
    _write_lines(folder / "flickr_audio" / "wav2spk.txt", sorted(lines["wav2spk"]))
    start = 0
    for split, count in size.pictures.items():
        names = [f"{stem}.jpg" for stem in stems[start : start + count]]
        _write_lines(folder / f"Flickr_8k.{split}Images.txt", names)
        start += count


def _caption_picture(
    index: int, num_speakers: int, aspect: float
) -> tuple[bytes, list[tuple[str, int]]]:
    """A picture as JPEG, and its captions with the number of the speaker of each."""
    scene, rng = _scene("flickr8k", index)
    picture = jpeg_bytes(draw_scene(scene, rng, _faded(rng, 0.35), aspect))
    captions = scripted_captions(scene, rng)
    return picture, [(caption, rng.randint(1, num_speakers)) for caption in captions]


def _read_aloud(caption: str, speaker: int, name: str) -> bytes:
    rng = random.Random(f"flickr8k/{name}")
    voice = _speaker("flickr8k", speaker)
    wave = synthesise(caption, replace(voice, rate=voice.rate + rng.randint(-8, 8)))
    generator = np.random.default_rng(rng.getrandbits(32))
    return opus_bytes(degrade(wave, scripted_condition(rng), generator), 0.992)


# --- mini-lncoco ---------------------------------------------------------------------------------


def narration_condition(rng: random.Random) -> Condition:
    """Somebody's room or office: noise, hum, echo, cheap microphones."""
    return Condition(
        noise=rng.choice(("white", "pink", "babble")),
        snr_db=rng.uniform(10, 26),
        reverb=rng.choice((0.0, 0.0, 0.25)),
        hum=rng.choice((0.0, 0.0, 0.1)),
        low_pass_hz=rng.choice((0, 0, 0, 3600)),
    )


@dataclass(frozen=True)
class _Telling:
    """Who tells about which picture, and how the recording is damaged; None: not at all."""

    split: str
    index: int
    image_id: int
    annotator: int
    damage: str | None

    @property
    def file(self) -> str:
        return f"coco_{self.split}/coco_{self.split}_{self.image_id}_{self.annotator}.ogg"

    @property
    def rng(self) -> random.Random:
        return random.Random(f"lncoco/{self.image_id}/{self.annotator}")


def build_lncoco(folder: Path, size: Narrated) -> dict[str, str]:
    """Long narrations with noise, some damaged; returns {utterance id: kind of damage}."""
    rng = random.Random("lncoco")
    image_ids = rng.sample(range(1_000, 581_929), sum(size.pictures.values()))
    corrupted: dict[str, str] = {}
    start = 0
    for split, count in size.pictures.items():
        indices = range(start, start + count)
        told: list[tuple[int, int]] = []
        for index in indices:
            times = 2 if index - start < size.told_twice[split] else 1
            annotators = rng.sample(range(1, size.speakers + 1), times)
            told += [(index, annotator) for annotator in annotators]
        damaged = dict(zip(rng.sample(range(len(told)), len(DAMAGES)), DAMAGES, strict=True))
        tellings = [
            _Telling(split, index, image_ids[index], annotator, damaged.get(place))
            for place, (index, annotator) in enumerate(told)
        ]
        corrupted |= {Path(one.file).stem: one.damage for one in tellings if one.damage}
        _write_tellings(folder, split, tellings)
        names = [f"{split}2017/{image_ids[index]:012d}.jpg" for index in indices]
        pictures = in_processes(_narrated_picture, [(index,) for index in indices])
        write_tars(folder, f"{split}2017", dict(zip(names, pictures, strict=True)))
        start += count
    return corrupted


def _narrated_picture(index: int) -> bytes:
    scene, rng = _scene("lncoco", index)
    return jpeg_bytes(draw_scene(scene, rng, _faded(rng, 1.0)))


def _write_tellings(folder: Path, split: str, tellings: Sequence[_Telling]) -> None:
    """Recordings, and a line about each."""
    made = in_processes(_narrate, [(one,) for one in tellings])
    recordings = {one.file: recording for one, (recording, _) in zip(tellings, made, strict=True)}
    write_tars(folder, f"coco_{split}", recordings)
    lines = [record for _, record in made]
    if split == "val":
        # The published file has one such line, too.
        del lines[len(lines) // 2]["traces"]
    shard = "" if split == "val" else "-00000-of-00001"
    path = folder / f"coco_{split}_localized_narratives{shard}.jsonl"
    _write_lines(path, [json.dumps(one) for one in lines])


@functools.cache
def _babble() -> np.ndarray:
    """Six people talking at once."""
    rng = random.Random("lncoco/babble")
    talk = [written_narration(narration(sample_scene(rng), rng)) for _ in range(6)]
    return make_babble([synthesise(text, sample_voice(rng)) for text in talk])


def _narrate(telling: _Telling) -> tuple[bytes, dict[str, object]]:
    """A recording, and its line in the published file."""
    scene, _ = _scene("lncoco", telling.index)
    rng = telling.rng
    parts = narration(scene, rng)
    voice = _speaker("lncoco", telling.annotator)
    voice = replace(voice, rate=voice.rate + rng.randint(-8, 14))
    wave = synthesise(spoken_narration(parts, rng), voice)
    generator = np.random.default_rng(rng.getrandbits(32))
    wave = degrade(wave, narration_condition(rng), generator, _babble())
    caption = written_narration(parts)
    duration_s = len(wave) / SAMPLE_RATE_HZ
    record: dict[str, object] = {
        "dataset_id": f"mscoco_{telling.split}2017",
        "image_id": str(telling.image_id),
        "annotator_id": telling.annotator,
        "caption": caption,
        "timed_caption": _timed(caption, duration_s),
        "traces": _traces(scene, parts, duration_s, rng),
        "voice_recording": telling.file,
    }
    if telling.damage is None:
        return opus_bytes(wave), record
    return DAMAGES[telling.damage](wave, np.random.default_rng(telling.image_id)), record


def _timed(caption: str, duration_s: float) -> list[dict[str, object]]:
    """Words in time, as long as their letters are many."""
    timed: list[dict[str, object]] = []
    done = 0
    for word in caption.split():
        start, done = done, done + len(word) + 1
        times = [round(duration_s * place / (len(caption) + 1), 2) for place in (start, done)]
        timed.append({"utterance": word, "start_time": times[0], "end_time": times[1]})
    return timed


def _traces(
    scene: Scene, parts: list[Part], duration_s: float, rng: random.Random
) -> list[list[dict[str, float]]]:
    """A stroke of the mouse for each thing that is mentioned."""
    strokes = []
    for place, part in enumerate(parts):
        if part.thing is None:
            continue
        x, y = _centre(scene.things[part.thing])
        start_s = duration_s * place / len(parts)
        strokes.append(
            [
                {
                    "x": round(x + rng.uniform(-0.08, 0.08), 3),
                    "y": round(y + rng.uniform(-0.08, 0.08), 3),
                    "t": round(start_s + 0.3 * step, 2),
                }
                for step in range(4)
            ]
        )
    return strokes


def _centre(thing: Thing) -> tuple[float, float]:
    x = 0.18 + 0.32 * SIDES.index(thing.side)
    if thing.in_sky:
        return x, 0.2
    return x, 0.8 if thing.near else 0.62


# --- mini-ravdess --------------------------------------------------------------------------------


def build_ravdess(folder: Path, size: Acted) -> None:
    """Two statements, some emotions, two intensities, two repetitions, odd actors male."""
    jobs: dict[str, tuple[str, int, str, int, int]] = {}
    for actor in range(1, size.actors + 1):
        for emotion in list(_EMOTION_SOUNDS)[: size.emotions]:
            for intensity in (1,) if emotion == "01" else (1, 2):
                for statement in RAVDESS_STATEMENTS:
                    for take in (1, 2):
                        name = (
                            f"03-01-{emotion}-{intensity:02d}-{statement:02d}-{take:02d}"
                            f"-{actor:02d}"
                        )
                        path = f"Actor_{actor:02d}/{name}.ogg"
                        jobs[path] = name, actor, emotion, intensity, statement
    recordings = in_processes(_act, list(jobs.values()))
    archive = folder / "Audio_Speech_Actors_01-24.tar"
    write_tar(archive, dict(zip(jobs, recordings, strict=True)))


def _act(name: str, actor: int, emotion: str, intensity: int, statement: int) -> bytes:
    actor_rng = random.Random(f"ravdess/{actor}")
    variants = MALE if actor % 2 else FEMALE
    voice = Voice(
        accent=actor_rng.choice(("en-us", "en-gb", "en-gb-x-rp", "en-us-nyc")),
        variant=variants[actor // 2 % len(variants)],
        rate=actor_rng.randint(140, 165),
        pitch=actor_rng.randint(30, 45) if actor % 2 else actor_rng.randint(48, 65),
    )
    rng = random.Random(name)
    sound = _EMOTION_SOUNDS[emotion]
    force = 1.0 if intensity == 1 else 1.6
    acted = replace(
        voice,
        rate=round(voice.rate * (1 + (sound.rate - 1) * force) + rng.uniform(-6, 6)),
        pitch=min(max(round(voice.pitch + sound.pitch * force + rng.uniform(-4, 4)), 0), 99),
        pitch_range=min(max(round(50 + (sound.pitch_range - 50) * force), 1), 99),
        volume=min(round(100 * (1 + (sound.volume - 1) * force) + rng.uniform(-8, 8)), 190),
    )
    wave = synthesise(RAVDESS_STATEMENTS[statement], acted)
    generator = np.random.default_rng(rng.getrandbits(32))
    return opus_bytes(degrade(wave, Condition("pink", snr_db=32), generator), 0.97)


def build(folder: Path) -> None:
    """All corpora as they are shipped, and the list of what is damaged beside them."""
    build_flickr8k(folder / "mini-flickr8k", Captioned())
    corrupted = build_lncoco(folder / "mini-lncoco", Narrated())
    build_ravdess(folder / "mini-ravdess", Acted())
    text = json.dumps(dict(sorted(corrupted.items())), indent=2)
    (folder / "mini-lncoco.corrupted.json").write_text(text + "\n")
