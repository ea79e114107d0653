"""Readers: one per published corpus, from what is published to one row per utterance.

A new corpus is one file here with a `read` function, its name in `READERS` of
`brewline.config.params` with the options that it takes, and an entry under `sources` in
`params.yaml`.
"""

from collections.abc import Callable
from importlib import import_module

from brewline.config import params
from brewline.corpora.reading import Listing
from brewline.media.archives import MediaStore

Reader = Callable[[MediaStore, params.SourceParams], list[Listing]]

READERS: dict[str, Reader] = {
    name: import_module(f"{__name__}.{name}").read for name in params.READERS
}
