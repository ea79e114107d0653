"""Stage `train`: one variant on one corpus, once per seed, in `models/<corpus>/<variant>/`."""

from pathlib import Path

from brewline.errors import exits_cleanly
from brewline.files import atomic_path, fingerprint, remove, sha256_tree, work_dir
from brewline.models.backbones import load_clip
from brewline.models.card import (
    BACKBONES_FOLDER,
    ModelCard,
    load_backbone_hashes,
    needed_backbones,
    settings_that_apply,
)
from brewline.models.checkpoint import save_model
from brewline.stages.arguments import model_argument
from brewline.tracking import live, record
from brewline.training import TrainingData, TrainingJob, train


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus, variant = model_argument(__doc__)
    switches = params.variants[variant]
    acoustic = params.acoustic if switches.acoustic else None
    shards = Path("data/shards") / corpus
    states = Path("data/states") / corpus if switches.acoustic else None
    card = ModelCard(
        corpus=corpus,
        variant=variant,
        switches=switches,
        backbones=needed_backbones(switches, load_backbone_hashes()),
        acoustic=acoustic,
        train=settings_that_apply(params.train, switches),
        data={"shards": sha256_tree(shards)},
    )
    dependencies = [BACKBONES_FOLDER / "clip", *([states] if states else [])]
    name = fingerprint(card.model_dump(), dependencies)
    data, backbone = TrainingData.from_shards(shards, states), load_clip()
    with atomic_path(Path("models") / corpus / variant) as partial:
        for seed in params.train.seeds:
            work, folder = work_dir("train", f"{name}/seed-{seed}"), partial / f"seed-{seed}"
            job = TrainingJob(switches, acoustic, params.train, seed)
            seeded = card.model_copy(update={"seed": seed})
            with live(seeded.model_dump(), params.tracking, work / "run.json") as run:
                trained = train(job, backbone, data, work, params.runtime, on_row=run.log_row)
                save_model(folder, seeded, trained)
                run.model_made(folder)
            # Completes the run where the store was away for a while.
            record(folder, params.tracking, run_id_path=work / "run.json")
    remove(Path("work/train") / name)


if __name__ == "__main__":
    main()
