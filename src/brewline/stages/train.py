"""Stage `train`: the models of an experiment, one per seed, in `models/<experiment>/`.

Of task `emotion` a seed has a model for each fold of its protocol, in a folder each.

A seed that is finished is kept in `work/`, so that one more seed trains that seed alone. Where an
experiment has no recipe, its models are those that it starts from, or the frozen towers.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from brewline.config import load_params, load_versions
from brewline.core.files import atomic_path
from brewline.core.programs import exits_cleanly
from brewline.models.card import ModelCard, load_backbone_hashes, new_card
from brewline.samples.shards import index_digest, require_captions
from brewline.stages.arguments import named_argument
from brewline.tracking.facts import model_facts
from brewline.tracking.live_run import live
from brewline.tracking.recording import record
from brewline.training.start import MODEL, finished_model, take_over

if TYPE_CHECKING:
    from brewline.core.ranks import Ranks


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
        from brewline.training.experiment import models_to_train
        from brewline.training.processes import train_each

        reading = card.model_copy(update={"data": data})
        models = models_to_train(params, reading, load_versions().train)
        waiting = [model for model in models if finished_model(model[1]) is None]
        train_each(_train_one, waiting, params.runtime)
        for own, work in models:
            shutil.copytree(work / MODEL, partial / own.place)


def _train_one(model: tuple[ModelCard, Path], ranks: "Ranks | None" = None) -> None:
    """Trains a model, alone or as one of the processes that share its batches."""
    from brewline.core.ranks import ALONE
    from brewline.training.experiment import keep, make_job, mark_finished, read_data
    from brewline.training.loop import train

    (card, work), params, ranks = model, load_params(), ranks or ALONE
    job, data = make_job(params, card), read_data(card)
    if not ranks.is_first:
        train(job, data, work, params.runtime, ranks=ranks)
        return
    facts = model_facts(params, card.model_dump())
    with live(facts, params.tracking, work / "run.json") as run:
        trained = train(job, data, work, params.runtime, on_row=run.log_row, ranks=ranks)
        folder = keep(work, card, trained)
        run.model_made(folder)
    # Completes the run where the store was away for a while.
    record(folder, params, run_id_path=work / "run.json")
    # Last: whoever is killed before that goes on with the same run.
    mark_finished(work)


if __name__ == "__main__":
    main()
