"""Stage `transcribe`: Whisper's text and encoder states for every good utterance."""

from pathlib import Path

from brewline.errors import exits_cleanly
from brewline.files import fingerprint, read_json, remove, work_dir
from brewline.manifest import TRANSCRIPTS, read_table, write_table
from brewline.stages.arguments import corpus_argument


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus = corpus_argument(__doc__)
    manifest_path = Path(f"data/manifest/{corpus}.parquet")
    manifest = read_table(manifest_path)
    checkpoint = Path("models/backbones/whisper.pt")
    per_shard = params.shard.utterances_per_shard
    # The manifest holds the hash of every recording, so it stands for them.
    work = work_dir(
        "transcribe",
        fingerprint([params.asr.model_dump(), per_shard], [manifest_path, checkpoint]),
    )
    # Imported late: importing torch and whisper takes seconds, and a mistake above should not.
    from brewline.asr import checkpoint_width
    from brewline.devices import choose_device
    from brewline.transcription import STATES, AsrJob, estimated_states_mb, transcribe_corpus

    size_mb = estimated_states_mb(manifest, checkpoint_width(checkpoint))
    print(f"{corpus}: {len(manifest)} utterances; encoder states will take {size_mb:.0f} MB")
    name = read_json(checkpoint.with_name("backbones.json"))["whisper"]["name"]
    job = AsrJob(Path("data/raw") / corpus, checkpoint, name, params.asr)
    # A GPU is kept busy by one process.
    workers = 1 if choose_device().type == "cuda" else params.runtime.transcribe_workers
    rows = transcribe_corpus(manifest, job, per_shard, work, workers)
    states = Path("data/states") / corpus
    states.parent.mkdir(parents=True, exist_ok=True)
    remove(states)
    (work / STATES).replace(states)
    write_table(Path(f"data/transcripts/{corpus}.parquet"), TRANSCRIPTS, rows)
    remove(work)


if __name__ == "__main__":
    main()
