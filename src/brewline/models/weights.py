"""Backbones: found, verified, and brought into the one form that the loaders read.

`models/backbones/whisper.pt` is a checkpoint of openai-whisper; `models/backbones/clip/` is a
folder that open_clip loads as `local-dir:`; `models/backbones/hubert/`, `ast/` and `clap/`, where
there are any, are folders of transformers. `backbones.json` and, of what hears in layers,
`encoders.json`, of what hears sounds, `sounds.json` name each by its content hash, so a trained
model can say exactly which weights it belongs to.
"""

import hashlib
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from brewline.config.backbones import BackboneParams, BackbonesParams
from brewline.config.sources import FileParams
from brewline.core.errors import BrewlineError
from brewline.core.files import (
    link,
    read_json,
    remove,
    sha256_file,
    sha256_tree,
    unpack_xz,
    write_json,
)
from brewline.download import hub
from brewline.download.fetching import fetch
from brewline.download.local import local_path
from brewline.models.audio_formats import FORMATS
from brewline.models.clip_format import convert_clip, download_clip, files_of_clip
from brewline.models.names import (
    CLIP_FOLDER,
    ENCODERS_FILE,
    NAMES_FILE,
    SOUNDS_FILE,
    WHISPER_FILE,
)
from brewline.models.whisper_formats import convert_whisper, files_of_model

_FROM_WHISPER = "openai-whisper:"
_FROM_OPEN_CLIP = "open_clip:"
# What open_clip calls a folder and a repository on the Hub, and what they are called here.
_PLACES_OF_OPEN_CLIP = {"local-dir:": "", "hf-hub:": "hf://"}
# What was asked for, so that it is not fetched again for nothing.
_SOURCES_FILE = "sources.json"


def prepare_backbones(backbones: BackbonesParams, folder: Path) -> None:
    """Fills `folder` with both backbones and their names.

    Raises:
        BrewlineError: a source is missing, damaged, of another hash, or cannot be reached.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _prepare_whisper(backbones.whisper, folder / WHISPER_FILE)
    _prepare_clip(backbones.clip, folder / CLIP_FOLDER)
    names = {
        "whisper": {
            "name": backbones.whisper.name,
            "sha256": sha256_file(folder / WHISPER_FILE),
        },
        "clip": {"name": backbones.clip.name, "sha256": sha256_tree(folder / CLIP_FOLDER)},
    }
    write_json(folder / NAMES_FILE, names)
    others = {}
    for role, backbone in _others(backbones).items():
        _convert(backbone, FORMATS[role].files, FORMATS[role].convert, folder / role)
        others[role] = {"name": backbone.name, "sha256": sha256_tree(folder / role)}
    encoders = {role: others.pop(role) for role in ("hubert",) if role in others}
    write_json(folder / ENCODERS_FILE, {"whisper": names["whisper"], **encoders})
    write_json(folder / SOUNDS_FILE, others)
    write_json(folder / _SOURCES_FILE, {"sha256": _digest(backbones)})


def _others(backbones: BackbonesParams) -> dict[str, BackboneParams]:
    """Those of transformers that are named, by role."""
    found = {role: getattr(backbones, role) for role in FORMATS}
    return {role: one for role, one in found.items() if one is not None}


def _digest(backbones: BackbonesParams) -> str:
    """The SHA-256 of what is asked for: addresses may hold what nobody else should read."""
    return hashlib.sha256(backbones.model_dump_json().encode()).hexdigest()


def are_prepared(backbones: BackbonesParams, folder: Path) -> bool:
    """Whether `folder` holds what `prepare_backbones` made of these sources, whole.

    Sources that publish no hash are taken to be what they were.
    """
    try:
        if read_json(folder / _SOURCES_FILE)["sha256"] != _digest(backbones):
            return False
        names: dict[str, Any] = {}
        for file in (NAMES_FILE, ENCODERS_FILE, SOUNDS_FILE):
            names |= read_json(folder / file)
        files = {"whisper": WHISPER_FILE, "clip": CLIP_FOLDER}
        files |= {role: role for role in _others(backbones)}
        return all(
            sha256_tree(folder / file) == names[role]["sha256"] for role, file in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _prepare_whisper(backbone: BackboneParams, target: Path) -> None:
    name = backbone.source.removeprefix(_FROM_WHISPER)
    if name != backbone.source:
        _download_whisper(name, target)
        _check_hash(backbone, target)
        return
    path = local_path(backbone.source)
    if hub.is_repository(backbone.source) or (path is not None and path.is_dir()):
        _convert(backbone, files_of_model, convert_whisper, target)
        return
    fetched = target.with_name(Path(backbone.source).name)
    fetch(FileParams(url=backbone.source, sha256=backbone.sha256), fetched, "backbones")
    if fetched.suffix != ".xz":
        fetched.replace(target)
        return
    unpack_xz(fetched, target)
    fetched.unlink()


def _convert(
    backbone: BackboneParams,
    needed_of: Callable[[Collection[str], str], list[str]],
    convert: Callable[[Path, Path], None],
    target: Path,
) -> None:
    """Brings a folder, or a repository on the Hub, into the form that the loaders read.

    Args:
        backbone: Where it is.
        needed_of: Which of its files make a model.
        convert: Writes the target from a folder with these.
        target: What the loaders read.
    """
    names = _names_in(backbone.source)
    path = local_path(backbone.source)
    folder = target.parent / "download"
    remove(folder)
    # What earlier downloads found, for each repository by itself: files are called alike in all.
    owner = re.sub(r"[^A-Za-z0-9]+", "-", backbone.source.replace("hf://", "backbones/"))
    for name in needed_of(names, backbone.source):
        if path is not None:
            link(path / name, folder / name)
        else:
            url = f"{backbone.source}/{name}"
            fetch(FileParams(url=url, sha256=None), folder / name, owner)
    _check_hash(backbone, folder)
    try:
        convert(folder, target)
    except BrewlineError as error:
        raise BrewlineError(f"{backbone.source}: {error}", error.kind) from None
    remove(folder)


def _names_in(source: str) -> list[str]:
    """The names of the files of a folder, or of a repository on the Hub."""
    if hub.is_repository(source):
        return hub.file_names(source)
    path = local_path(source)
    if path is None or not path.is_dir():
        raise BrewlineError(
            f"{source} is neither a folder nor a repository on the Hub (hf://<owner>/<name>)",
            "settings",
        )
    return [one.name for one in path.iterdir()]


def _download_whisper(name: str, target: Path) -> None:
    import whisper

    if name not in whisper.available_models():
        known = ", ".join(whisper.available_models())
        raise BrewlineError(f"openai-whisper has no model {name!r}; known: {known}", "settings")
    try:
        # The library's own downloader, which checks the published SHA-256; on the processor,
        # because only the file is wanted.
        whisper.load_model(name, device="cpu", download_root=str(target.parent / "download"))
    except (OSError, RuntimeError) as error:
        raise BrewlineError(f"cannot download Whisper {name}: {error}", "network") from None
    (downloaded,) = (target.parent / "download").iterdir()
    downloaded.replace(target)
    remove(target.parent / "download")


def _check_hash(backbone: BackboneParams, path: Path) -> None:
    found = sha256_tree(path)
    if backbone.sha256 and found != backbone.sha256:
        raise BrewlineError(f"{backbone.source}: expected SHA-256 {backbone.sha256}, found {found}")


def _prepare_clip(backbone: BackboneParams, target: Path) -> None:
    name = backbone.source.removeprefix(_FROM_OPEN_CLIP)
    if name != backbone.source:
        target.mkdir(exist_ok=True)
        download_clip(name, target)
        _check_hash(backbone, target)
        return
    source = backbone.source
    for theirs, ours in _PLACES_OF_OPEN_CLIP.items():
        if source.startswith(theirs):
            source = ours + source.removeprefix(theirs)
    _convert(backbone.model_copy(update={"source": source}), files_of_clip, convert_clip, target)
