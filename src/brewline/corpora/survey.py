"""What a corpus lists against what there is."""

from dataclasses import dataclass

from brewline.media.archives import MediaStore
from brewline.tables.listing import Listing


@dataclass(frozen=True)
class Survey:
    """What a corpus lists against what there is.

    `missing_audio` counts rows that name a recording, `missing_images` distinct ones, `duplicates`
    rows whose id another one before has, `without_caption` rows that say nothing of what is said.
    """

    rows: int
    missing_audio: int
    missing_images: int
    duplicates: int
    without_caption: int

    def __str__(self) -> str:
        return (
            f"{self.rows} rows, {self.missing_audio} without their recording, "
            f"{self.missing_images} missing images, {self.duplicates} duplicate ids, "
            f"{self.without_caption} without a caption"
        )


def survey(store: MediaStore, listings: list[Listing]) -> Survey:
    """Counts what there is of a corpus; opens no recording and no picture."""
    images = {row.image_path for row in listings if row.image_path}
    return Survey(
        rows=len(listings),
        missing_audio=sum(not row.fault and store.find(row.audio_path) is None for row in listings),
        missing_images=sum(name not in store for name in images),
        duplicates=len(listings) - len({row.utterance_id for row in listings}),
        without_caption=sum(
            not row.fault and row.caption is None and not row.captions for row in listings
        ),
    )
