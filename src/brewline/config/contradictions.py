"""The cross-checks of `params.yaml`: well typed, but refers to something that is not there."""

import importlib.util
import re
from urllib.parse import urlsplit

from brewline.config.acoustic_checks import bad_acoustic, bad_augmentation, bad_encoded
from brewline.config.choices import suggest
from brewline.config.experiment_checks import (
    bad_experiments,
    bad_external,
    bad_recipes,
    bad_tables,
    bad_variants,
)
from brewline.config.probe_checks import bad_probes
from brewline.config.recipes import NONE
from brewline.config.schema import Params
from brewline.config.sound_checks import bad_sound_encoders, bad_sound_tables
from brewline.config.sources import OBJECT_STORES, READER_OPTIONS, FileParams


def contradictions(params: Params) -> list[str]:
    """Whatever is well typed but refers to something that is not there."""
    return [
        *_bad_sources(params),
        *_unknown_corpora(params),
        *_bad_files(params),
        *_bad_watched(params),
        *_bad_recognition(params),
        *bad_variants(params),
        *bad_acoustic(params),
        *bad_encoded(params),
        *bad_recipes(params),
        *bad_experiments(params),
        *bad_augmentation(params),
        *bad_external(params),
        *bad_tables(params),
        *bad_sound_encoders(params),
        *bad_sound_tables(params),
        *bad_probes(params),
        *_bad_measures(params),
        *_bad_limits(params),
        *_bad_names(params),
        *_bad_engine(params),
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
        f"validate_of: unknown corpus {corpus!r}{suggest(corpus, list(params.sources))}"
        for corpus in params.validate_of
        if corpus not in params.sources
    ]
    if NONE in params.corpora:
        problems.append(f"corpora: {NONE!r} is taken; call the corpus something else")
    return problems


def _bad_files(params: Params) -> list[str]:
    problems = []
    for corpus, source in params.sources.items():
        for name, file in source.files.items():
            scheme = urlsplit(file.url).scheme
            is_stored = scheme in OBJECT_STORES
            elsewhere = not is_stored and not _is_local(file)
            is_prefix = is_stored and file.url.endswith("/")
            if (file.in_place or is_prefix) and (elsewhere or file.mirrors):
                problems.append(
                    f"sources.{corpus}.files.{name}: in_place needs a path, file://, s3://, gs:// "
                    "or az://, and no mirrors"
                )
    return problems


def _is_local(file: FileParams) -> bool:
    return "://" not in file.url or file.url.startswith("file://")


def _bad_watched(params: Params) -> list[str]:
    """What has to be looked at and is not, and what there is nothing to look at for."""
    problems = []
    for corpus in params.watched:
        if corpus not in params.corpora:
            hint = suggest(corpus, params.corpora)
            problems.append(f"watched: {corpus!r} is none of `corpora`{hint}")
        elif corpus in params.sources and not any(
            _is_local(file) for file in params.sources[corpus].files.values()
        ):
            problems.append(f"watched: no file of {corpus} lies on this machine")
    problems += [
        f"watched: lacks {corpus}, which reads {name} where it lies"
        for corpus in params.corpora
        if corpus in params.sources and corpus not in params.watched
        for name, file in params.sources[corpus].files.items()
        if file.in_place and _is_local(file)
    ]
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
        "watched": [*params.watched],
        "probed_corpora": [*params.probed_corpora],
        "augmented_corpora": [*params.augmented_corpora],
        "evaluate.recall_at": [*params.evaluate.recall_at],
    }
    lists |= {f"recipes.{name}.seeds": [*params.seeds_of_recipe(name)] for name in params.recipes}
    lists |= {f"tables.{name}.rows": [*one.rows.values()] for name, one in params.tables.items()}
    for name, one in params.sound_tables.items():
        lists |= {f"sound_tables.{name}.rows": [*one.rows.values()]}
    for name, probe in params.probes.items():
        lists |= {
            f"probes.{name}.labels": [*probe.labels],
            f"probes.{name}.protocols": [*probe.protocols],
            f"probes.{name}.rows": [*probe.rows.values()],
            f"probes.{name}.seeds": [*probe.seeds],
        }
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
    for key, names in (
        ("sources", [*params.sources]),
        ("encoded", [*params.encoded]),
        ("experiments", [*params.experiments]),
        ("external", [*params.external]),
        ("tables", [*params.tables]),
        ("sound_tables", [*params.sound_tables]),
        ("probes", [*params.probes]),
    ):
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


def _bad_engine(params: Params) -> list[str]:
    problems = []
    if params.runtime.engine == "ray" and importlib.util.find_spec("ray") is None:
        problems.append(
            "runtime.engine: 'ray' needs Ray, which is not installed: `uv pip install '.[ray]'`"
        )
    address = params.runtime.ray_address
    if not re.fullmatch(r"local|auto|[^/\s]+:\d+", address):
        hint = "; that of a Ray client will not do" if address.startswith("ray://") else ""
        problems.append(
            f"runtime.ray_address: {address!r} is neither local, nor auto, nor the address of the "
            f"cluster's head, as head:6379{hint}"
        )
    return problems
