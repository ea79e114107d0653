"""Stage `transcribe`: Whisper's text and encoder states for every good utterance; none of clips."""

from functools import partial
from pathlib import Path

from brewline.config import load_versions
from brewline.core.engine import choose_units_device
from brewline.core.engines import open_engine
from brewline.core.files import fingerprint, read_json, remove, sha256_file, work_dir
from brewline.core.programs import exits_cleanly
from brewline.speech.batch_plan import languages_to_hear
from brewline.speech.batch_recogniser import BatchRecogniser
from brewline.speech.clips import write_of_clips
from brewline.speech.corpus_transcription import CorpusTranscription
from brewline.speech.progress import show_progress, summary
from brewline.speech.recordings import list_recordings
from brewline.speech.transcriber import Transcriber
from brewline.stages.arguments import named_argument
from brewline.tracking.facts import transcription_facts
from brewline.tracking.live_run import live
from brewline.tracking.transcription_run import record_transcription


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus = named_argument(__doc__)
    asr, runtime, per_shard = params.asr, params.runtime, params.shard.utterances_per_shard
    manifest = Path(f"data/manifest/{corpus}.parquet")
    table, states = Path(f"data/transcripts/{corpus}.parquet"), Path("data/states") / corpus
    if write_of_clips(manifest, table, states):
        return
    checkpoint = Path("models/backbones/whisper.pt")
    backbone = read_json(checkpoint.with_name("backbones.json"))["whisper"]
    asr_model = f"{backbone['name']} ({asr.engine})"
    # Imported late: importing torch takes seconds, and a mistake above should not.
    from brewline.core.devices import name_computation
    from brewline.speech.whisper_checkpoint import read_dimensions

    with open_engine(runtime.engine, runtime.num_recognisers, runtime.ray_address) as engine:
        device = choose_units_device(engine, runtime.device)
        # The manifest holds the hash of every recording, so it stands for them. Who is stopped by a
        # failure may change what stopped him, and go on.
        settings = asr.model_dump() | {"on_failure": asr.on_failure == "drop"}
        named_by = [settings, per_shard, asr_model, backbone["sha256"]]
        named_by += name_computation(runtime.engine, device)
        name = fingerprint(load_versions().transcribe, named_by, [manifest])
        work, raw = work_dir("transcribe", name), Path("data/raw") / corpus
        languages = languages_to_hear(manifest, asr.spoken)
        files = list_recordings(raw, manifest, work / "recordings.parquet")
        recogniser = partial(BatchRecogniser, raw, checkpoint, asr, device)
        width = read_dimensions(checkpoint, languages).n_audio_state
        limit_s = runtime.transcribe_batch_limit_s
        transcriber = Transcriber(
            manifest, files, work, asr, asr_model, width, recogniser, limit_s, device == "cuda"
        )
        transcription = CorpusTranscription(transcriber, per_shard)
        for line in transcription.outlook(backbone["name"]):
            print(f"{corpus}: {line}")
        facts = transcription_facts(params, corpus, backbone["sha256"], sha256_file(manifest))
        with live(facts, params.tracking, work / "run.json") as run:
            for progress in show_progress(transcription.run(engine)):
                run.log_row(progress.as_row())
    print(f"{corpus}: {summary(transcription.status_counts())}")
    transcription.check_failures(runtime.max_transcription_failure_rate)
    transcription.write_outputs(table, states)
    record_transcription(params, corpus, facts, run_id_path=work / "run.json")
    remove(work)


if __name__ == "__main__":
    main()
