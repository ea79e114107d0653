"""Stage `encode`: all layers of an encoder over a corpus, in `data/states/<set>/`."""

import shutil
from functools import partial
from pathlib import Path

from brewline.config import load_versions
from brewline.core.engine import choose_units_device
from brewline.core.engines import open_engine
from brewline.core.files import fingerprint, move_folder, read_json, remove, work_dir
from brewline.core.programs import exits_cleanly
from brewline.models.names import BACKBONES_FOLDER, ENCODERS_FILE, HUBERT_FOLDER, WHISPER_FILE
from brewline.speech.encoding import EncodeShards, RecordingEncoder, encode_corpus
from brewline.speech.progress import outlook_of_layers
from brewline.speech.recordings import list_recordings
from brewline.stages.arguments import named_argument


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, name = named_argument(__doc__, "encoded")
    one, asr, runtime = params.encoded[name], params.asr, params.runtime
    manifest = Path(f"data/manifest/{one.data}.parquet")
    transcripts = Path(f"data/transcripts/{one.data}.parquet")
    role, file = ("hubert", HUBERT_FOLDER) if one.encoder == "hubert" else ("whisper", WHISPER_FILE)
    backbone = read_json(BACKBONES_FOLDER / ENCODERS_FILE)[role]
    # Imported late: importing torch takes seconds, and a mistake above should not.
    from brewline.core.devices import name_computation
    from brewline.speech.layered_encoders import shape_of_layers

    shape = shape_of_layers(one.encoder, BACKBONES_FOLDER / file)
    with open_engine(runtime.engine, runtime.num_recognisers, runtime.ray_address) as engine:
        device = choose_units_device(engine, runtime.device)
        # The manifest holds the hash of every recording, so it stands for them.
        named_by = [one.model_dump(), asr.audio_context, asr.precision, backbone["sha256"]]
        named_by += [params.shard.utterances_per_shard]
        named_by += name_computation(runtime.engine, device)
        fingerprinted = fingerprint(load_versions().encode, named_by, [manifest, transcripts])
        work = work_dir("encode", fingerprinted)
        free_mb = shutil.disk_usage(work).free / 1e6
        print(f"{name}: {outlook_of_layers(manifest, shape, one.pool_frames, free_mb)}")
        raw = Path("data/raw") / one.data
        files = list_recordings(raw, manifest, work / "recordings.parquet")
        checkpoint, pool = BACKBONES_FOLDER / file, one.pool_frames
        encoder = partial(RecordingEncoder, raw, one.encoder, checkpoint, asr, pool, device)
        limit_s, on_gpu = runtime.transcribe_batch_limit_s, device == "cuda"
        job = EncodeShards(manifest, transcripts, files, work, encoder, limit_s, on_gpu)
        folder = encode_corpus(engine, job, params.shard.utterances_per_shard)
    move_folder(folder, Path("data/states") / name)
    remove(work)


if __name__ == "__main__":
    main()
