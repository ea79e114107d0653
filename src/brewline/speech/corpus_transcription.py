"""The transcription of a corpus: its shards done by an engine, and joined to the stage's outputs.

Whoever runs it holds no table of the corpus, only a few numbers of each shard.
"""

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brewline.core.engine import Engine, run_units
from brewline.core.errors import BrewlineError, disk_faults_explained
from brewline.core.files import atomic_path, link
from brewline.samples.shards import write_index
from brewline.speech.batch_plan import Shard, cut_into_shards
from brewline.speech.progress import ShardProgress, StatusCounts, TranscriptionProgress, outlook
from brewline.speech.transcriber import Transcriber
from brewline.tables.parquet import join_tables, read_column
from brewline.tables.transcripts import DROPPED, OK, TRANSCRIPTS


class CorpusTranscription:
    """The shards of a manifest, and what the work folder has of them."""

    def __init__(self, transcriber: Transcriber, utterances_per_shard: int) -> None:
        """Args are what does a shard, and the size of one."""
        self._transcriber = transcriber
        self._shards = cut_into_shards(transcriber.manifest, utterances_per_shard)
        # In seconds, of each recording.
        self._durations_s: NDArray[np.float64] = read_column(
            transcriber.manifest, "duration_s"
        ).to_numpy()

    def outlook(self, backbone: str) -> Iterator[str]:
        """What a user should know before hours of work; `backbone` is its name."""
        job = self._transcriber
        free_mb = shutil.disk_usage(job.work).free / 1e6
        return outlook(self._durations_s, job.width, job.asr, backbone, free_mb)

    def run(self, engine: Engine) -> Iterator[TranscriptionProgress]:
        """Recognises what is missing; says how far it is at the start and after every batch.

        Args:
            engine: Does the shards.

        Raises:
            BrewlineError: see `Transcriber.do` and `run_units`.
        """
        for shard in self._shards:
            self._transcriber.set_damaged_aside(shard)
        found = {shard.name: self._progress(shard) for shard in self._begun()}
        total_s, heard_s, start_s = float(self._durations_s.sum()), 0.0, time.monotonic()

        def so_far() -> TranscriptionProgress:
            done_s = sum(told.done_s for told in found.values())
            num_failed = sum(told.num_failed for told in found.values())
            factor = heard_s / (time.monotonic() - start_s)
            return TranscriptionProgress(done_s, total_s, num_failed, factor)

        yield so_far()
        for told in run_units(engine, self._transcriber, self._shards):
            found[told.shard] = told
            heard_s += told.heard_s
            yield so_far()

    def _begun(self) -> list[Shard]:
        # Looked up once: a file system that machines share is slow to look for each of thousands.
        stems = {path.name.partition(".")[0] for path in self._transcriber.work.iterdir()}
        return [shard for shard in self._shards if shard.stem in stems]

    def _progress(self, shard: Shard) -> ShardProgress:
        if not self._transcriber.is_done(shard):
            return self._transcriber.progress(shard)
        seconds = float(self._durations_s[shard.start : shard.stop].sum())
        return ShardProgress(shard.name, seconds, self._transcriber.num_lost(shard))

    def status_counts(self) -> StatusCounts:
        """What became of the recordings, once all are recognised."""
        counts: Counter[tuple[str, str | None]] = Counter()
        for shard in self._shards:
            counts.update(self._transcriber.status_counts(shard))
        return counts

    def check_failures(self, max_rate: float) -> None:
        """Stops where more recordings failed than may; the next run tries them again.

        Args:
            max_rate: The share that may fail.

        Raises:
            BrewlineError: says how many did, and why most of them did.
        """
        counts = self.status_counts()
        total = sum(counts.values())
        reasons: Counter[str | None] = Counter()
        for (status, reason), count in counts.items():
            if status != OK:
                reasons[reason] += count
        if reasons.total() <= max_rate * total:
            return
        for shard in self._shards:
            if self._transcriber.num_lost(shard):
                self._transcriber.try_lost_again(shard)
        reason, count = reasons.most_common(1)[0]
        raise BrewlineError(
            f"{reasons.total():,} of {total:,} recordings could not be recognised, most of "
            f"them ({count:,}) for `{reason}`; runtime.max_transcription_failure_rate allows "
            f"{100 * max_rate:g} %"
        )

    def write_outputs(self, table: Path, states: Path) -> None:
        """Writes the table, and the folder of states with its index, from the work folder.

        States are linked, not moved: a run that is killed here finds all of it again.
        """
        job = self._transcriber
        with disk_faults_explained():
            for shard in self._shards:
                job.finish(shard)
            join_tables(table, TRANSCRIPTS, map(job.table, self._shards))
            with atomic_path(states) as partial:
                counts = {}
                for shard in self._shards:
                    link(job.states(shard), partial / shard.name)
                    counts[shard.name] = sum(
                        count
                        for (status, _), count in job.status_counts(shard).items()
                        if status != DROPPED
                    )
                write_index(partial, counts)
