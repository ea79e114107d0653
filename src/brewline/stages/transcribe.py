"""Stage `transcribe`: Whisper's text and encoder states for every good utterance."""

from pathlib import Path

from brewline.archives import MediaStore
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
    from brewline.asr import Recogniser
    from brewline.transcription import STATES, estimated_states_mb, transcribe_corpus

    recogniser = Recogniser(checkpoint, params.asr)
    size_mb = estimated_states_mb(manifest, recogniser.width)
    print(f"{corpus}: {len(manifest)} utterances; encoder states will take {size_mb:.0f} MB")
    name = read_json(checkpoint.with_name("backbones.json"))["whisper"]["name"]
    store = MediaStore(Path("data/raw") / corpus)
    rows = transcribe_corpus(manifest, store, recogniser, name, per_shard, work)
    states = Path("data/states") / corpus
    states.parent.mkdir(parents=True, exist_ok=True)
    remove(states)
    (work / STATES).replace(states)
    write_table(Path(f"data/transcripts/{corpus}.parquet"), TRANSCRIPTS, rows)
    remove(work)


if __name__ == "__main__":
    main()
