"""The parameters of the pipeline: `params.yaml`, read strictly.

Every value that matters stands in `params.yaml`, so the classes here have no defaults, but for
keys that only some corpora have. An unknown key, a missing one or a wrong type is an error that
names the key, the value and the choices.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from brewline.core.errors import BrewlineError

PARAMS_FILE = Path("params.yaml")

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
OnFailure = Literal["keep", "drop", "stop"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Bounds = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=2)]
Splits = Annotated[str, Field(pattern=r"^(train|dev|test)(\+(train|dev|test))*$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FileParams(_Section):
    """Where a file comes from. `sha256` may be null for a source that publishes none."""

    # A path, file://, http://, https://, hf:// or s3://.
    url: str
    sha256: Sha256 | None
    # Other places of the same file, tried in order.
    mirrors: list[str] = []
    # In bytes.
    size: Annotated[int, Field(ge=0)] | None = None
    # Read where it lies instead of copied. A folder always is.
    in_place: bool = False


class RecordingsParams(_Section):
    """Recordings that are published one by one; the corpus' JSONL annotations name them."""

    # What the recording's path is appended to, so it ends with a slash.
    base_url: Annotated[str, Field(pattern=r"^https?://.+/$")]
    # as_listed: the field `voice_recording` is the path; by_image: it is rebuilt from the field.
    path_rule: Literal["as_listed", "by_image"]
    files_per_archive: PositiveInt
    # Share of the recordings that may be missing; above it, the download fails.
    max_failed_fraction: Fraction


# The readers in `brewline.corpora`, and which of the options of a source each one takes.
READERS: dict[str, tuple[str, ...]] = {
    "flickr8k": (),
    "spokencoco": ("split", "dev_fraction", "dev_seed"),
    "localized_narratives": ("subset", "dev_fraction", "dev_seed"),
    "ravdess": ("dev_fraction", "dev_seed"),
    "folder": ("index", "dev_fraction", "dev_seed"),
}


class ExpectedParams(_Section):
    """What a corpus publishes about itself: counts of what it lists, whatever is dropped later.

    Keys are splits; `train+dev` is the two together.
    """

    utterances: dict[Splits, PositiveInt] = {}
    images: dict[Splits, PositiveInt] = {}
    # Share of a count by which it may differ.
    tolerance: Fraction


class SourceParams(_Section):
    """A published corpus: which reader understands it, and the files it consists of."""

    # One of `READERS`.
    reader: str
    licence: str
    # Whether you accept the licence, where it has to be accepted; absent where it has not.
    accept_licence: bool | None = None
    files: dict[str, FileParams]
    recordings: RecordingsParams | None = None
    # Of `files`, those with transcripts that are taken instead of Whisper's.
    transcripts: list[str] = []
    # Share of the training images (or speakers) held out for dev where no dev split is published.
    dev_fraction: Fraction | None = None
    # Chooses which ones; 0 where it is not set.
    dev_seed: int | None = None
    # SpokenCOCO: the archive's own parts, or the split of the papers.
    split: Literal["own", "karpathy"] | None = None
    # Localized Narratives: whose pictures are described; COCO's where it is not set.
    subset: Literal["coco", "open_images", "flickr30k", "ade20k"] | None = None
    # A corpus of your own: the name of the table that lists it.
    index: str | None = None
    # What it publishes about itself.
    expected: ExpectedParams | None = None


class BackboneParams(_Section):
    """A frozen backbone.

    `source` of Whisper is a checkpoint (a path or URL) or `openai-whisper:<name>`; of CLIP, a
    folder in open_clip's format or `open_clip:<architecture>/<pretrained tag>`. Files may be
    compressed with xz. `sha256` is over the file, or over the names and contents of the folder.
    """

    name: str
    source: str
    sha256: Sha256 | None


class BackbonesParams(_Section):
    """The two frozen backbones."""

    whisper: BackboneParams
    clip: BackboneParams


class ValidateParams(_Section):
    """Thresholds of the checks on every utterance, and of the expectations on a corpus."""

    min_duration_s: PositiveFloat
    max_duration_s: PositiveFloat
    min_sample_rate_hz: PositiveInt
    max_channels: PositiveInt
    max_non_finite_fraction: Fraction
    silence_dbfs: Annotated[float, Field(lt=0)]
    max_clipped_fraction: Fraction
    max_dc_offset: Fraction
    max_duration_mismatch_s: PositiveFloat
    require_stream_end: bool
    min_image_side_px: PositiveInt
    # Recordings that are equal to the byte under several ids: named, or dropped but for the first.
    duplicate_audio: Literal["report", "quarantine"]
    # A file that takes a decoder longer than this is given up.
    decode_limit_s: PositiveFloat
    max_quarantine_rate: Fraction
    # Bounds of a corpus' medians: [at least, at most].
    median_duration_s: Bounds
    median_caption_words: Bounds
    # Great Expectations' own pages beside ours; unlike ours they load scripts from the network.
    data_docs: bool


class AsrParams(_Section):
    """How Whisper is run over a corpus."""

    # openai-whisper: its own modules; faster-whisper: the engine CTranslate2, an extra to install.
    engine: Literal["openai-whisper", "faster-whisper"]
    language: str
    # full: every window is padded to Whisper's 30 s; utterance: to the longest of its batch.
    audio_context: Literal["full", "utterance"]
    # Encoder frames that are stored. valid: the recording's own; all: those of padding too, as the
    # paper has them.
    states: Literal["valid", "all"]
    # Windows at a time.
    batch_size: PositiveInt
    # auto: what the device does best; int8 is for faster-whisper.
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"]
    # Hypotheses at temperature 0; 1 is greedy.
    beam_size: PositiveInt
    # Where the text of a window is cut off at the latest.
    max_tokens: PositiveInt
    # The first is that of every window; the next ones, in turn, of those that the safeguards doubt.
    temperatures: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]
    # The safeguards, as in openai-whisper's `transcribe`: a text is doubted below this average
    # log-probability or above this compression ratio; below the one and with a no-speech
    # probability above its threshold, the window is silent.
    logprob_threshold: Annotated[float, Field(le=0)]
    max_compression_ratio: PositiveFloat
    no_speech_threshold: Fraction
    # A phrase said so many times in a row is a loop: it is kept once, and the text is doubted.
    max_repeats: Annotated[int, Field(ge=2)]
    # A batch that takes longer is split; a recording alone is given up.
    batch_limit_s: PositiveFloat
    # A recording that cannot be recognised: keep, with an empty text and whatever the encoder
    # made of it; drop it from the shards; or stop.
    on_failure: OnFailure
    max_failure_rate: Fraction


class ShardParams(_Section):
    """Layout of the WebDataset shards."""

    utterances_per_shard: PositiveInt
    image_short_side_px: PositiveInt
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]


class VariantParams(_Section):
    """One row of the results table: switches of the one model class (BrewCLIP, Table 2)."""

    text: bool
    acoustic: bool
    prompts: Annotated[int, Field(ge=0)]
    transcript: Literal["asr", "caption"]
    trained: bool

    @property
    def group(self) -> str:
        """The list of `models` that this variant belongs to, by the parameters it depends on."""
        if not self.trained:
            return "untrained"
        return {(True, False): "text", (False, True): "acoustic", (True, True): "text_acoustic"}[
            self.text, self.acoustic
        ]


class ModelParams(_Section):
    """One model to make: a variant on a corpus."""

    corpus: str
    variant: str


class ModelLists(_Section):
    """The models that `dvc repro` makes, grouped by the parameters that they depend on."""

    untrained: dict[str, ModelParams]
    text: dict[str, ModelParams]
    acoustic: dict[str, ModelParams]
    text_acoustic: dict[str, ModelParams]

    def all(self) -> dict[str, ModelParams]:
        """Every model by name, in the order of the lists."""
        return {**self.untrained, **self.text, **self.acoustic, **self.text_acoustic}


class AcousticParams(_Section):
    """The acoustic branch (BrewCLIP, section 3.2; layout from the authors' code)."""

    layers: PositiveInt
    heads: PositiveInt
    feedforward_width: PositiveInt
    dropout: Fraction
    # Encoder frames averaged into one before the branch; 1 keeps Whisper's 50 frames a second.
    pool_frames: PositiveInt
    # Which frames are attended to: those of the recording, or also those of the padding.
    padding_mask: Literal["valid", "none"]


class TrainParams(_Section):
    """The training loop (BrewCLIP, section 4; learning-rate schedule from the authors' code)."""

    seeds: Annotated[list[int], Field(min_length=1)]
    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_steps: Annotated[int, Field(ge=0)]
    grad_clip: PositiveFloat
    alpha: Fraction
    temperature: PositiveFloat
    learn_temperature: bool
    mask_same_image: bool
    precision: Precision
    evaluate_every: PositiveInt


class EvaluateParams(_Section):
    """What is measured on dev and test."""

    batch_size: PositiveInt
    recall_at: Annotated[list[PositiveInt], Field(min_length=1)]
    bootstrap_samples: PositiveInt
    bootstrap_seed: int
    confidence: Fraction
    num_examples: PositiveInt


class RuntimeParams(_Section):
    """How the machine is used; no stage depends on it.

    Nothing here changes what is computed. `train_workers` changes how many threads compute it, and
    so, on a processor, the last digits of a sum.
    """

    # Files that are downloaded at a time.
    download_workers: PositiveInt
    validate_workers: PositiveInt
    # Processes that recognise speech, where there is no GPU.
    transcribe_workers: PositiveInt
    # Processes that train a seed each, where there is no GPU.
    train_workers: PositiveInt
    # Training steps between checkpoints: what a killed run has to do again at most.
    checkpoint_every: PositiveInt
    # Memory for decoded images during training and evaluation.
    image_cache_mb: Annotated[int, Field(ge=0)]


class TrackingParams(_Section):
    """MLflow."""

    experiment: str
    system_metrics: bool


class Params(_Section):
    """Everything in `params.yaml`."""

    corpora: list[Name]
    # The corpora with images; for each, the variants that are the rows of its results table.
    retrieval_corpora: dict[Name, list[Name]]
    sources: dict[Name, SourceParams]
    backbones: BackbonesParams
    # `validate` itself is taken: it is a method of every pydantic model.
    validation: ValidateParams = Field(alias="validate")
    asr: AsrParams
    shard: ShardParams
    variants: dict[Name, VariantParams]
    models: ModelLists
    acoustic: AcousticParams
    train: TrainParams
    evaluate: EvaluateParams
    runtime: RuntimeParams
    tracking: TrackingParams


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Reads and checks `params.yaml`.

    Raises:
        BrewlineError: naming every bad key with its value and the choices.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BrewlineError(
            f"{path} is not here; run this from the project's folder", "settings"
        ) from None
    except yaml.YAMLError as error:
        raise BrewlineError(f"{path} is not valid YAML: {error}", "settings") from None
    return parse_params(values, str(path))


def parse_params(values: Any, where: str = "params.yaml") -> Params:
    """Checks values as read from YAML; see `load_params`."""
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise BrewlineError(
            "\n  ".join([f"{where} is not valid:", *_explain(error)]), "settings"
        ) from None
    problems = list(_contradictions(params))
    if problems:
        raise BrewlineError("\n  ".join([f"{where} is not valid:", *problems]), "settings")
    return params


def choose(kind: str, name: str, known: list[str]) -> str:
    """Returns `name` if it is one of `known`.

    Raises:
        BrewlineError: naming the known ones, and the likely one.
    """
    if name in known:
        return name
    raise BrewlineError(f"unknown {kind} {name!r}{_hint(name, known)}", "settings")


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{guess} known: {', '.join(known) or 'none'}"


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """The keys that the section at `location` may have; follows the classes' annotations."""
    section: Any = Params
    for part in location:
        if get_origin(section) is dict:
            section = get_args(section)[1]
        else:
            section = _keys_of(section).get(part)
    return list(_keys_of(section))


def _keys_of(section: Any) -> dict[str, Any]:
    known = getattr(section, "model_fields", {})
    return {field.alias or name: field.annotation for name, field in known.items()}


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        location = problem["loc"]
        key = ".".join(str(part) for part in location)
        if problem["type"] == "extra_forbidden":
            hint = _hint(str(location[-1]), _known_keys(location[:-1]))
            lines.append(f"{key}: unknown key{hint}")
        elif problem["type"] == "missing":
            lines.append(f"{key}: is missing")
        else:
            message = problem["msg"]
            lines.append(f"{key}: {problem['input']!r}: {message[0].lower()}{message[1:]}")
    return lines


def _contradictions(params: Params) -> list[str]:
    """Whatever is well typed but refers to something that is not there."""
    return [
        *_bad_sources(params),
        *_unknown_corpora(params),
        *_bad_files(params),
        *_bad_models(params),
        *_bad_variants(params),
        *_bad_rows(params),
        *_bad_recognition(params),
    ]


def _bad_sources(params: Params) -> list[str]:
    problems = []
    options = {option for taken in READERS.values() for option in taken}
    for name, source in params.sources.items():
        if source.reader not in READERS:
            hint = _hint(source.reader, list(READERS))
            problems.append(f"sources.{name}.reader: unknown reader {source.reader!r}{hint}")
            continue
        problems += [
            f"sources.{name}.{option}: reader {source.reader!r} does not take it; it takes "
            f"{', '.join(READERS[source.reader]) or 'no options'}"
            for option in sorted(options & source.model_fields_set - {*READERS[source.reader]})
        ]
    return problems


def _unknown_corpora(params: Params) -> list[str]:
    problems = [
        f"corpora: unknown corpus {corpus!r}{_hint(corpus, list(params.sources))}"
        for corpus in params.corpora
        if corpus not in params.sources
    ]
    problems += [
        f"retrieval_corpora: {corpus!r} is not in corpora{_hint(corpus, params.corpora)}"
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
                hint = _hint(model.corpus, list(params.retrieval_corpora))
                problems.append(f"{key}: unknown retrieval corpus {model.corpus!r}{hint}")
            elif model.variant not in params.variants:
                hint = _hint(model.variant, list(params.variants))
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
    if len(set(params.train.seeds)) != len(params.train.seeds):
        problems.append(f"train.seeds: {params.train.seeds} names a seed twice")
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
                hint = _hint(variant, sorted(known))
                problems.append(f"retrieval_corpora.{corpus}: no model {variant!r}{hint}")
        if not variants:
            problems.append(f"retrieval_corpora.{corpus}: names no variant")
    return problems
