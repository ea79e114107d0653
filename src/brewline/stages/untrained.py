"""Stage `untrained`: the card of a variant that needs no training, in `models/<corpus>/<variant>/`.

With it, evaluation treats all variants alike.
"""

from pathlib import Path

from brewline.core.files import atomic_path
from brewline.core.programs import exits_cleanly
from brewline.models.card import ModelCard, load_backbone_hashes, needed_backbones, save_card
from brewline.stages.arguments import model_argument


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus, variant = model_argument(__doc__)
    switches = params.variants[variant]
    backbones = needed_backbones(switches, load_backbone_hashes())
    card = ModelCard(corpus=corpus, variant=variant, switches=switches, backbones=backbones)
    with atomic_path(Path("models") / corpus / variant) as partial:
        save_card(partial / "frozen", card)


if __name__ == "__main__":
    main()
