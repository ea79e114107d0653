"""The readers by the names that `params.yaml` gives them.

A new corpus is one file here with a `read` function, its name in `READER_OPTIONS` of
`brewline.config.sources` with the options that it takes, and an entry under `sources` in
`params.yaml`.
"""

from collections.abc import Callable
from importlib import import_module

from brewline.config.sources import READER_OPTIONS, SourceParams
from brewline.media.archives import MediaStore
from brewline.tables.listing import Listing

Reader = Callable[[MediaStore, SourceParams], list[Listing]]

READERS: dict[str, Reader] = {
    name: import_module(f"brewline.corpora.{name}").read for name in READER_OPTIONS
}
