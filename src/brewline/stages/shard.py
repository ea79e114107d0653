"""Stage `shard`: one WebDataset sample per utterance, in `data/shards/<corpus>/`."""

from pathlib import Path

from brewline.config import load_versions
from brewline.core.engines import open_engine
from brewline.core.files import fingerprint, move_folder, remove, stamps, work_dir
from brewline.core.programs import exits_cleanly
from brewline.samples.packing import pack_corpus
from brewline.stages.arguments import named_argument


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
    work, runtime = work_dir("shard", name), params.runtime
    with open_engine(runtime.engine, runtime.shard_workers, runtime.ray_address) as engine:
        folder = pack_corpus(
            engine,
            manifest_path,
            transcripts_path,
            raw,
            params.shard,
            runtime.inspect_decode_limit_s,
            work,
        )
    move_folder(folder, Path("data/shards") / corpus)
    remove(work)


if __name__ == "__main__":
    main()
