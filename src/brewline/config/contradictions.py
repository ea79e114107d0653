"""The cross-checks of `params.yaml`: well typed, but refers to something that is not there."""

from brewline.config.choices import suggest
from brewline.config.models import UNTRAINED
from brewline.config.schema import Params
from brewline.config.sources import READER_OPTIONS


def contradictions(params: Params) -> list[str]:
    """Whatever is well typed but refers to something that is not there."""
    return [
        *_bad_sources(params),
        *_unknown_corpora(params),
        *_bad_files(params),
        *_bad_models(params),
        *_bad_variants(params),
        *_bad_rows(params),
        *_bad_recognition(params),
        *_bad_training(params),
        *_bad_measures(params),
        *_bad_limits(params),
        *_bad_names(params),
    ]


def _bad_sources(params: Params) -> list[str]:
    problems = []
    options = {option for each in READER_OPTIONS.values() for option in each}
    for name, source in params.sources.items():
        taken = READER_OPTIONS.get(source.reader)
        if taken is None:
            hint = suggest(source.reader, list(READER_OPTIONS))
            problems.append(f"sources.{name}.reader: unknown reader {source.reader!r}{hint}")
            continue
        problems += [
            f"sources.{name}.{option}: reader {source.reader!r} does not take it; it takes "
            f"{', '.join(taken) or 'no options'}"
            for option in sorted(options & source.model_fields_set - {*taken})
        ]
    return problems


def _unknown_corpora(params: Params) -> list[str]:
    problems = [
        f"corpora: unknown corpus {corpus!r}{suggest(corpus, list(params.sources))}"
        for corpus in params.corpora
        if corpus not in params.sources
    ]
    problems += [
        f"retrieval_corpora: {corpus!r} is not in corpora{suggest(corpus, params.corpora)}"
        for corpus in params.retrieval_corpora
        if corpus not in params.corpora
    ]
    return problems


def _bad_files(params: Params) -> list[str]:
    problems = []
    for corpus, source in params.sources.items():
        for name, file in source.files.items():
            remote = "://" in file.url and not file.url.startswith("file://")
            if file.in_place and (remote or file.mirrors):
                problems.append(
                    f"sources.{corpus}.files.{name}: in_place needs a path or file://, and no "
                    "mirrors"
                )
    return problems


def _bad_models(params: Params) -> list[str]:
    problems = []
    for group in ("untrained", "text", "acoustic", "text_acoustic"):
        for name, model in getattr(params.models, group).items():
            key = f"models.{group}.{name}"
            if model.corpus not in params.retrieval_corpora:
                hint = suggest(model.corpus, list(params.retrieval_corpora))
                problems.append(f"{key}: unknown retrieval corpus {model.corpus!r}{hint}")
            elif model.variant not in params.variants:
                hint = suggest(model.variant, list(params.variants))
                problems.append(f"{key}: unknown variant {model.variant!r}{hint}")
            elif name != f"{model.corpus}-{model.variant}":
                problems.append(f"{key}: must be called {model.corpus}-{model.variant}")
            elif params.variants[model.variant].group != group:
                right = params.variants[model.variant].group
                problems.append(f"{key}: variant {model.variant!r} belongs in models.{right}")
    return problems


def _bad_variants(params: Params) -> list[str]:
    problems = []
    for name, variant in params.variants.items():
        if not variant.text and not variant.acoustic:
            problems.append(f"variants.{name}: needs a channel: text, acoustic or both")
        if not variant.trained and (variant.acoustic or variant.prompts):
            problems.append(
                f"variants.{name}: an untrained variant has neither acoustic channel nor prompts"
            )
        if variant.trained and not variant.acoustic and not variant.prompts:
            problems.append(f"variants.{name}: has nothing to train; give it prompts")
        if variant.trained and name == UNTRAINED:
            problems.append(
                f"variants.{name}: is trained, but tables compare with it as the model that is not"
            )
    return problems


def _bad_training(params: Params) -> list[str]:
    train, problems = params.train, []
    if train.warmup_steps > train.steps:
        problems.append(
            f"train.warmup_steps: {train.warmup_steps} are more than train.steps, {train.steps}"
        )
    if train.batch_size < 2:
        problems.append("train.batch_size: 1 holds no wrong answer to tell the right one from")
    acoustic = any(variant.acoustic for variant in params.variants.values())
    if acoustic and params.acoustic.padding_mask == "none" and params.asr.states == "valid":
        problems.append(
            "acoustic.padding_mask: 'none' attends to the padding, of which asr.states: 'valid' "
            "stores nothing; set asr.states: all"
        )
    return problems


def _bad_measures(params: Params) -> list[str]:
    problems = []
    if 1 not in params.evaluate.recall_at:
        problems.append(
            f"evaluate.recall_at: {params.evaluate.recall_at} lacks 1, by which models are chosen "
            "and compared"
        )
    lists: dict[str, list[object]] = {
        "corpora": [*params.corpora],
        "evaluate.recall_at": [*params.evaluate.recall_at],
        "train.seeds": [*params.train.seeds],
    }
    lists |= {f"retrieval_corpora.{name}": [*row] for name, row in params.retrieval_corpora.items()}
    for key, values in lists.items():
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            problems.append(f"{key}: names {twice} twice")
    return problems


def _bad_limits(params: Params) -> list[str]:
    limits = params.validation
    bounds = {
        "validate.min_duration_s and max_duration_s": (
            limits.min_duration_s,
            limits.max_duration_s,
        ),
        "validate.median_duration_s": tuple(limits.median_duration_s),
        "validate.median_caption_words": tuple(limits.median_caption_words),
    }
    return [
        f"{key}: nothing lies between {low:g} and {high:g}"
        for key, (low, high) in bounds.items()
        if low >= high
    ]


def _bad_names(params: Params) -> list[str]:
    """Names that are one folder where a disk does not tell capitals from small letters."""
    problems = []
    for key, names in (("sources", [*params.sources]), ("variants", [*params.variants])):
        first: dict[str, str] = {}
        for name in names:
            other = first.setdefault(name.casefold(), name)
            if other != name:
                problems.append(f"{key}.{name}: differs from {other!r} in capitals alone")
    return problems


def _bad_recognition(params: Params) -> list[str]:
    problems = []
    if params.asr.precision == "int8" and params.asr.engine != "faster-whisper":
        problems.append("asr.precision: 'int8' needs asr.engine: faster-whisper")
    if params.asr.states == "all" and params.asr.audio_context != "full":
        problems.append("asr.states: 'all' needs asr.audio_context: full")
    if params.asr.temperatures != sorted(params.asr.temperatures):
        problems.append(f"asr.temperatures: {params.asr.temperatures} do not rise")
    return problems


def _bad_rows(params: Params) -> list[str]:
    """Rows of the tables that no model fills; a model without a row is only not shown."""
    models = {(model.corpus, model.variant) for model in params.models.all().values()}
    problems = []
    for corpus, variants in params.retrieval_corpora.items():
        known = [variant for owner, variant in models if owner == corpus]
        for variant in variants:
            if variant not in known:
                hint = suggest(variant, sorted(known))
                problems.append(f"retrieval_corpora.{corpus}: no model {variant!r}{hint}")
        if not variants:
            problems.append(f"retrieval_corpora.{corpus}: names no variant")
    return problems
