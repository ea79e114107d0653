"""The cross-checks of `encoded`, and of the `acoustic` of variants."""

from collections.abc import Iterator

from brewline.config.choices import suggest
from brewline.config.experiments import ExperimentParams, augmented_name
from brewline.config.recipes import NONE
from brewline.config.schema import Params
from brewline.config.variants import AcousticParams, VariantParams


def bad_acoustic(params: Params) -> Iterator[str]:
    """Acoustic channels whose parts do not fit."""
    for name, variant in params.variants.items():
        if variant.acoustic is None:
            continue
        key, acoustic = f"variants.{name}.acoustic", variant.acoustic
        if acoustic.padding_mask == "none" and acoustic.hears_layers:
            yield (
                f"{key}.padding_mask: 'none' attends to the padding, which Whisper's last layer "
                "alone has; set valid"
            )
        elif acoustic.padding_mask == "none" and params.asr.states == "valid":
            yield (
                f"{key}.padding_mask: 'none' attends to the padding, of which asr.states: "
                "'valid' stores nothing; set asr.states: all"
            )
        if not acoustic.hears_layers and not (acoustic.normalise_layers and acoustic.learn_layers):
            yield f"{key}.encoder: 'whisper' has one layer; layers are told apart by others"
        yield from _bad_branch(key, variant, acoustic)


def _bad_branch(key: str, variant: VariantParams, acoustic: AcousticParams) -> Iterator[str]:
    branch = acoustic.branch
    if branch != "brewclip" and variant.prompts:
        yield f"{key}.branch: {branch!r} has no place for prompts; set prompts: 0, or brewclip"
    if branch != "cascaded":
        if acoustic.feedforward_width is None:
            yield f"{key}.feedforward_width: is missing"
        if acoustic.keywords is not None:
            yield f"{key}.keywords: branch {branch!r} says none; they are for cascaded"
        return
    if acoustic.keywords is None:
        yield f"{key}.keywords: is missing; it says how many words the cascaded branch may say"
    if acoustic.layers != 1 or acoustic.feedforward_width is not None:
        yield f"{key}.layers: 'cascaded' has one, without feedforward_width"
    if variant.text is not None:
        yield f"{key}.branch: 'cascaded' is the text channel itself; take `text` out"


def bad_encoded(params: Params) -> Iterator[str]:
    """Sets of layers of an unknown corpus, or whose encoder nobody named."""
    taken = {name.casefold() for name in (NONE, *params.sources)}
    for name, one in params.encoded.items():
        key = f"encoded.{name}"
        if name.casefold() in taken:
            yield f"{key}: a corpus has that name, or it is {NONE}; call it something else"
        if one.data not in params.corpora:
            yield f"{key}.data: unknown corpus {one.data!r}{suggest(one.data, params.corpora)}"
        if one.encoder == "hubert" and params.backbones.hubert is None:
            yield f"{key}.encoder: 'hubert' needs its weights; name them under backbones.hubert"


def bad_augmentation(params: Params) -> Iterator[str]:
    """Corpora whose changed recordings cannot be made, or kept."""
    for corpus in params.augmented_corpora:
        key = "augmented_corpora"
        if corpus not in params.corpora:
            yield f"{key}: unknown corpus {corpus!r}{suggest(corpus, params.corpora)}"
        for taken in (params.corpora, params.encoded):
            if augmented_name(corpus) in taken:
                yield f"{key}: {augmented_name(corpus)!r} is taken; call that something else"
    if params.augmented_corpora and params.asr.states != "valid":
        yield "augmented_corpora: needs asr.states: valid, as states of padding are not changed"


def bad_states(params: Params, key: str, one: ExperimentParams) -> Iterator[str]:
    """States of an experiment that its variant does not hear."""
    acoustic = params.variants[one.variant].acoustic
    is_changed = one.fine_tuning is not None and one.fine_tuning.augment
    if is_changed and (acoustic is None or acoustic.hears_layers):
        yield (
            f"{key}.fine_tuning.augment: changes what Whisper's last layer hears, and variant "
            f"{one.variant!r} does not hear that"
        )
        return
    if acoustic is None or not acoustic.hears_layers:
        needed = NONE if acoustic is None else one.data
        has = "has no acoustic channel" if acoustic is None else "has an acoustic channel"
        if is_changed:
            needed, has = augmented_name(one.data), f"{has}, and fine_tuning.augment is true"
            if one.data not in params.augmented_corpora:
                hint = suggest(one.data, params.augmented_corpora)
                missing = f"{one.data!r} is not among augmented_corpora{hint}"
                yield f"{key}.fine_tuning.augment: {missing}"
        if one.states != needed:
            yield f"{key}.states: must be {needed}, since variant {one.variant!r} {has}"
        return
    fitting = [
        name
        for name, found in params.encoded.items()
        if (found.data, found.encoder, found.pool_frames)
        == (one.data, acoustic.encoder, acoustic.pool_frames)
    ]
    if one.states not in fitting:
        wanted = f"data: {one.data}, encoder: {acoustic.encoder}, pool_frames: "
        wanted += str(acoustic.pool_frames)
        yield (
            f"{key}.states: must be one of `encoded` with {wanted}, as variant {one.variant!r} "
            f"hears; there is {', '.join(fitting) or 'none yet'}"
        )
