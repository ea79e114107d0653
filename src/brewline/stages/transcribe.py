"""Stage `transcribe`: Whisper's text and encoder states for every good utterance."""

import shutil
from functools import partial
from pathlib import Path

from brewline.config import load_versions
from brewline.core.files import fingerprint, read_json, remove, sha256_file, work_dir
from brewline.core.programs import exits_cleanly
from brewline.speech.batch_plan import languages_to_hear, plan_batches, with_languages
from brewline.speech.batch_recogniser import BatchRecogniser
from brewline.speech.progress import outlook, show_progress, summary
from brewline.speech.transcriber import Transcriber
from brewline.stages.arguments import named_argument
from brewline.tables.parquet import read_table
from brewline.tracking.facts import transcription_facts
from brewline.tracking.live_run import live
from brewline.tracking.transcription_run import record_transcription


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus = named_argument(__doc__)
    manifest_path = Path(f"data/manifest/{corpus}.parquet")
    manifest = with_languages(read_table(manifest_path), params.asr.spoken)
    checkpoint = Path("models/backbones/whisper.pt")
    per_shard = params.shard.utterances_per_shard
    backbone = read_json(checkpoint.with_name("backbones.json"))["whisper"]
    asr_model = f"{backbone['name']} ({params.asr.engine})"
    # Imported late: importing torch takes seconds, and a mistake above should not.
    from brewline.core.devices import choose_device, choose_dtype
    from brewline.speech.whisper_checkpoint import read_dimensions

    runtime = params.runtime
    device = choose_device(runtime.device)
    # The manifest holds the hash of every recording, so it stands for them. Who is stopped by a
    # failure may change what stopped him, and go on.
    settings = params.asr.model_dump() | {"on_failure": params.asr.on_failure == "drop"}
    # Who goes on elsewhere should not mix precisions.
    machine = [device.type, str(choose_dtype("auto", device))]
    named_by = [settings, per_shard, asr_model, backbone["sha256"], *machine]
    name = fingerprint(load_versions().transcribe, named_by, [manifest_path])
    work = work_dir("transcribe", name)
    width = read_dimensions(checkpoint, languages_to_hear(manifest)).n_audio_state
    free_mb = shutil.disk_usage(work).free / 1e6
    for line in outlook(manifest, width, params.asr, backbone["name"], free_mb):
        print(f"{corpus}: {line}")
    shards = plan_batches(manifest, per_shard, params.asr.batch_size)
    transcriber = Transcriber(shards, params.asr.on_failure, asr_model, width, work)
    prepare = partial(
        BatchRecogniser, Path("data/raw") / corpus, checkpoint, params.asr, runtime.device
    )
    # A GPU is kept busy by one process.
    workers = runtime.transcribe_workers if device.type == "cpu" else 1
    facts = transcription_facts(params, corpus, backbone["sha256"], sha256_file(manifest_path))
    with live(facts, params.tracking, work / "run.json") as run:
        limit_s = runtime.transcribe_batch_limit_s
        for progress in show_progress(transcriber.run(prepare, workers, limit_s)):
            run.log_row(progress.as_row())
    rows = list(transcriber.rows())
    print(f"{corpus}: {summary(rows)}")
    transcriber.check_failures(rows, runtime.max_transcription_failure_rate)
    transcriber.write_outputs(
        rows, Path(f"data/transcripts/{corpus}.parquet"), Path("data/states") / corpus
    )
    record_transcription(params, corpus, facts, run_id_path=work / "run.json")
    remove(work)


if __name__ == "__main__":
    main()
