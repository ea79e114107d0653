"""Stage `train`: the models of an experiment, one per seed, in `models/<experiment>/`.

A model that is finished is kept in `work/`, so that one more seed trains that seed alone.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from brewline.config import load_params, load_versions
from brewline.core.files import atomic_path, fingerprint, work_dir
from brewline.core.programs import exits_cleanly
from brewline.models.card import ModelCard, load_backbone_hashes, new_card
from brewline.samples.shards import require_captions
from brewline.stages.arguments import named_argument
from brewline.tracking.facts import model_facts
from brewline.tracking.live_run import live
from brewline.tracking.recording import record
from brewline.training.start import MODEL, take_over

if TYPE_CHECKING:
    from brewline.core.ranks import Ranks


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, experiment = named_argument(__doc__, "experiments")
    card = new_card(params, experiment, load_backbone_hashes())
    with atomic_path(Path("models") / experiment) as partial:
        partial.mkdir()
        if card.recipe is None:
            take_over(params, card, partial)
            return
        if card.switches.text == "caption":
            require_captions(Path("data/shards") / card.corpus)
        # Imported late, here and below: what is not trained needs no torch.
        from brewline.training.experiment import cards_to_train, data_digests
        from brewline.training.processes import train_each

        card = card.model_copy(update={"data": data_digests(card)})
        models = [(own, _work_of(own)) for own in cards_to_train(params, card)]
        train_each(_train_one, models, params.runtime)
        for own, work in models:
            shutil.copytree(work / MODEL, partial / own.place)


def _work_of(card: ModelCard) -> Path:
    """The work folder of a model; its card names by their hashes all that is read."""
    parts = [*card.place.parts, fingerprint(load_versions().train, card.model_dump(), [])]
    return work_dir("train", f"{card.experiment}/{'-'.join(parts)}")


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
