"""Stage `train`: one variant on one corpus, once per seed, in `models/<corpus>/<variant>/`."""

from pathlib import Path

from brewline.config import load_params
from brewline.core.devices import choose_device, in_processes
from brewline.core.files import atomic_path, fingerprint, remove, sha256_tree, work_dir
from brewline.core.programs import exits_cleanly
from brewline.models.backbones import load_clip
from brewline.models.card import (
    ModelCard,
    load_backbone_hashes,
    needed_backbones,
    settings_that_apply,
)
from brewline.models.folder import save_model
from brewline.models.names import BACKBONES_FOLDER
from brewline.stages.arguments import model_argument
from brewline.tracking.live_run import live
from brewline.tracking.recording import record
from brewline.training.loop import TrainingData, TrainingJob, train

# A card with its seed, its work folder, and where the model goes.
_Task = tuple[ModelCard, Path, Path]


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus, variant = model_argument(__doc__)
    switches = params.variants[variant]
    shards, states = Path("data/shards") / corpus, Path("data/states") / corpus
    card = ModelCard(
        corpus=corpus,
        variant=variant,
        switches=switches,
        backbones=needed_backbones(switches, load_backbone_hashes()),
        acoustic=params.acoustic if switches.acoustic else None,
        train=settings_that_apply(params.train, switches),
        data={"shards": sha256_tree(shards)},
    )
    dependencies = [BACKBONES_FOLDER / "clip", *([states] if switches.acoustic else [])]
    name = fingerprint(card.model_dump(), dependencies)
    with atomic_path(Path("models") / corpus / variant) as partial:
        tasks: list[_Task] = [
            (
                card.model_copy(update={"seed": seed}),
                work_dir("train", f"{name}/seed-{seed}"),
                partial / f"seed-{seed}",
            )
            for seed in params.train.seeds
        ]
        # A GPU is kept busy by one process.
        on_gpu = choose_device(params.runtime.device).type != "cpu"
        in_processes(_train_seed, tasks, 1 if on_gpu else params.runtime.train_workers)
    remove(Path("work/train") / name)


def _train_seed(task: _Task) -> None:
    """Trains from one seed, in a process of its own where there are several."""
    (card, work, folder), params = task, load_params()
    states = Path("data/states") / card.corpus if card.acoustic else None
    data = TrainingData.from_shards(Path("data/shards") / card.corpus, states)
    job = TrainingJob(card.switches, card.acoustic, params.train, card.seed or 0)
    with live(card.model_dump(), params.tracking, work / "run.json") as run:
        trained = train(job, load_clip(), data, work, params.runtime, on_row=run.log_row)
        save_model(folder, card, trained)
        run.model_made(folder)
    # Completes the run where the store was away for a while.
    record(folder, params.tracking, run_id_path=work / "run.json")


if __name__ == "__main__":
    main()
