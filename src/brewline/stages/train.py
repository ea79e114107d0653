"""Stage `train`: the models of an experiment, one per seed, in `models/<experiment>/`.

Of task `emotion` a seed has a model for each fold of its protocol, in a folder each.

A seed that is finished is kept in `work/`, so that one more seed trains that seed alone. Where an
experiment has no recipe, its models are those that it starts from, or the frozen towers.
"""

import shutil
from pathlib import Path

from brewline.config import load_params, load_versions
from brewline.core.files import atomic_path, fingerprint, work_dir
from brewline.core.programs import exits_cleanly
from brewline.models.card import ModelCard, load_backbone_hashes, new_card
from brewline.samples.shards import index_digest, require_captions
from brewline.stages.arguments import named_argument
from brewline.tracking.facts import model_facts
from brewline.tracking.live_run import live
from brewline.tracking.recording import record
from brewline.training.start import MODEL, finished_model, take_over

# A card with its seed, and its work folder.
_Seed = tuple[ModelCard, Path]


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, experiment = named_argument(__doc__, "experiments")
    one = params.experiments[experiment]
    card = new_card(params, experiment, load_backbone_hashes())
    with atomic_path(Path("models") / experiment) as partial:
        partial.mkdir()
        if card.recipe is None:
            take_over(params, card, partial)
            return
        if card.switches.text == "caption":
            require_captions(Path("data/shards") / one.data)
        kinds = ["shards", "states"] if card.switches.acoustic else ["shards"]
        data = {kind: index_digest(Path("data") / kind / one.data) for kind in kinds}
        # Imported late, here and below: what is not trained needs no torch.
        from brewline.core.devices import choose_device, in_processes
        from brewline.training.experiment import cards_to_train

        seeds: list[_Seed] = []
        for own in cards_to_train(params, card.model_copy(update={"data": data})):
            # The card names everything that is read by its hash.
            parts = [*own.place.parts, fingerprint(load_versions().train, own.model_dump(), [])]
            seeds.append((own, work_dir("train", f"{experiment}/{'-'.join(parts)}")))

        # A GPU is kept busy by one process.
        on_gpu = choose_device(params.runtime.device).type != "cpu"
        waiting = [each for each in seeds if finished_model(each[1]) is None]
        in_processes(_train_seed, waiting, 1 if on_gpu else params.runtime.train_workers)
        for own, work in seeds:
            shutil.copytree(work / MODEL, partial / own.place)


def _train_seed(seed: _Seed) -> None:
    """Trains from one seed, in a process of its own where there are several."""
    from brewline.training.experiment import keep, make_job, mark_finished, read_data
    from brewline.training.loop import train

    (card, work), params = seed, load_params()
    facts = model_facts(params, card.model_dump())
    with live(facts, params.tracking, work / "run.json") as run:
        job = make_job(params, card)
        trained = train(job, read_data(card), work, params.runtime, on_row=run.log_row)
        folder = keep(work, card, trained)
        run.model_made(folder)
    # Completes the run where the store was away for a while.
    record(folder, params, run_id_path=work / "run.json")
    # Last: whoever is killed before that goes on with the same run.
    mark_finished(work)


if __name__ == "__main__":
    main()
