"""Stage `evaluate`: every model of a corpus on dev and test, in one process.

Writes `metrics/<corpus>.json` and `reports/evaluation/<corpus>/`, and completes the MLflow runs.
"""

from collections.abc import Iterator
from pathlib import Path

from brewline.config import Params
from brewline.core.devices import choose_device
from brewline.core.programs import exits_cleanly
from brewline.evaluation.asr_metrics import asr_metrics
from brewline.evaluation.evaluate import Candidate, evaluate
from brewline.evaluation.outputs import write_evaluation
from brewline.models.backbones import load_clip
from brewline.models.card import load_backbone_hashes
from brewline.models.folder import load_model
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator
from brewline.samples.shards import Utterance, read_split
from brewline.stages.arguments import corpus_argument
from brewline.tracking.recording import record_corpus


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus = corpus_argument(__doc__, "retrieval_corpora")
    shards, states = Path("data/shards") / corpus, Path("data/states") / corpus

    def read(split: str, with_states: bool) -> Iterator[Utterance]:
        return read_split(shards, split, states if with_states else None)

    evaluation = evaluate(_candidates(params, corpus), read, params.evaluate)
    asr = asr_metrics("dev", read("dev", False)) | asr_metrics("test", read("test", False))
    write_evaluation(
        evaluation, asr, Path(f"metrics/{corpus}.json"), Path("reports/evaluation") / corpus
    )
    record_corpus(params, corpus)


def _candidates(params: Params, corpus: str) -> Iterator[Candidate]:
    backbone, hashes = load_clip(), load_backbone_hashes()
    for variant in params.retrieval_corpora[corpus]:
        for folder in sorted((Path("models") / corpus / variant).iterdir()):
            model, card = load_model(folder, backbone, hashes)
            transforms = input_transforms(backbone, card.switches, card.acoustic)
            collator = Collator(transforms, card.switches, params.runtime.image_cache_mb)
            yield Candidate(
                variant, card.seed, model.to(choose_device(params.runtime.device)), collator
            )


if __name__ == "__main__":
    main()
