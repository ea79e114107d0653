"""Word and character error rates as metrics of a split."""

from collections.abc import Iterable

from brewline.speech.error_rates import Rate, align


def asr_metrics(split: str, heard: Iterable[tuple[str, str | None, str]]) -> dict[str, float]:
    """Word and character error rates of the transcripts of a split; see `align`.

    Args:
        split: Stands before the names.
        heard: Id, caption and transcript of each utterance.

    Returns:
        `<split>/asr/wer`, `<split>/asr/cer` and `<split>/asr/num_utterances`; nothing where no
        utterance has a caption.
    """
    rate = Rate()
    for one in align(heard):
        rate.add(one)
    if not rate.num_recordings:
        return {}
    return {
        f"{split}/asr/wer": rate.wer,
        f"{split}/asr/cer": rate.cer,
        f"{split}/asr/num_utterances": float(rate.num_recordings),
    }
