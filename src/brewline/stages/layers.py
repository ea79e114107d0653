"""Stage `layers`: what each layer of Whisper's encoder makes of every recording of a corpus.

Means and deviations over the recording's own frames, in `data/layers/<corpus>.safetensors`.
"""

from functools import partial
from pathlib import Path

from brewline.config import load_versions
from brewline.core.engine import choose_units_device, run_under_bar
from brewline.core.engines import open_engine
from brewline.core.files import fingerprint, read_json, remove, work_dir
from brewline.core.programs import exits_cleanly
from brewline.speech.layers import LayerPooler, PoolLayers, join_features
from brewline.speech.recordings import list_recordings
from brewline.stages.arguments import named_argument
from brewline.tables.features import load_features, save_features


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus = named_argument(__doc__, "probed_corpora")
    manifest = Path(f"data/manifest/{corpus}.parquet")
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
        work = work_dir("layers", fingerprint(load_versions().layers, named_by, [manifest]))
        raw = Path("data/raw") / corpus
        recordings = list_recordings(raw, manifest, work / "recordings.parquet")
        pooler = partial(LayerPooler, raw, checkpoint, asr, device)
        limit_s = runtime.transcribe_batch_limit_s
        job = PoolLayers(manifest, recordings, work, pooler, limit_s, on_gpu=device == "cuda")
        run_under_bar(engine, job, job.sizes(), "layers", "recordings")
    files = map(job.file, job.sizes())
    features = join_features(map(load_features, files))
    save_features(Path(f"data/layers/{corpus}.safetensors"), features)
    remove(work)
    count, num_layers = features.arrays["mean"].shape[:2]
    print(f"{corpus}: {num_layers} layers of {count:,} recordings")


if __name__ == "__main__":
    main()
