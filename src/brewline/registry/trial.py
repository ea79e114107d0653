"""A model of the registry on trial: evaluated again on the project's dev split, and timed."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from brewline.config import Params
from brewline.evaluation.asr_metrics import align_texts, asr_metrics
from brewline.evaluation.embedding import embed_split
from brewline.evaluation.scores import score_retrieval
from brewline.evaluation.texts import read_texts
from brewline.media.audio import waveform
from brewline.media.corpus_media import project_media
from brewline.models.card import load_backbone_hashes
from brewline.models.names import BACKBONES_FOLDER, NAMES_FILE
from brewline.registry.candidates import dev_manifest_digest, quarantine_rate
from brewline.registry.policy import WER, Evidence
from brewline.registry.serving import Served
from brewline.samples.iteration import chunks
from brewline.samples.shards import read_split
from brewline.samples.utterance import Utterance
from brewline.tables.parquet import read_table

_NUM_TIMED = 5
_BATCH = 32


def evaluate_again(served: Served, params: Params, name: str, project: Path = Path()) -> Evidence:
    """Evaluates a model of the registry on the project's present dev split.

    It hears the recordings with its own Whisper, unless that is the one of the project's states.

    Args:
        served: The model.
        params: Batch size, and the K of recall.
        name: How reasons call it.
        project: Its manifest, transcripts, shards, states and recordings are read.
    """
    heard: list[Utterance] = []

    def utterances() -> Iterator[Utterance]:
        for utterance in _dev_utterances(served, project):
            heard.append(replace(utterance, image=None, states=None))
            yield utterance

    embedder, corpus = served.embedder, served.corpus
    embedded = embed_split(
        embedder.model, embedder.collator, utterances(), params.runtime.embed_batch_size
    )
    scores = score_retrieval(embedded, "dev", params.evaluate.recall_at)
    metrics = dict(scores.metrics)
    texts = read_texts(corpus, project)
    own = {u.utterance_id: replace(texts[u.utterance_id], transcript=u.transcript) for u in heard}
    rates = asr_metrics("dev", align_texts(own))
    metrics |= {WER: rates[WER]} if WER in rates else {}
    digest = dev_manifest_digest(project / f"data/manifest/{corpus}.parquet")
    return Evidence(
        name,
        digest,
        metrics,
        scores.dev_ranks,
        quarantine_rate=quarantine_rate(project, corpus),
    )


def _dev_utterances(served: Served, project: Path) -> Iterator[Utterance]:
    corpus, embedder = served.corpus, served.embedder
    shards, states = (project / "data" / kind / corpus for kind in ("shards", "states"))
    hashes = load_backbone_hashes(project / BACKBONES_FOLDER / NAMES_FILE)
    if embedder.card.backbones["whisper"] == hashes["whisper"]:
        yield from read_split(shards, "dev", states)
        return
    _, recording = _dev_recordings(corpus, project)
    for batch in chunks(read_split(shards, "dev"), _BATCH):
        waveforms = [waveform(recording(utterance.utterance_id)) for utterance in batch]
        recognitions = embedder.recogniser.recognise(waveforms)
        for utterance, one in zip(batch, recognitions, strict=True):
            yield replace(
                utterance, transcript=one.text, num_frames=one.num_frames, states=one.states
            )


def _dev_recordings(corpus: str, project: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """The ids of dev, and what gives the bytes of a recording by its id."""
    manifest = project / f"data/manifest/{corpus}.parquet"
    names = [row["utterance_id"] for row in read_table(manifest) if row["split"] == "dev"]
    return names, project_media(corpus, project).audio


def latency_ms(served: Served, project: Path = Path()) -> float:
    """The time from the bytes of a recording to its answer, in ms: the least of several of dev.

    It depends on the machine; the least one depends least on what else the machine does.
    """
    names, recording = _dev_recordings(served.corpus, project)
    chosen = names[:: max(1, len(names) // _NUM_TIMED)][:_NUM_TIMED]
    contents = [recording(name) for name in chosen]
    # The first answer warms up, and counts for nothing.
    served.hear(contents[0], 1)
    times = []
    for content in contents:
        start = time.perf_counter()
        served.hear(content, 1)
        times.append(1000 * (time.perf_counter() - start))
    return min(times)
