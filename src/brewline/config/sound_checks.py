"""The cross-checks of what hears sounds: variants with `sound`, their experiments and tables."""

from collections.abc import Iterator

from brewline.config.choices import suggest
from brewline.config.experiments import SOUND_TASKS, ExperimentParams, TableParams
from brewline.config.recipes import NONE
from brewline.config.schema import Params
from brewline.config.sounds import PUBLISHED_ENCODERS, PairingParams, SoundParams
from brewline.config.variants import VariantParams

# Of a spectrogram; see `brewline.models.spectrogram`.
_NUM_BINS = 128


def bad_pairing_of_speech(key: str, variant: VariantParams) -> Iterator[str]:
    """What of a variant that pairs recordings with squares of pictures does not fit."""
    if variant.pairing is None:
        return
    if variant.sound is not None:
        yield f"{key}.pairing: a variant with `sound` has its own there; take this one out"
        return
    if variant.pictures != "multicrop":
        yield f"{key}.pairing: chooses among the squares of pictures; set pictures: multicrop"
    if variant.prompts:
        yield f"{key}.pairing: needs prompts: 0, as squares are embedded once, by a frozen tower"
    if variant.acoustic is None:
        yield f"{key}.pairing: nothing of this variant is trained by it; it needs `acoustic`"
    if variant.pairing.rule == "multiframe_segment":
        yield (
            f"{key}.pairing.rule: a recording has one vector, and no segments; take random_frame, "
            "nearest or multiframe_clip"
        )
    yield from _bad_pairing(f"{key}.pairing", variant.pairing)


def bad_sound(key: str, variant: VariantParams) -> Iterator[str]:
    """What of a variant with `sound` does not fit."""
    sound = variant.sound
    if sound is None:
        return
    if variant.text is not None or variant.acoustic is not None or variant.prompts:
        yield f"{key}.sound: stands alone; take out text and acoustic, and set prompts: 0"
    yield from _bad_patches(f"{key}.sound", sound)
    if sound.frequency_mask > _NUM_BINS:
        yield f"{key}.sound.frequency_mask: there are {_NUM_BINS} bins"
    yield from _bad_pairing(f"{key}.sound.pairing", sound.pairing)


def bad_sound_encoders(params: Params) -> Iterator[str]:
    """Encoders of sounds whose weights nobody named."""
    for name, variant in params.variants.items():
        encoder = variant.sound.encoder if variant.sound else None
        if encoder in PUBLISHED_ENCODERS and getattr(params.backbones, encoder) is None:
            yield (
                f"variants.{name}.sound.encoder: {encoder!r} needs its weights; name them under "
                f"backbones.{encoder}"
            )


def _bad_patches(key: str, sound: SoundParams) -> Iterator[str]:
    for option, value in (("patch", sound.patch), ("stride", sound.stride)):
        if sound.encoder == "clip" and value is None:
            yield f"{key}.{option}: is missing; encoder clip needs it"
        if sound.encoder != "clip" and value is not None:
            yield f"{key}.{option}: belongs to encoder clip, not to {sound.encoder}; take it out"
    if sound.patch is None or sound.stride is None:
        return
    if sound.patch[0] > _NUM_BINS:
        yield f"{key}.patch: {sound.patch[0]} bins are more than the {_NUM_BINS} there are"
    if any(step > size for step, size in zip(sound.stride, sound.patch, strict=True)):
        yield f"{key}.stride: {sound.stride} leaves gaps between patches of {sound.patch}"


def _bad_pairing(key: str, pairing: PairingParams) -> Iterator[str]:
    yield from _bad_share(key, pairing.warm_phase)
    for option, rule in (("warm_phase", "nearest"), ("same_clip", "multiframe_segment")):
        is_there = getattr(pairing, option) is not None
        if pairing.rule == rule and not is_there:
            yield f"{key}.{option}: is missing; {rule} needs it"
        if pairing.rule != rule and is_there:
            yield f"{key}.{option}: belongs to {rule}, not to {pairing.rule}; take it out"


def _bad_share(key: str, warm_phase: int | float | None) -> Iterator[str]:
    if isinstance(warm_phase, float) and warm_phase > 1:
        yield f"{key}.warm_phase: {warm_phase} is more than all steps; write steps as an integer"


def bad_sound_experiment(params: Params, key: str, one: ExperimentParams) -> Iterator[str]:
    """Experiments whose task and variant do not fit each other, or whose start does not."""
    variant, recipe = params.variants[one.variant], params.recipes[one.recipe]
    if variant.pairing is not None and (one.task != "retrieval" or recipe is None):
        yield f"{key}.variant: {one.variant!r} pairs squares, for task retrieval with a recipe"
    elif variant.pairing is not None and recipe is not None and recipe.loss != "info_nce":
        yield f"{key}.recipe: pairing has loss info_nce alone, not {recipe.loss}"
    is_sound = one.task in SOUND_TASKS
    if is_sound != (variant.sound is not None):
        has = "hears sounds" if variant.sound else "has no `sound`"
        yield f"{key}.variant: {one.variant!r} {has}, which task {one.task} cannot use"
        return
    if not is_sound or recipe is None:
        return
    if recipe.loss != "info_nce":
        yield f"{key}.recipe: task {one.task} has loss info_nce alone, not {recipe.loss}"
    start = params.experiments.get(one.init)
    tuned = variant.sound is not None and variant.sound.text_tower == "trained"
    if one.task == "audio_image" and start and start.task == "audio_text" and tuned:
        yield f"{key}.init: {one.init!r} has a text tower of its own, which audio_image has not"


def bad_sound_tables(params: Params) -> Iterator[str]:
    """Rows of `sound_tables` that are not there, or of another task or corpus."""
    sounds = {name: one for name, one in params.experiments.items() if one.task in SOUND_TASKS}
    for name, table in params.sound_tables.items():
        key = f"sound_tables.{name}"
        if table.data not in params.corpora:
            yield f"{key}.data: unknown corpus {table.data!r}{suggest(table.data, params.corpora)}"
            continue
        here = [one for one in sounds if sounds[one].data == table.data]
        for row, experiment in table.rows.items():
            if experiment in here:
                continue
            place = f"{key}.rows.{row}"
            if experiment in sounds:
                yield (
                    f"{place}: {experiment!r} is measured on {sounds[experiment].data}; to "
                    f"measure its models on {table.data}, add an experiment with data: "
                    f"{table.data}, recipe: {NONE} and init: {experiment}"
                )
            elif experiment in params.experiments:
                task = params.experiments[experiment].task
                yield f"{place}: {experiment!r} is of task {task}, which hears no sounds"
            else:
                yield f"{place}: unknown experiment {experiment!r}{suggest(experiment, here)}"
        yield from bad_pairs(key, table)


def bad_pairs(key: str, table: TableParams) -> Iterator[str]:
    """Comparisons with rows that a table does not have."""
    rows = [*table.rows]
    named = {"baseline": [table.baseline] if table.baseline else []}
    named |= {"compare": [row for pair in table.compare for row in pair]}
    for part, found in named.items():
        yield from (
            f"{key}.{part}: no row {row!r}{suggest(row, rows)}" for row in found if row not in rows
        )
    yield from (
        f"{key}.compare: compares {ours!r} with itself"
        for ours, theirs in table.compare
        if ours == theirs
    )
