"""A tiny world for tests: corpora in the published layouts, and random weights, made in a second.

Colours stand for pictures and tones for speech, so that nothing here can be recognised; what a
test learns from it is whether the pipeline carries everything through, not how well.
"""

import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml
from PIL import Image

from brewline.core.engine import Processes
from brewline.media.archives import MediaStore
from brewline.quality.inspection import inspect_files, join_runs, list_files
from brewline.tables.listing import Listing

SAMPLE_RATE_HZ = 16_000
PARAMS = Path(__file__).parents[1] / "params.yaml"
NUM_IMAGES = {"train": 6, "dev": 3, "test": 3}


def tone_limits() -> dict[str, Any]:
    """Section `validate`, but for tones, which have neither syllables nor pauses."""
    values: dict[str, Any] = yaml.safe_load(PARAMS.read_text())["validate"]
    return values | {"min_level_range_db": 0.0}


def tone(number: int, duration_s: float = 0.6) -> np.ndarray:
    """A tone whose pitch depends on `number`: (num_samples,) float32."""
    time_s = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (0.3 * np.sin(2 * np.pi * (200 + 37 * number) * time_s)).astype(np.float32)


def encode_audio(
    samples: np.ndarray, format: str = "OGG", subtype: str = "OPUS", rate: int = SAMPLE_RATE_HZ
) -> bytes:
    """Packs samples in a container of libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def picture(number: int, size: tuple[int, int] = (48, 40)) -> bytes:
    """A JPEG of one colour."""
    buffer = io.BytesIO()
    colour = tuple(int(x) for x in np.random.default_rng(number).integers(0, 255, 3))
    Image.new("RGB", size, colour).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    """Writes a tar with these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_facts(
    store: MediaStore,
    listings: list[Listing],
    folder: Path,
    decode_limit_s: float = 60.0,
    with_speech_share: bool = False,
) -> None:
    """What stage `inspect` does, without anything to go on with."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        files, rows = list_files(store, listings, work / "files"), work / "rows"
        inspect_files(
            Processes(2), store.root, files, rows, decode_limit_s, 250.0, with_speech_share
        )
        join_runs(files, rows, folder)


def make_flickr8k(folder: Path) -> None:
    """Twelve images, two captions each, in Flickr8k Audio's layout."""
    images: dict[str, bytes] = {}
    audio: dict[str, bytes] = {}
    tokens, wav2capt, wav2spk = [], [], []
    number = 0
    for split, count in NUM_IMAGES.items():
        names = []
        for _ in range(count):
            jpg = f"{1000 + number}_ab{number}.jpg"
            names.append(jpg)
            images[f"Images/{jpg}"] = picture(number)
            for k in range(2):
                stem = f"{jpg.removesuffix('.jpg')}_{k}"
                audio[f"flickr_audio/wavs/{stem}.ogg"] = encode_audio(tone(number * 2 + k))
                tokens.append(f"{jpg}#{k}\tPicture # {number} , caption {k} .")
                wav2capt.append(f"{stem}.wav {jpg} #{k}")
                wav2spk.append(f"{stem}.wav {number % 3}")
            number += 1
        (folder / "text").mkdir(parents=True, exist_ok=True)
        (folder / f"Flickr_8k.{split}Images.txt").write_text("\n".join(names) + "\n")
    (folder / "text").rmdir()
    # As published: a caption whose key is broken and whose image is in no split.
    tokens.append("2258277193_586949ec62.jpg.1#0\tPeople waiting .")
    write_tar(folder / "Images.tar", images)
    write_tar(folder / "flickr_audio.tar", audio)
    (folder / "Flickr8k.token.txt").write_text("\n".join(tokens) + "\n")
    (folder / "flickr_audio").mkdir()
    (folder / "flickr_audio/wav2capt.txt").write_text("\n".join(wav2capt) + "\n")
    (folder / "flickr_audio/wav2spk.txt").write_text("\n".join(wav2spk) + "\n")


def corrupted_recordings() -> dict[str, bytes]:
    """One recording per kind of corruption, by the reason that must catch it."""
    good = encode_audio(tone(1, 2.0))
    wav = encode_audio(tone(2, 2.0), "WAV", "PCM_16")
    broken = tone(3)
    broken[100:200] = np.nan
    garbage = bytearray(good)
    garbage[len(good) // 2 : len(good) // 2 + 40] = bytes(range(40))
    return {
        "empty_file": b"",
        "not_audio": b"<html><body>404 Not Found</body></html>",
        "truncated": good[: len(good) * 2 // 3],
        "damaged": bytes(garbage),
        "shorter_than_header": wav[: len(wav) // 2],
        "non_finite": encode_audio(broken, "WAV", "FLOAT"),
        "silent": encode_audio(np.zeros(SAMPLE_RATE_HZ, np.float32), "WAV", "PCM_16"),
        "too_short": encode_audio(tone(4, 0.05), "WAV", "PCM_16"),
    }


def narrative(part: str, image: int, annotator: int, caption: str) -> dict[str, Any]:
    """One line of Localized Narratives."""
    return {
        "dataset_id": f"mscoco_{part}2017",
        "image_id": str(image),
        "annotator_id": annotator,
        "caption": caption,
        "timed_caption": [{"utterance": caption, "start_time": 0.0, "end_time": 0.6}],
        "traces": [[{"x": 0.1, "y": 1.01, "t": 0.0}]],
        "voice_recording": f"coco_{part}/coco_{part}_{image}_{annotator}.ogg",
    }


def make_lncoco(folder: Path) -> dict[str, str]:
    """Localized Narratives' layout, with one recording of each kind of corruption.

    Returns:
        The corrupted utterances with the reason that must catch each.
    """
    folder.mkdir(parents=True)
    kinds = corrupted_recordings()
    planted: dict[str, str] = {}
    for part, count in (("train", 24), ("val", 8)):
        images: dict[str, bytes] = {}
        audio: dict[str, bytes] = {}
        lines = []
        for image in range(1, count + 1):
            row = narrative(part, image, 40 + image % 2, f"In this image we can see {image}.")
            if part == "val" and image == 3:
                del row["traces"]
            content = encode_audio(tone(image, 0.5 + 0.1 * (image % 5)))
            if part == "train" and image <= len(kinds):
                reason = list(kinds)[image - 1]
                content = kinds[reason]
                planted[Path(row["voice_recording"]).stem] = reason
            audio[row["voice_recording"]] = content
            images[f"{part}2017/{image:012d}.jpg"] = picture(image + (100 if part == "val" else 0))
            lines.append(json.dumps(row))
        name = "train_localized_narratives-00000-of-00001" if part == "train" else None
        name = name or "val_localized_narratives"
        (folder / f"coco_{name}.jsonl").write_text("\n".join(lines) + "\n")
        write_tar(folder / f"{part}2017.tar", images)
        write_tar(folder / f"coco_{part}.tar", audio)
    return planted


def make_ravdess(folder: Path) -> None:
    """Four actors, two emotions, in RAVDESS' layout (as a zip of WAV files, as published)."""
    import zipfile

    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "Audio_Speech_Actors_01-24.zip", "w") as archive:
        for actor in range(1, 5):
            for emotion in (3, 5):
                name = f"Actor_{actor:02d}/03-01-{emotion:02d}-01-02-01-{actor:02d}.wav"
                content = encode_audio(tone(actor * emotion), "WAV", "PCM_16")
                archive.writestr(name, content)


def make_whisper(path: Path) -> None:
    """A random Whisper, 32 wide, English only, in openai-whisper's checkpoint format."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(0)
    dims = ModelDimensions(
        n_mels=80,
        n_audio_ctx=1500,
        n_audio_state=32,
        n_audio_head=2,
        n_audio_layer=1,
        n_vocab=51864,
        n_text_ctx=448,
        n_text_state=32,
        n_text_head=2,
        n_text_layer=1,
    )
    model = Whisper(dims)
    torch.nn.init.normal_(model.decoder.positional_embedding)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"dims": dims.__dict__, "model_state_dict": model.half().state_dict()}, path)


def make_clip(folder: Path) -> None:
    """A random CLIP, 32 wide, on 32 px pictures, in open_clip's `local-dir:` format."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16,
                       "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 48, "heads": 2,
                     "layers": 1},
    }  # fmt: skip
    model = open_clip.CLIP(**config)
    folder.mkdir(parents=True, exist_ok=True)
    normalise = {"mean": [0.48145466, 0.4578275, 0.40821073],
                 "std": [0.26862954, 0.26130258, 0.27577711]}  # fmt: skip
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": normalise})
    )
    tensors = {key: tensor.contiguous() for key, tensor in model.half().state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
