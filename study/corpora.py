"""Makes the corpora of the study by the generator of `sample/`."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brewline.core.files import atomic_path, read_json, remove, write_json
from study.definition import PROJECT, Study

# What a corpus was made of, beside it.
_MADE_OF = "{}.json"


def make_corpus(study: Study, name: str) -> None:
    """Makes a corpus, unless it lies there and was made of the same.

    Raises:
        BrewlineError: espeak-ng is not there.
    """
    folder, note = study.corpora / name, study.corpora / _MADE_OF.format(name)
    wanted = study.generated(name)
    if folder.is_dir() and note.exists() and read_json(note) == wanted:
        return
    remove(note)
    with atomic_path(folder) as partial:
        _build(partial, **wanted["generate"])
    write_json(note, wanted)


def _build(folder: Path, layout: str, **size: Any) -> None:
    # The generator's files import one another by their names; so do those of its processes.
    place = str(PROJECT / "sample")
    if place not in sys.path:
        sys.path.insert(0, place)
    generator, films = (importlib.import_module(name) for name in ("corpora", "videos"))
    layouts: Mapping[str, Any] = {
        "flickr8k": (generator.build_flickr8k, generator.Captioned),
        "lncoco": (generator.build_lncoco, generator.Narrated),
        "ravdess": (generator.build_ravdess, generator.Acted),
        "videos": (films.build_videos, films.Filmed),
    }
    build, size_of = layouts[layout]
    build(folder, size_of(**size))
