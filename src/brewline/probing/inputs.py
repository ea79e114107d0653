"""What a probe looks at: the recordings with their emotions, and the vectors of each of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brewline.config import Params
from brewline.core.errors import BrewlineError
from brewline.evaluation.vectors import FUSED, TEXT
from brewline.models.names import model_names
from brewline.tables.features import Features, load_features
from brewline.tables.parquet import read_table

Floats = NDArray[np.float32]
# The names of features begin with a row of the probe, or with this.
WHISPER = "whisper"
# The arrays of the file, (U, E) each, as far as the model has the channels: each channel as it is,
# and the sum at unit length that the model gives, by the names that `evaluation.vectors` has for
# them. Where there is a text channel and captions, the same with what was meant to be said for what
# was heard.
CAPTION, CAPTION_FUSED = "caption", "caption_fused"
# How frames are pooled: their mean, or their mean and deviation side by side.
POOLINGS = ("mean", "mean+std")
# Of a model that was fine-tuned on emotions: the class that it said of what it was tested on, (U,).
ANSWERED = "fine-tuned"


@dataclass(frozen=True)
class Recordings:
    """The recordings that are told apart; the lists run parallel.

    `contents` are equal where samples are. `num_left_out` have an emotion and no vectors, since
    they were dropped when they were transcribed.
    """

    utterance_ids: Sequence[str]
    emotions: Sequence[str]
    speakers: Sequence[str]
    contents: Sequence[str]
    num_left_out: int = 0


@dataclass(frozen=True)
class ProbedFeature:
    """Vectors (U, D), or (U, L, D) of which a sum over layers is learned, for each model.

    Of those that are `checked`, shuffled labels and random splits are looked at too.
    """

    name: str
    models: Sequence[Floats]
    checked: bool = False


@dataclass(frozen=True)
class TunedFeature:
    """What models that were fine-tuned under a protocol said: by utterance id, for each model.

    Classes are numbered in the order of the label set, of those that occur.
    """

    name: str
    labels: str
    protocol: str
    models: Sequence[Mapping[str, int]]


def read_tuned(params: Params, name: str, project: Path = Path()) -> list[TunedFeature]:
    """Reads what the fine-tuned rows of a probe said.

    Raises:
        BrewlineError: a file is missing or damaged.
    """
    found = []
    for row, experiment in params.probes[name].rows.items():
        tuning = params.experiments[experiment].fine_tuning
        if tuning is not None:
            answers = [
                dict(zip(one.utterance_ids, one.arrays[ANSWERED].astype(int).tolist(), strict=True))
                for one in _features_of(params, name, experiment, project)
            ]
            feature = f"{row}/{ANSWERED}"
            found.append(TunedFeature(feature, tuning.labels, tuning.protocol, answers))
    return found


def _features_of(params: Params, probe: str, experiment: str, project: Path) -> list[Features]:
    folder = project / f"data/embeddings/{params.probes[probe].data}/{experiment}"
    names = model_names(params, experiment)
    return [load_features(folder / f"{one}.safetensors") for one in names]


def read_inputs(
    params: Params, name: str, project: Path = Path()
) -> tuple[Recordings, list[ProbedFeature]]:
    """Reads what the probe of a name looks at.

    Raises:
        BrewlineError: a file is missing or damaged, or no recording has an emotion.
    """
    probe = params.probes[name]
    models = {
        row: _features_of(params, name, experiment, project)
        for row, experiment in probe.rows.items()
        if params.experiments[experiment].fine_tuning is None
    }
    layers = load_features(project / f"data/layers/{probe.data}.safetensors")
    found = [layers, *(one for each in models.values() for one in each)]
    recordings = _recordings(
        read_table(project / f"data/manifest/{probe.data}.parquet"),
        read_table(project / f"data/facts/{probe.data}/recordings.parquet"),
        set.intersection(*(set(one.utterance_ids) for one in found)),
    )
    if not recordings.utterance_ids:
        raise BrewlineError(
            f"no recording of {probe.data} has an emotion; take the probe {name!r} out of probes"
        )
    features = [one for row, each in models.items() for one in _of_models(row, each, recordings)]
    return recordings, [*features, *_of_layers(layers, recordings)]


def _recordings(
    manifest: Iterable[Mapping[str, Any]], facts: Iterable[Mapping[str, Any]], embedded: set[str]
) -> Recordings:
    content = {row["path"]: row["content"] for row in facts}
    labelled = [row for row in manifest if row["emotion"] is not None]
    rows = [row for row in labelled if row["utterance_id"] in embedded]
    return Recordings(
        [row["utterance_id"] for row in rows],
        [row["emotion"] for row in rows],
        [row["speaker_id"] for row in rows],
        [content[row["audio_path"]] for row in rows],
        num_left_out=len(labelled) - len(rows),
    )


def _rows(features: Features, recordings: Recordings) -> NDArray[np.int64]:
    place = {one: row for row, one in enumerate(features.utterance_ids)}
    return np.array([place[one] for one in recordings.utterance_ids])


def _of_models(
    row: str, models: Sequence[Features], recordings: Recordings
) -> Iterable[ProbedFeature]:
    kinds = set(models[0].arrays)
    if TEXT not in kinds:
        # A channel alone is fused with nothing.
        kinds.discard(FUSED)
    for kind in (one for one in models[0].arrays if one in kinds):
        arrays = [one.arrays[kind][_rows(one, recordings)] for one in models]
        yield ProbedFeature(f"{row}/{kind}", arrays, checked=kind == FUSED or len(kinds) == 1)


def _of_layers(layers: Features, recordings: Recordings) -> Iterable[ProbedFeature]:
    rows = _rows(layers, recordings)
    mean, deviation = layers.arrays["mean"][rows], layers.arrays["deviation"][rows]
    for pooling in POOLINGS:
        pooled = mean if pooling == "mean" else np.concatenate([mean, deviation], axis=2)
        num_layers = pooled.shape[1]
        for layer in range(num_layers):
            is_last = layer == num_layers - 1
            yield ProbedFeature(layer_name(pooling, layer), [pooled[:, layer]], checked=is_last)
        yield ProbedFeature(weighted_name(pooling), [pooled])


def layer_name(pooling: str, layer: int) -> str:
    """What the feature of one layer is called; 0 is what the convolutions give."""
    return f"{WHISPER}/{pooling}/layer-{layer}"


def weighted_name(pooling: str) -> str:
    """What the feature is called that is a learned weighted sum of all layers."""
    return f"{WHISPER}/{pooling}/weighted"
