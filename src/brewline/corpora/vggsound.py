"""VGGSound (Chen et al., 2020): ten seconds of videos in which one sees what one hears.

    vggsound.csv                         no header: <id>,<start>,<label>,<split>
    whatever/<id>_<start, six digits>.mp4

Table: github.com/hche11/VGGSound, data/ (CC BY 4.0; the videos keep their own rights). Its test.csv
names the same files again, and is not read. A video may have clips at several times. Videos:
huggingface.co/datasets/Loie/VGGSound, in tars of 17 GB whose members lie six folders deep. There is
no dev split; videos of the training part are held out. What is there as a recording alone is a clip
without pictures.
"""

from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.corpora.clips import ClipFiles, begins_at, clip_id, without_excluded
from brewline.corpora.dev_split import with_dev
from brewline.corpora.reading import headless_objects, listings_of, one_file, with_records
from brewline.media.archives import MediaStore
from brewline.tables.listing import Listing

_COLUMNS = ("id", "start", "label", "split")


def read(store: MediaStore, source: SourceParams) -> list[Listing]:
    """Lists every clip of the table.

    Raises:
        BrewlineError: it is missing, or no row is as described above.
    """
    files = ClipFiles(store, with_pictures=True)

    def listing(where: str, _: str, row: dict[str, str]) -> Listing:
        if row["split"] not in ("train", "test"):
            raise BrewlineError(f"{where}: the split must be train or test, not {row['split']!r}")
        start_s = begins_at(where, row["start"])
        paths = files.find([f"{row['id']}_{int(start_s):06d}"])
        return Listing(
            utterance_id=clip_id(row["id"], start_s),
            split=row["split"],
            audio_path=paths.audio_path,
            speaker_id=row["id"],
            is_clip=True,
            video_path=paths.video_path,
        )

    name = one_file(store, "vggsound.csv")
    rows = list(listings_of(name, headless_objects(store, name, _COLUMNS), listing))
    return with_dev(with_records(list(without_excluded(store, rows, source))), source)
