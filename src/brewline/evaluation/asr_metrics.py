"""Word and character error rates as metrics of a split."""

from collections.abc import Iterable

from brewline.samples.shards import Utterance
from brewline.speech.error_rates import Rate, align


def asr_metrics(split: str, utterances: Iterable[Utterance]) -> dict[str, float]:
    """Word and character error rates of the transcripts of a split; see `align`.

    Returns:
        `<split>/asr/wer`, `<split>/asr/cer` and `<split>/asr/num_utterances`; nothing where no
        utterance has a caption.
    """
    rate = Rate()
    for heard in align((one.utterance_id, one.caption, one.transcript) for one in utterances):
        rate.add(heard)
    if not rate.num_recordings:
        return {}
    return {
        f"{split}/asr/wer": rate.wer,
        f"{split}/asr/cer": rate.cer,
        f"{split}/asr/num_utterances": float(rate.num_recordings),
    }
