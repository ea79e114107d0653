"""Stage `augment`: encoder states of a corpus, and those of its recordings with small changes.

`data/states/<corpus>-augmented/`, from which emotions are learned with `fine_tuning.augment`.
"""

from functools import partial
from pathlib import Path

from brewline.config import load_versions
from brewline.config.experiments import augmented_name
from brewline.core.engine import choose_units_device, run_under_bar
from brewline.core.engines import open_engine
from brewline.core.files import atomic_path, fingerprint, link, read_json, remove, work_dir
from brewline.core.programs import exits_cleanly
from brewline.samples.shards import INDEX_FILE, write_index
from brewline.speech.augmented_states import AugmentedEncoder, AugmentStates
from brewline.speech.batch_plan import cut_into_shards
from brewline.speech.recordings import list_recordings
from brewline.stages.arguments import named_argument


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus = named_argument(__doc__, "augmented_corpora")
    manifest, states = Path(f"data/manifest/{corpus}.parquet"), Path("data/states") / corpus
    checkpoint = Path("models/backbones/whisper.pt")
    backbone = read_json(checkpoint.with_name("backbones.json"))["whisper"]
    # Imported late: importing torch takes seconds, and a mistake above should not.
    from brewline.core.devices import name_computation

    asr, runtime = params.asr, params.runtime
    with open_engine(runtime.engine, runtime.num_recognisers, runtime.ray_address) as engine:
        device = choose_units_device(engine, runtime.device)
        # The manifest holds the hash of every recording, so it stands for them.
        settings = [asr.audio_context, asr.precision, backbone["sha256"]]
        named_by = [*settings, *name_computation(runtime.engine, device)]
        read = [manifest, states / INDEX_FILE]
        work = work_dir("augment", fingerprint(load_versions().augment, named_by, read))
        recordings = list_recordings(
            Path("data/raw") / corpus, manifest, work / "recordings.parquet"
        )
        counts = {one["file"]: one["num_utterances"] for one in read_json(states / INDEX_FILE)}
        shards = cut_into_shards(manifest, params.shard.utterances_per_shard)
        encoder = partial(AugmentedEncoder, Path("data/raw") / corpus, checkpoint, asr, device)
        limit_s, on_gpu = runtime.transcribe_batch_limit_s, device == "cuda"
        job = AugmentStates(manifest, recordings, states, work, encoder, limit_s, on_gpu)
        sizes = {shard: counts[shard.name] for shard in shards}
        run_under_bar(engine, job, sizes, "augment", "recordings")
    with atomic_path(Path("data/states") / augmented_name(corpus)) as folder:
        for shard in shards:
            link(job.file(shard), folder / shard.name)
        write_index(folder, counts)
    remove(work)
    print(f"{corpus}: {sum(counts.values()):,} recordings, each in three further versions")


if __name__ == "__main__":
    main()
