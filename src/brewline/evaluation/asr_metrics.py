"""Word and character error rates as metrics of a split."""

from collections.abc import Mapping

from brewline.evaluation.examples import Texts
from brewline.speech.error_rates import Pair, Rate, align


def asr_metrics(split: str, texts: Mapping[str, Texts]) -> dict[str, float]:
    """Word and character error rates of the transcripts of a split; see `align`.

    Args:
        split: Stands before the names.
        texts: Caption and transcript by utterance.

    Returns:
        `<split>/asr/wer`, `<split>/asr/cer` and `<split>/asr/num_utterances`; nothing where no
        utterance has a caption.
    """
    rate = Rate()
    pairs = (Pair(name, one.caption, one.transcript, one.language) for name, one in texts.items())
    for one in align(pairs):
        rate.add(one)
    if not rate.num_recordings:
        return {}
    return {
        f"{split}/asr/wer": rate.wer,
        f"{split}/asr/cer": rate.cer,
        f"{split}/asr/num_utterances": float(rate.num_recordings),
    }
