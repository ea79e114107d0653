"""The recordings of which it is shown what is attended to: chosen, read, looked at and drawn."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brewline.analysis.attended import AttendedQuery
from brewline.analysis.attention_maps import attention_maps
from brewline.analysis.groups import REPAIRED, Group
from brewline.analysis.inputs import SPLIT, TableInputs
from brewline.analysis.map_figures import draw_picture_map, draw_sound_map
from brewline.analysis.spectrogram import spectrogram
from brewline.media.audio import SAMPLE_RATE_HZ, decode, to_mono_16k
from brewline.media.corpus_media import CorpusMedia
from brewline.models.backbones import ClipBackbone
from brewline.models.card import load_backbone_hashes
from brewline.models.folder import load_model
from brewline.models.names import BACKBONES_FOLDER, NAMES_FILE
from brewline.models.transforms import input_transforms
from brewline.models.views import seen_parts
from brewline.pages.album import thumbnail
from brewline.samples.collator import Collator
from brewline.samples.shards import read_split
from brewline.samples.utterance import Utterance
from brewline.tables.parquet import read_column, read_rows

# Columns of a spectrogram.
_NUM_TIMES = 480


def choose_queries(
    inputs: TableInputs, groups: Sequence[Group], number: int, k: int, seed: int
) -> list[str]:
    """Chooses recordings of test: one that the acoustic channel repaired, the others by lot.

    By lot among those that the fullest row finds: a map of a miss shows why it is near, not why it
    is right.

    Args:
        inputs: The table.
        groups: What else is shown of it.
        number: How many; may be 0.
        k: How many ranks are a hit.
        seed: Of the lot.
    """
    row = inputs.fullest_row
    if row is None:
        return []
    repaired = [one.names for one in groups if one.kind == REPAIRED and one.row == row]
    chosen = [names[0] for names in repaired if names][:1]
    found = sorted(name for name, rank in inputs.ranks[row][0].items() if rank <= k)
    lot = np.random.default_rng(seed).permutation(len(found))
    chosen += [name for name in (found[place] for place in lot) if name not in chosen]
    return chosen[:number]


def look_at_queries(
    inputs: TableInputs, names: Sequence[str], backbone: ClipBackbone, media: CorpusMedia
) -> Iterator[AttendedQuery]:
    """Yields the recordings with the maps of the first model of the fullest row, in their order.

    Raises:
        BrewlineError: the model, a shard, a recording or a picture cannot be read.
    """
    row = inputs.fullest_row
    if row is None or not names:
        return
    hashes = load_backbone_hashes(inputs.project / BACKBONES_FOLDER / NAMES_FILE)
    folder = inputs.project / "models" / inputs.rows[row].models[0]
    model, card = load_model(folder, backbone, hashes)
    switches = card.switches
    collator = Collator(input_transforms(backbone, switches), switches)
    states = card.states_folder(inputs.project)
    shards = inputs.project / "data/shards" / inputs.corpus
    samples = read_samples(shards, states, names)
    times = _word_times(inputs.project / f"data/transcripts/{inputs.corpus}.parquet", names)
    for name in names:
        maps = attention_maps(model, backbone, collator, samples[name])
        image_id = inputs.image_of[name]
        sound = None
        if maps.frames is not None and maps.frame_s is not None:
            waveform = to_mono_16k(decode(media.audio(name)))
            duration_s = len(waveform) / SAMPLE_RATE_HZ
            loudness = spectrogram(waveform, _NUM_TIMES)
            sound = draw_sound_map(loudness, duration_s, maps.frames, maps.frame_s, times[name])
        boxes = seen_parts(backbone, switches.pictures, *inputs.size_of[image_id])
        small = thumbnail(media.image(image_id), image_id)
        views = list(zip(maps.patches, boxes, strict=True))
        picture = draw_picture_map(*small, views)
        rank = inputs.ranks[row][0][name]
        yield AttendedQuery(name, image_id, row, rank, maps, picture, sound)


def read_samples(shards: Path, states: Path | None, names: Sequence[str]) -> dict[str, Utterance]:
    """Reads utterances of test, as far into the split as they lie."""
    found: dict[str, Utterance] = {}
    for utterance in read_split(shards, SPLIT, states):
        if utterance.utterance_id in names:
            found[utterance.utterance_id] = utterance
            if len(found) == len(names):
                break
    return found


def _word_times(path: Path, names: Sequence[str]) -> dict[str, list[Mapping[str, Any]]]:
    """When each word was said, where that is known; reads no other row's words."""
    ids = read_column(path, "utterance_id")
    found = {}
    for name in names:
        place = ids.index(name).as_py()
        (row,) = read_rows(path, slice(place, place + 1), ["words"])
        found[name] = row["words"] or []
    return found
