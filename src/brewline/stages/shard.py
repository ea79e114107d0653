"""Stage `shard`: one WebDataset sample per utterance, in `data/shards/<corpus>/`."""

from pathlib import Path

from brewline.core.files import fingerprint, remove, work_dir
from brewline.core.programs import exits_cleanly
from brewline.media.archives import MediaStore
from brewline.samples.packing import pack_corpus
from brewline.stages.arguments import corpus_argument
from brewline.tables.parquet import read_table


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus = corpus_argument(__doc__)
    manifest_path = Path(f"data/manifest/{corpus}.parquet")
    transcripts_path = Path(f"data/transcripts/{corpus}.parquet")
    raw = Path("data/raw") / corpus
    dependencies = [manifest_path, transcripts_path, raw]
    work = work_dir("shard", fingerprint(params.shard.model_dump(), dependencies))
    store = MediaStore(raw)
    manifest, transcripts = read_table(manifest_path), read_table(transcripts_path)
    pack_corpus(manifest, transcripts, store, params.shard, work)
    shards = Path("data/shards") / corpus
    shards.parent.mkdir(parents=True, exist_ok=True)
    remove(shards)
    work.replace(shards)


if __name__ == "__main__":
    main()
