"""Stage `shard`: one WebDataset sample per utterance, in `data/shards/<corpus>/`."""

from pathlib import Path

from brewline.config import load_versions
from brewline.core.files import fingerprint, move_folder, stamps, work_dir
from brewline.core.programs import exits_cleanly
from brewline.media.archives import MediaStore
from brewline.samples.packing import pack_corpus
from brewline.stages.arguments import named_argument
from brewline.tables.parquet import read_table


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus = named_argument(__doc__)
    manifest_path = Path(f"data/manifest/{corpus}.parquet")
    transcripts_path = Path(f"data/transcripts/{corpus}.parquet")
    raw = Path("data/raw") / corpus
    # The pictures are in archives of many gigabytes, of which no hash is at hand.
    facts = [params.shard.model_dump(), stamps(raw)]
    name = fingerprint(load_versions().shard, facts, [manifest_path, transcripts_path])
    work = work_dir("shard", name)
    store = MediaStore(raw)
    manifest, transcripts = read_table(manifest_path), read_table(transcripts_path)
    pack_corpus(manifest, transcripts, store, params.shard, work)
    move_folder(work, Path("data/shards") / corpus)


if __name__ == "__main__":
    main()
