"""Stage `embed`: the vectors of an experiment's models, with ids, a file per model.

They lie in `data/embeddings/<corpus>/<experiment>/`; `score` and `probe` need no model. Of task
`retrieval` they are of the utterances and pictures of dev and test, of `emotion` of all utterances.
Of a model that was fine-tuned on emotions, its answers take their place.
"""

from pathlib import Path

from brewline.config import load_versions
from brewline.core.devices import choose_device
from brewline.core.files import fingerprint, move_folder, work_dir
from brewline.core.programs import exits_cleanly
from brewline.evaluation.embedding import embed_split
from brewline.evaluation.vectors import holds_vectors, save_vectors
from brewline.models.backbones import load_clip
from brewline.models.brewclip import BrewClip
from brewline.models.card import load_backbone_hashes
from brewline.models.folder import load_model
from brewline.models.names import model_folder, model_names
from brewline.models.transforms import input_transforms
from brewline.probing.embedding import embed_utterances
from brewline.samples.collator import Collator
from brewline.samples.shards import index_digest, read_corpus, read_split, require_captions
from brewline.stages.arguments import named_argument
from brewline.tables.features import holds_features, save_features
from brewline.training.fold_answers import answer_folds

_SPLITS = ("dev", "test")


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, experiment = named_argument(__doc__, "experiments")
    one, switches = params.experiments[experiment], params.variant_of(experiment)
    shards = Path("data/shards") / one.data
    if switches.text == "caption":
        require_captions(shards, _SPLITS)
    states = Path("data/states") / one.states if switches.acoustic else None
    hashes, batch_size = load_backbone_hashes(), params.runtime.embed_batch_size
    facts = [hashes, *(index_digest(folder) for folder in (shards, states) if folder)]
    name = fingerprint(load_versions().embed, facts, [Path("models") / experiment])
    work = work_dir("embed", name)
    backbone, device = load_clip(), choose_device(params.runtime.device)
    # One for all seeds: pictures and texts are prepared once.
    transforms = input_transforms(backbone, switches)
    collator = Collator(transforms, switches, params.runtime.image_cache_mb)

    def retrieval(model: BrewClip, path: Path) -> None:
        splits = {}
        for split in _SPLITS:
            read = read_split(shards, split, states)
            splits[split] = embed_split(model, collator, read, batch_size, keep_channels=True)
        save_vectors(path, splits)

    def emotion(model: BrewClip, path: Path) -> None:
        read = read_corpus(shards, states)
        save_features(path, embed_utterances(model, transforms, switches, read, batch_size))

    embed = {"retrieval": retrieval, "emotion": emotion}[one.task]
    is_done = {"retrieval": holds_vectors, "emotion": holds_features}[one.task]
    for name in model_names(params, experiment):
        path, folder = work / f"{name}.safetensors", model_folder(experiment, name)
        if not is_done(path) and one.fine_tuning is not None:
            save_features(path, answer_folds(folder, backbone, hashes, device, batch_size))
        elif not is_done(path):
            model, _ = load_model(folder, backbone, hashes)
            embed(model.to(device), path)
        print(f"{experiment}, {name} is embedded")
    move_folder(work, Path("data/embeddings") / one.data / experiment)


if __name__ == "__main__":
    main()
