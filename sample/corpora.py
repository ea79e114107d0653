"""The miniature corpora in their published layouts: loose annotations beside uncompressed tars."""

import io
import json
import random
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

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

FLICKR_SPLITS = {"train": 240, "dev": 90, "test": 90}
FLICKR_UNUSED_IMAGES = 3
FLICKR_SPEAKERS = 60
NARRATED_IMAGES = {"train": 800, "val": 200}
SECOND_NARRATIONS = {"train": 40, "val": 20}
ANNOTATORS = 80
RAVDESS_ACTORS = 8
EMOTIONS = ("01", "02", "03", "04", "05")
TAR_LIMIT_BYTES = 9_000_000

Members = dict[str, bytes]


@dataclass(frozen=True)
class Emotion:
    """How an emotion sounds: factors of rate and volume, steps of pitch, range of pitch."""

    rate: float
    pitch: int
    pitch_range: int
    volume: float


_EMOTION_SOUNDS = {
    "01": Emotion(1.0, 0, 50, 1.0),
    "02": Emotion(0.88, -5, 32, 0.75),
    "03": Emotion(1.08, 14, 85, 1.15),
    "04": Emotion(0.76, -10, 14, 0.55),
    "05": Emotion(1.18, 4, 70, 1.6),
}


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


def build_flickr8k(folder: Path) -> None:
    """Five short captions an image, each read by one of a few dozen speakers."""
    rng = random.Random("flickr8k")
    total = sum(FLICKR_SPLITS.values()) + FLICKR_UNUSED_IMAGES
    stems = [
        f"{rng.randint(10**9, 4 * 10**9 - 1)}_{rng.getrandbits(40):010x}" for _ in range(total)
    ]
    images: Members = {}
    audio: Members = {}
    lines: dict[str, list[str]] = {"token": [], "wav2capt": [], "wav2spk": []}
    for index, stem in enumerate(stems):
        scene, scene_rng = _scene("flickr8k", index)
        picture = draw_scene(scene, scene_rng, _faded(scene_rng, 0.35))
        images[f"Images/{stem}.jpg"] = jpeg_bytes(picture)
        spoken = index < total - FLICKR_UNUSED_IMAGES
        for number, caption in enumerate(scripted_captions(scene, scene_rng)):
            lines["token"].append(f"{stem}.jpg#{number}\t{caption[:-1]} .")
            if not spoken:
                continue
            speaker = scene_rng.randint(1, FLICKR_SPEAKERS)
            name = f"{stem}_{number}"
            audio[f"flickr_audio/wavs/{name}.ogg"] = _read_aloud(caption, speaker, name)
            lines["wav2capt"].append(f"{name}.wav {stem}.jpg #{number}")
            lines["wav2spk"].append(f"{name}.wav {speaker}")
    write_tar(folder / "Images.tar", images)
    write_tars(folder, "flickr_audio", audio)
    _write_lines(folder / "Flickr8k.token.txt", sorted(lines["token"]))
    _write_lines(folder / "flickr_audio" / "wav2capt.txt", sorted(lines["wav2capt"]))
    _write_lines(folder / "flickr_audio" / "wav2spk.txt", sorted(lines["wav2spk"]))
    start = 0
    for split, count in FLICKR_SPLITS.items():
        names = [f"{stem}.jpg" for stem in stems[start : start + count]]
        _write_lines(folder / f"Flickr_8k.{split}Images.txt", names)
        start += count


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


def build_lncoco(folder: Path) -> dict[str, str]:
    """Long narrations with noise, some damaged; returns {utterance id: kind of damage}."""
    rng = random.Random("lncoco")
    talk_rng = random.Random("lncoco/babble")
    talk = [written_narration(narration(sample_scene(talk_rng), talk_rng)) for _ in range(6)]
    babble = make_babble([synthesise(text, sample_voice(talk_rng)) for text in talk])
    image_ids = rng.sample(range(1_000, 581_929), sum(NARRATED_IMAGES.values()))
    corrupted: dict[str, str] = {}
    start = 0
    for split, count in NARRATED_IMAGES.items():
        images: Members = {}
        tellings: list[tuple[int, int, int]] = []
        for index in range(start, start + count):
            scene, scene_rng = _scene("lncoco", index)
            picture = draw_scene(scene, scene_rng, _faded(scene_rng, 1.0))
            images[f"{split}2017/{image_ids[index]:012d}.jpg"] = jpeg_bytes(picture)
            times = 2 if index - start < SECOND_NARRATIONS[split] else 1
            annotators = rng.sample(range(1, ANNOTATORS + 1), times)
            tellings += [(index, image_ids[index], annotator) for annotator in annotators]
        damaged = dict(zip(rng.sample(range(len(tellings)), len(DAMAGES)), DAMAGES, strict=True))
        audio: Members = {}
        lines = []
        for place, (index, image_id, annotator) in enumerate(tellings):
            record, wave = _narrate(split, index, image_id, annotator, babble)
            kind = damaged.get(place)
            if kind:
                corrupted[Path(record["voice_recording"]).stem] = kind
                recording = DAMAGES[kind](wave, np.random.default_rng(image_id))
            else:
                recording = opus_bytes(wave)
            audio[record["voice_recording"]] = recording
            lines.append(record)
        if split == "val":
            # The published file has one such line, too.
            del lines[len(lines) // 2]["traces"]
        write_tars(folder, f"coco_{split}", audio)
        write_tars(folder, f"{split}2017", images)
        name = "coco_val" if split == "val" else "coco_train"
        shard = "" if split == "val" else "-00000-of-00001"
        _write_lines(
            folder / f"{name}_localized_narratives{shard}.jsonl", [json.dumps(r) for r in lines]
        )
        start += count
    return corrupted


def _narrate(
    split: str, index: int, image_id: int, annotator: int, babble: np.ndarray
) -> tuple[dict[str, object], np.ndarray]:
    scene, _ = _scene("lncoco", index)
    rng = random.Random(f"lncoco/{image_id}/{annotator}")
    parts = narration(scene, rng)
    voice = _speaker("lncoco", annotator)
    voice = replace(voice, rate=voice.rate + rng.randint(-8, 14))
    wave = synthesise(spoken_narration(parts, rng), voice)
    generator = np.random.default_rng(rng.getrandbits(32))
    wave = degrade(wave, narration_condition(rng), generator, babble)
    caption = written_narration(parts)
    duration_s = len(wave) / SAMPLE_RATE_HZ
    record: dict[str, object] = {
        "dataset_id": f"mscoco_{split}2017",
        "image_id": str(image_id),
        "annotator_id": annotator,
        "caption": caption,
        "timed_caption": _timed(caption, duration_s),
        "traces": _traces(scene, parts, duration_s, rng),
        "voice_recording": f"coco_{split}/coco_{split}_{image_id}_{annotator}.ogg",
    }
    return record, wave


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


def build_ravdess(folder: Path) -> None:
    """Two statements, five emotions, two intensities, two repetitions, odd actors male."""
    members: Members = {}
    for actor in range(1, RAVDESS_ACTORS + 1):
        for emotion in EMOTIONS:
            for intensity in (1,) if emotion == "01" else (1, 2):
                for statement in RAVDESS_STATEMENTS:
                    for take in (1, 2):
                        name = (
                            f"03-01-{emotion}-{intensity:02d}-{statement:02d}-{take:02d}"
                            f"-{actor:02d}"
                        )
                        recording = _act(name, actor, emotion, intensity, statement)
                        members[f"Actor_{actor:02d}/{name}.ogg"] = recording
    write_tar(folder / "Audio_Speech_Actors_01-24.tar", members)


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
    """All corpora below `folder`, and the list of what is damaged beside them."""
    build_flickr8k(folder / "mini-flickr8k")
    corrupted = build_lncoco(folder / "mini-lncoco")
    build_ravdess(folder / "mini-ravdess")
    text = json.dumps(dict(sorted(corrupted.items())), indent=2)
    (folder / "mini-lncoco.corrupted.json").write_text(text + "\n")
