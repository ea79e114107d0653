"""The recordings and pictures of a corpus by their ids, as the manifest has them."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from brewline.core.errors import BrewlineError
from brewline.media.archives import MediaStore
from brewline.tables.parquet import read_column

ReadMedia = Callable[[str, str], bytes]


class CorpusMedia:
    """The recordings and pictures of a corpus by their ids."""

    def __init__(self, corpus: str, manifest: Path, media: ReadMedia) -> None:
        """Reads the manifest.

        Raises:
            BrewlineError: the manifest is missing or damaged.
        """
        self._corpus, self._manifest, self._media = corpus, manifest, media
        self._audio = self._column_by("utterance_id", "audio_path")
        self._images = self._column_by("image_id", "image_path")

    def _column_by(self, key: str, value: str) -> dict[str, str]:
        """A column by another one; of whole rows, a large corpus takes several times the memory."""
        keys, values = (read_column(self._manifest, name).to_pylist() for name in (key, value))
        return dict(zip(keys, values, strict=True))

    def _path(self, paths: Mapping[str, str], name: str) -> str:
        if name not in paths:
            raise BrewlineError(f"{self._manifest} has no {name!r}; run `dvc repro`")
        return paths[name]

    def audio(self, utterance_id: str) -> bytes:
        """The file of a recording as published."""
        return self._media(self._corpus, self._path(self._audio, utterance_id))

    def image(self, image_id: str) -> bytes:
        """The file of a picture as published."""
        return self._media(self._corpus, self._path(self._images, image_id))


def stored_media(raw_dir: Path) -> ReadMedia:
    """Reads recordings and pictures from the archives under `data/raw/<corpus>`."""

    @functools.cache
    def store(corpus: str) -> MediaStore:
        return MediaStore(raw_dir / corpus)

    def read(corpus: str, path: str) -> bytes:
        return store(corpus).read(store(corpus).find(path) or path)

    return read


def project_media(corpus: str, project: Path = Path()) -> CorpusMedia:
    """The recordings and pictures of a corpus at their places in the project's folder.

    Raises:
        BrewlineError: the manifest is missing or damaged.
    """
    manifest = project / f"data/manifest/{corpus}.parquet"
    return CorpusMedia(corpus, manifest, stored_media(project / "data/raw"))
