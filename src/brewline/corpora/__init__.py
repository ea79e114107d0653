"""Readers: one per published corpus, from what is published to one row per utterance.

A new corpus is one file here with a `read` function, its name in `READERS` of `brewline.params`
with the options that it takes, and an entry under `sources` in `params.yaml`.
"""

from collections.abc import Callable
from importlib import import_module

from brewline import params
from brewline.archives import MediaStore
from brewline.corpora.listing import Listing

Reader = Callable[[MediaStore, params.SourceParams], list[Listing]]

READERS: dict[str, Reader] = {
    name: import_module(f"{__name__}.{name}").read for name in params.READERS
}
