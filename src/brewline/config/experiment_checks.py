"""The cross-checks of `variants`, `recipes`, `experiments`, `external` and `tables`."""

from collections.abc import Iterator

from brewline.config.acoustic_checks import bad_states
from brewline.config.choices import suggest
from brewline.config.experiments import ExperimentParams, TableParams
from brewline.config.recipes import NONE
from brewline.config.schema import Params
from brewline.config.sound_checks import (
    bad_pairing_of_speech,
    bad_pairs,
    bad_sound,
    bad_sound_experiment,
)
from brewline.config.variants import VariantParams

# Folders beside the models of the experiments.
_TAKEN = ("backbones", NONE)
# Stands beside the rows of a table in `metrics/`.
_TAKEN_ROW = "asr"


def bad_variants(params: Params) -> Iterator[str]:
    """Variants that are nothing, or have what belongs to others."""
    for name, variant in params.variants.items():
        key = f"variants.{name}"
        yield from bad_sound(key, variant)
        yield from bad_pairing_of_speech(key, variant)
        if variant.text is None and variant.acoustic is None and variant.sound is None:
            yield f"{key}: needs a channel: text, acoustic or both, or sound"
        both = variant.text is not None and variant.acoustic is not None
        if both and variant.alpha is None:
            yield f"{key}.alpha: is missing; it weighs the loss between the two channels"
        if not both and variant.alpha is not None:
            yield f"{key}.alpha: weighs a loss between two channels, and this variant has one"
        yield from _bad_options(key, variant, both)


def _bad_options(key: str, variant: VariantParams, both: bool) -> Iterator[str]:
    """Options of a part that is not there."""
    if variant.fusion != "sum" and not both:
        yield f"{key}.fusion: {variant.fusion!r} joins two channels, and this variant has one"
    if variant.fusion == "gate" and variant.text == "caption":
        yield f"{key}.fusion: 'gate' needs a recogniser's confidence, and captions have none"
    if variant.long_texts != "truncate" and variant.text is None:
        yield f"{key}.long_texts: {variant.long_texts!r} needs a text channel"
    if variant.prompt_depth > 1 and not variant.prompts:
        yield f"{key}.prompt_depth: {variant.prompt_depth} needs prompts"


def bad_recipes(params: Params) -> Iterator[str]:
    """Recipes that cannot be followed."""
    if params.recipes.get(NONE, params) is not None:
        yield f"recipes.{NONE}: must be null; it is the recipe of whatever is not trained"
    for name, recipe in params.recipes.items():
        if name == NONE:
            continue
        if recipe is None:
            yield f"recipes.{name}: is empty; only {NONE} may be"
            continue
        if recipe.warmup_steps > recipe.steps:
            yield (
                f"recipes.{name}.warmup_steps: {recipe.warmup_steps} are more than "
                f"recipes.{name}.steps, {recipe.steps}"
            )
        if recipe.batch_size < 2:
            yield (f"recipes.{name}.batch_size: 1 holds no wrong answer to tell the right one from")


def bad_experiments(params: Params) -> Iterator[str]:
    """Experiments that refer to what is not there, or whose parts do not fit."""
    for name, one in params.experiments.items():
        key = f"experiments.{name}"
        if name in _TAKEN:
            yield f"{key}: that name is taken; call it something else"
        unknown = list(_unknown_parts(params, key, one))
        yield from unknown
        if not unknown:
            yield from bad_states(params, key, one)
            yield from _bad_fine_tuning(key, one)
            yield from bad_sound_experiment(params, key, one)
            yield from _bad_training(params, key, one)


def _unknown_parts(params: Params, key: str, one: ExperimentParams) -> Iterator[str]:
    others = [NONE, *params.experiments]
    for part, name, known in (
        ("data", one.data, params.corpora),
        ("variant", one.variant, [*params.variants]),
        ("recipe", one.recipe, [*params.recipes]),
        ("init", one.init, others),
    ):
        if name not in known:
            yield f"{key}.{part}: unknown {_CALLED[part]} {name!r}{suggest(name, known)}"
    if one.init in params.experiments and _goes_in_circles(params, one):
        yield f"{key}.init: it starts from itself, by way of {one.init!r}"


_CALLED = {"data": "corpus", "variant": "variant", "recipe": "recipe", "init": "experiment"}


def _goes_in_circles(params: Params, one: ExperimentParams) -> bool:
    seen: set[str] = set()
    while one.init in params.experiments:
        if one.init in seen:
            return True
        seen.add(one.init)
        one = params.experiments[one.init]
    return False


def _can_be_followed(params: Params, one: ExperimentParams) -> bool:
    """Whether everything that an experiment starts from is there; else that is said of it."""
    if _goes_in_circles(params, one) or one.recipe not in params.recipes:
        return False
    if one.init == NONE:
        return True
    return one.init in params.experiments and _can_be_followed(params, params.experiments[one.init])


def _bad_fine_tuning(key: str, one: ExperimentParams) -> Iterator[str]:
    is_tuned = one.task == "emotion" and one.recipe != NONE
    if is_tuned and one.fine_tuning is None:
        yield (
            f"{key}.fine_tuning: is missing; it says which emotions are learned (labels) and who "
            "is held out (protocol, speaker_folds)"
        )
    if not is_tuned and one.fine_tuning is not None:
        yield f"{key}.fine_tuning: is for task emotion with a recipe; take it out"


def _bad_training(params: Params, key: str, one: ExperimentParams) -> Iterator[str]:
    variant = params.variants[one.variant]
    if one.recipe != NONE and not variant.is_trainable:
        yield (
            f"{key}.recipe: variant {one.variant!r} has nothing to train; set recipe: {NONE}, or "
            "give it prompts"
        )
    if one.init == NONE:
        if one.recipe == NONE and variant.is_trainable:
            yield (
                f"{key}: variant {one.variant!r} has parameters that nothing trains; give it a "
                "recipe, or an experiment as init"
            )
        return
    start = params.experiments[one.init]
    if start.fine_tuning is not None:
        yield f"{key}.init: {one.init!r} has a model for each fold, and none to start from"
        return
    if start.variant != one.variant:
        yield f"{key}.init: {one.init!r} is of variant {start.variant!r}, not {one.variant!r}"
        return
    if not _can_be_followed(params, start):
        return
    trained = params.seeds_of(one.init)
    if trained is None:
        yield f"{key}.init: of {one.init!r} nothing is trained"
        return
    yield from _other_loss(params, key, one)
    missing = [seed for seed in params.seeds_of_recipe(one.recipe) if seed not in trained]
    if missing:
        yield (
            f"{key}.init: {one.init!r} has no seed {missing[0]}, which recipes.{one.recipe}.seeds "
            f"names; it has {', '.join(map(str, trained))}"
        )


def _other_loss(params: Params, key: str, one: ExperimentParams) -> Iterator[str]:
    """What a recipe would train and the model that it starts from does not have, or the reverse."""
    origin = params.origin_of(one.init)
    assert origin is not None
    recipe, start = params.recipes[one.recipe], params.recipes[params.experiments[origin].recipe]
    for option in ("loss", "learn_temperature"):
        ours, theirs = getattr(recipe, option, None), getattr(start, option, None)
        if recipe is not None and ours != theirs:
            yield (
                f"{key}.init: {one.init!r} was trained with {option}: {theirs}, and "
                f"recipes.{one.recipe} has {option}: {ours}"
            )


def bad_external(params: Params) -> Iterator[str]:
    """Vectors of others of an unknown corpus, or under the name of an experiment."""
    experiments = {name.casefold() for name in params.experiments}
    for name, one in params.external.items():
        if one.data not in params.corpora:
            hint = suggest(one.data, params.corpora)
            yield f"external.{name}.data: unknown corpus {one.data!r}{hint}"
        if name.casefold() in (*experiments, *_TAKEN):
            yield f"external.{name}: an experiment has that name; call it something else"


def bad_tables(params: Params) -> Iterator[str]:
    """Tables that refer to what is not there, or compare what cannot be compared."""
    for name, table in params.tables.items():
        key = f"tables.{name}"
        if table.data not in params.corpora:
            hint = suggest(table.data, params.corpora)
            yield f"{key}.data: unknown corpus {table.data!r}{hint}"
            continue
        yield from _bad_rows(params, key, table)
        yield from bad_pairs(key, table)


def _bad_rows(params: Params, key: str, table: TableParams) -> Iterator[str]:
    pictured = {name: one for name, one in params.experiments.items() if one.task == "retrieval"}
    here = [name for name, one in pictured.items() if one.data == table.data]
    for row, experiment in table.rows.items():
        if row == _TAKEN_ROW:
            yield f"{key}.rows.{row}: word error rates stand under that name; call it otherwise"
        if experiment in here:
            continue
        if experiment in params.external:
            data = params.external[experiment].data
            if data != table.data:
                yield f"{key}.rows.{row}: {experiment!r} has vectors of {data}, not {table.data}"
        elif experiment in pictured:
            data = pictured[experiment].data
            yield (
                f"{key}.rows.{row}: {experiment!r} is measured on {data}; to measure its models on "
                f"{table.data}, add an experiment with data: {table.data}, recipe: {NONE} and "
                f"init: {experiment}"
            )
        elif experiment in params.experiments:
            task = params.experiments[experiment].task
            place = "probes" if task == "emotion" else "sound_tables"
            yield f"{key}.rows.{row}: {experiment!r} is of task {task}, which stands under {place}"
        else:
            hint = suggest(experiment, [*here, *params.external])
            yield f"{key}.rows.{row}: unknown experiment {experiment!r}{hint}"
