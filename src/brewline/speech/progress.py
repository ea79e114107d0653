"""How far the recognition of a corpus is, what it will take, and what became of it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from brewline.config.asr import AsrParams
from brewline.speech.windows import FRAMES_PER_SECOND, WINDOW_S
from brewline.tables.parquet import read_column

_BYTES_PER_VALUE = 2  # float16

# How many recordings ended with each status in the table, and each reason beside it.
StatusCounts = Mapping[tuple[str, str | None], int]


class ShardProgress(NamedTuple):
    """How far a shard is: seconds of speech done, and recordings that failed.

    `heard_s`: seconds that were done since this was told the last time.
    """

    shard: str
    done_s: float
    num_failed: int
    heard_s: float = 0.0


class TranscriptionProgress(NamedTuple):
    """How far a corpus is: seconds of speech done and in all, and recordings that failed.

    `real_time_factor`: how many seconds of speech take one of ours, in this process.
    """

    done_s: float
    total_s: float
    num_failed: int
    real_time_factor: float

    def as_row(self) -> dict[str, float]:
        """Metrics at a step, which is the seconds done: a run that goes on goes on there."""
        return {
            "step": round(self.done_s),
            "asr/hours_done": self.done_s / 3600,
            "asr/real_time_factor": self.real_time_factor,
            "asr/num_failed": self.num_failed,
        }


def show_progress(stream: Iterable[TranscriptionProgress]) -> Iterator[TranscriptionProgress]:
    """Passes progress on, and shows it: hours of speech, time left, speed, failures."""
    bar = None
    for progress in stream:
        if bar is None:
            bar = tqdm(
                desc="speech",
                total=progress.total_s / 3600,
                initial=progress.done_s / 3600,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n:.2f} of {total:.2f} h "
                "[{elapsed}, {remaining} left{postfix}]",
                disable=None,
            )
        failed = f", {progress.num_failed} failed" if progress.num_failed else ""
        bar.set_postfix_str(f"{progress.real_time_factor:.0f}x real time{failed}", refresh=False)
        bar.update(progress.done_s / 3600 - bar.n)
        yield progress
    if bar is not None:
        bar.close()


def summary(ends: StatusCounts) -> str:
    """What became of the recordings, in words."""
    counts: Counter[str] = Counter()
    doubts: Counter[str] = Counter()
    for (status, reason), count in ends.items():
        counts[status] += count
        if reason:
            doubts[f"{status}: {reason}"] += count
    parts = [f"{count:,} {status}" for status, count in counts.most_common()]
    told = [f"{count:,} {reason}" for reason, count in doubts.most_common()]
    return " + ".join(parts) + (f" ({', '.join(told)})" if told else "")


def estimated_states_mb(durations_s: NDArray[np.float64], width: int, settings: AsrParams) -> float:
    """The disk that the encoder states of recordings will take at most, in MB."""
    seconds = durations_s.sum()
    if settings.states == "all":
        # The last window comes with its padding; of several nobody knows yet where they end.
        is_one_window = durations_s <= WINDOW_S
        seconds += WINDOW_S * len(durations_s) - durations_s[is_one_window].sum()
    return float(FRAMES_PER_SECOND * seconds * width * _BYTES_PER_VALUE / 1e6)


def outlook(
    durations_s: NDArray[np.float64],
    width: int,
    settings: AsrParams,
    backbone: str,
    free_mb: float,
) -> Iterator[str]:
    """What a user should know before hours of work.

    Args:
        durations_s: Of the recordings of a corpus, in seconds.
        width: Of an encoder state.
        settings: How Whisper is run.
        backbone: Its name.
        free_mb: Room on the disk.
    """
    size_mb = estimated_states_mb(durations_s, width, settings)
    yield (
        f"{len(durations_s):,} utterances; encoder states will take {size_mb:,.0f} MB, "
        f"{free_mb:,.0f} MB are free"
    )
    # Those of the miniature world were trained on short windows.
    if settings.audio_context == "utterance" and not backbone.startswith("mini-"):
        yield (
            "asr.audio_context is `utterance`; published weights were trained on windows of 30 s, "
            "expect `full`, and hear worse without"
        )


def outlook_of_layers(
    manifest: Path, shape: tuple[int, int], pool_frames: int, free_mb: float
) -> str:
    """What a user should know before the layers of an encoder are stored.

    Args:
        manifest: Of the corpus.
        shape: How many layers there are, and how wide they are.
        pool_frames: How many frames become one.
        free_mb: Room on the disk.
    """
    durations_s = read_column(manifest, "duration_s").to_numpy()
    num_layers, width = shape
    frames = durations_s.sum() * FRAMES_PER_SECOND / pool_frames
    size_mb = frames * num_layers * width * _BYTES_PER_VALUE / 1e6
    return (
        f"{len(durations_s):,} utterances; {num_layers} layers of {width} numbers will take "
        f"{size_mb:,.0f} MB, {free_mb:,.0f} MB are free"
    )
