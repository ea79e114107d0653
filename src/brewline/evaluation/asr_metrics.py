"""Word and character error rates as metrics of a split."""

from collections.abc import Iterable, Iterator, Mapping

from brewline.evaluation.examples import Texts
from brewline.speech.error_rates import Errors, Pair, Rate, align


def align_texts(texts: Mapping[str, Texts]) -> Iterator[Errors]:
    """Holds transcripts against captions, where there are any; see `align`.

    Args:
        texts: Caption and transcript by utterance.
    """
    yield from align(
        Pair(name, one.caption, one.transcript, one.language) for name, one in texts.items()
    )


def asr_metrics(split: str, errors: Iterable[Errors]) -> dict[str, float]:
    """Word and character error rates of a split.

    Args:
        split: Stands before the names.
        errors: Of the recordings that have a caption.

    Returns:
        `<split>/asr/wer`, `<split>/asr/cer` and `<split>/asr/num_utterances`; nothing where no
        utterance has a caption.
    """
    rate = Rate()
    for one in errors:
        rate.add(one)
    if not rate.num_recordings:
        return {}
    return {
        f"{split}/asr/wer": rate.wer,
        f"{split}/asr/cer": rate.cer,
        f"{split}/asr/num_utterances": float(rate.num_recordings),
    }
