"""Section `sources`: the published corpora, and the files that they consist of."""

from typing import Annotated, Literal

from pydantic import Field

from brewline.config.types import Fraction, PositiveInt, Section, Seed, Sha256, Splits

# Object stores by their scheme, and the package through which fsspec reaches each one.
OBJECT_STORES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}


class FileParams(Section):
    """Where a file comes from. `sha256` may be null for a source that publishes none."""

    # A path, file://, http://, https://, hf://, or an object store's: s3://, gs://, az://.
    url: str
    sha256: Sha256 | None
    # Other places of the same file, tried in order.
    mirrors: list[str] = Field(default_factory=list)
    # In bytes.
    size: Annotated[int, Field(ge=0)] | None = None
    # Read where it lies instead of copied, from a path or an object store. A folder always is, and
    # so is what lies below a prefix: s3://bucket/folder/.
    in_place: bool = False


class RecordingsParams(Section):
    """Recordings that are published one by one; the corpus' JSONL annotations name them."""

    # What the recording's path is appended to, so it ends with a slash.
    base_url: Annotated[str, Field(pattern=r"^https?://.+/$")]
    # as_listed: the field `voice_recording` is the path; by_image: it is rebuilt from the field.
    path_rule: Literal["as_listed", "by_image"]
    files_per_archive: PositiveInt
    # Share of the recordings that may be missing; above it, the download fails.
    max_failed_fraction: Fraction


# The readers in `brewline.corpora`, and which of the options of a source each one takes.
READER_OPTIONS: dict[str, tuple[str, ...]] = {
    "flickr8k": (),
    "spokencoco": ("split", "dev_fraction", "dev_seed"),
    "localized_narratives": ("subset", "dev_fraction", "dev_seed"),
    "ravdess": ("dev_fraction", "dev_seed"),
    "folder": ("index", "dev_fraction", "dev_seed"),
    "videos": ("index", "captions", "events", "test_fraction", "dev_fraction", "dev_seed"),
    "audioset": ("exclude", "dev_fraction", "dev_seed"),
    "audiocaps": ("release",),
    "clotho": (),
    "vggsound": ("exclude", "dev_fraction", "dev_seed"),
    "ave": ("exclude",),
}


class ExpectedParams(Section):
    """What a corpus publishes about itself: counts of what it lists, whatever is dropped later.

    Keys are splits; `train+dev` is the two together.
    """

    utterances: dict[Splits, PositiveInt] = Field(default_factory=dict)
    images: dict[Splits, PositiveInt] = Field(default_factory=dict)
    # Share of a count by which it may differ.
    tolerance: Fraction


class SourceParams(Section):
    """A published corpus: which reader understands it, and the files it consists of."""

    # One of `READER_OPTIONS`.
    reader: str
    licence: str
    # Made by a program: its numbers are labelled so wherever they are shown.
    synthetic: bool = False
    # Whether you accept the licence, where it has to be accepted; absent where it has not.
    accept_licence: bool | None = None
    files: dict[str, FileParams]
    recordings: RecordingsParams | None = None
    # Of `files`, those with transcripts that are taken instead of Whisper's.
    transcripts: list[str] = Field(default_factory=list)
    # Share of the training images (or speakers) held out for dev where no dev split is published.
    dev_fraction: Fraction | None = None
    # Chooses which ones; 0 where it is not set.
    dev_seed: Seed | None = None
    # SpokenCOCO: the archive's own parts, or the split of the papers.
    split: Literal["own", "karpathy"] | None = None
    # Localized Narratives: whose pictures are described; COCO's where it is not set.
    subset: Literal["coco", "open_images", "flickr30k", "ade20k"] | None = None
    # AudioCaps: the captions of 2019, or those of 2025 (2.0); they are two benchmarks.
    release: Literal["v1", "v2"] | None = None
    # AudioSet, VGGSound, AVE: AudioCaps' tables whose videos are not to be trained on.
    exclude: list[str] = Field(default_factory=list)
    # A corpus of your own: the name of the table that lists it.
    index: str | None = None
    # Videos without an index: the name of the table that has captions of some.
    captions: str | None = None
    # Videos: the name of the table that says what happens in them, and when.
    events: str | None = None
    # Videos: share of those of the training part that become the test split, where there is none.
    test_fraction: Fraction | None = None
    # What it publishes about itself.
    expected: ExpectedParams | None = None
