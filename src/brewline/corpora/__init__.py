"""Readers: one per published corpus, from what is published to one row per utterance.

A new corpus is one file here with a `read` function, one entry in `READERS`, and one entry under
`sources` in `params.yaml`.
"""

from collections.abc import Callable

from brewline.archives import MediaStore
from brewline.corpora import flickr8k, localized_narratives, ravdess
from brewline.corpora.listing import Listing
from brewline.params import SourceParams

Reader = Callable[[MediaStore, SourceParams], list[Listing]]

READERS: dict[str, Reader] = {
    "flickr8k": flickr8k.read,
    "localized_narratives": localized_narratives.read,
    "ravdess": ravdess.read,
}
