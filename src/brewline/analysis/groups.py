"""Recordings of test that show something.

The acoustic channel repairs them, channels disagree on them, or the crop loses much of a picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from brewline.analysis.channels import ModelChannels, find_disagreements
from brewline.analysis.crops import crop_failures
from brewline.analysis.inputs import TableInputs
from brewline.analysis.word_errors import HeardQueries, find_repairs
from brewline.config.analyse import AnalyseParams
from brewline.evaluation.examples import Chosen, make_example
from brewline.evaluation.vectors import ACOUSTIC, TEXT
from brewline.models.crop_box import CropBox

REPAIRED, DISAGREE, CROPPED = "repaired", "disagree", "cropped"


@dataclass(frozen=True)
class Group:
    """Recordings that show one thing.

    `row` is the row that they were chosen by; `facts` say how many there are and what else the page
    says of them; `names` are those that are shown.
    """

    kind: str
    row: str
    facts: Mapping[str, Any]
    names: Sequence[str]


def choose_groups(
    inputs: TableInputs,
    queries: HeardQueries,
    channels: Mapping[str, ModelChannels],
    boxes: Mapping[str, CropBox],
    params: AnalyseParams,
) -> list[Group]:
    """Chooses the recordings; of each row the first model is looked at.

    Args:
        inputs: The table.
        queries: The recordings whose word error rate is known.
        channels: Of the first model of each row with two.
        boxes: The middle square of each picture.
        params: How many are shown, and what is a hit.
    """
    shown = inputs.shown_row
    lost_of = {name: boxes[image].lost for name, image in inputs.image_of.items()}
    missed = crop_failures(
        lost_of, inputs.ranks[shown][0], inputs.image_of, params.hit_at, params.min_lost
    )
    wide = {inputs.image_of[name] for name, lost in lost_of.items() if lost >= params.min_lost}
    facts = {
        "num": len(missed),
        "num_images": len(wide),
        "min_lost": params.min_lost,
        "boxes": {
            name: asdict(boxes[inputs.image_of[name]]) for name in missed[: params.num_shown]
        },
    }
    return [
        *_repairs(inputs, queries, params),
        *_disagreements(channels, params),
        Group(CROPPED, shown, facts, missed[: params.num_shown]),
    ]


def _repairs(inputs: TableInputs, queries: HeardQueries, params: AnalyseParams) -> Iterator[Group]:
    """What a row with both channels finds and one that only reads transcripts misses."""
    for row, baseline in inputs.pairs:
        other = inputs.rows[baseline]
        if inputs.rows[row].num_channels < 2 or other.has_acoustic or other.text != "asr":
            continue
        ours, theirs = inputs.ranks[row][0], inputs.ranks[baseline][0]
        found = find_repairs(ours, theirs, queries, params.hit_at)
        facts = {
            "baseline": baseline,
            "num": len(found.repaired),
            "num_broken": len(found.broken),
            "num_wrong": sum(rate > 0 for rate in queries.wer_of.values()),
        }
        yield Group(REPAIRED, row, facts, found.repaired[: params.num_shown])


def _disagreements(channels: Mapping[str, ModelChannels], params: AnalyseParams) -> Iterator[Group]:
    for row, one in channels.items():
        found = find_disagreements(one, params.hit_at)
        rank_of = {
            name: dict(zip(one.utterance_ids, one.ranks[name].best.tolist(), strict=True))
            for name in (ACOUSTIC, TEXT)
        }
        for finder, names in found.items():
            shown = names[: params.num_shown // 2 or 1]
            of_channels = {
                name: {channel: rank_of[channel][name] for channel in (ACOUSTIC, TEXT)}
                for name in shown
            }
            facts = {"finder": finder, "num": len(names), "ranks": of_channels}
            yield Group(DISAGREE, row, facts, shown)


def show_groups(inputs: TableInputs, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The groups with what the rows found for each recording, as `examples.json` has it.

    The vectors of one row at a time are in memory.
    """
    entries: list[dict[str, list[dict[str, Any]]]] = [{} for _ in groups]
    for row, one in inputs.rows.items():
        split = inputs.vectors(one.models[0])
        for group, of_group in zip(groups, entries, strict=True):
            of_group[row] = [
                make_example(Chosen(group.kind, name), inputs.texts, split, inputs.ranks[row][0])
                for name in group.names
            ]
    return [
        {"kind": group.kind, "row": group.row, **group.facts, "examples": of_group}
        for group, of_group in zip(groups, entries, strict=True)
    ]
