"""Stage `embed`: the vectors of an experiment's models, with ids, a file per model.

They lie in `data/embeddings/<corpus>/<experiment>/`; `score` and `probe` need no model. Of task
`retrieval` they are of the utterances and pictures of dev and test, of `emotion` of all utterances.
Of a model that was fine-tuned on emotions, its answers take their place. Of models of sounds they
are of the sounds, frames and captions of dev and test.
"""

from pathlib import Path

from brewline.config import load_versions
from brewline.core.devices import choose_device, set_tf32
from brewline.core.files import fingerprint, move_folder, work_dir
from brewline.core.programs import exits_cleanly
from brewline.models.backbones import load_clip
from brewline.models.card import load_backbone_hashes
from brewline.models.names import model_folder, model_names
from brewline.samples.shards import index_digest, require_captions
from brewline.stages.arguments import named_argument
from brewline.training.tasks.embedding import EMBEDDED_SPLITS, Embedder


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, experiment = named_argument(__doc__, "experiments")
    one, switches = params.experiments[experiment], params.variant_of(experiment)
    shards = Path("data/shards") / one.data
    if switches.text == "caption":
        require_captions(shards, EMBEDDED_SPLITS)
    states = Path("data/states") / one.states if switches.acoustic else None
    hashes = load_backbone_hashes()
    facts = [hashes, *(index_digest(folder) for folder in (shards, states) if folder)]
    name = fingerprint(load_versions().embed, facts, [Path("models") / experiment])
    work = work_dir("embed", name)
    set_tf32(params.runtime.evaluate_tf32)
    embedder = Embedder(
        experiment=one,
        switches=switches,
        backbone=load_clip(),
        hashes=hashes,
        shards=shards,
        states=states,
        device=choose_device(params.runtime.device),
        batch_size=params.runtime.embed_batch_size,
        cache_mb=params.runtime.image_cache_mb,
    )
    for name in model_names(params, experiment):
        embedder.embed(model_folder(experiment, name), work / f"{name}.safetensors")
        print(f"{experiment}, {name} is embedded")
    move_folder(work, Path("data/embeddings") / one.data / experiment)


if __name__ == "__main__":
    main()
