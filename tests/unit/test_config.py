"""`params.yaml` is read strictly, and its mistakes are explained."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from brewline.config import contradictions, load_params, load_versions, parse_params
from brewline.config.sources import READER_OPTIONS
from brewline.core.errors import BrewlineError
from brewline.corpora.readers import READERS as LOADED

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PROJECT / "params.yaml").read_text())
    return loaded


def test_the_shipped_file_is_valid() -> None:
    params = load_params(PROJECT / "params.yaml")
    assert "full" in params.tables["mini-lncoco"].rows


def test_a_misspelt_key_names_the_likely_one_and_the_known_ones(values: dict[str, Any]) -> None:
    recipe = values["recipes"]["mini"]
    recipe["stesp"] = recipe.pop("steps")
    with pytest.raises(BrewlineError) as error:
        parse_params(values)
    assert "recipes.mini.stesp: unknown key; did you mean 'steps'? known: seeds, steps, batch" in (
        str(error.value)
    )
    assert "recipes.mini.steps: is missing" in str(error.value)


def put(values: dict[str, Any], key: str, value: object) -> None:
    """Sets a value by its dotted name; `GONE` takes it away."""
    *sections, last = key.split(".")
    for section in sections:
        values = values[section]
    if value is GONE:
        del values[last]
    else:
        values[last] = value


GONE = object()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("recipes.mini.steps", "many", "mini.steps: 'many': input should be a valid integer"),
        ("recipes.mini.seeds", [1, 1], "recipes.mini.seeds: names 1 twice"),
        ("validate_of", {"mini-ravdes": {}}, "unknown corpus 'mini-ravdes'; did you mean 'mini-"),
        ("validate_of.mini-ravdess", {"max_quarantine_rate": 2}, "max_quarantine_rate: 2: input"),
        ("validate_of.mini-ravdess", {"min_duration_s": 2.0}, "mini-ravdess.min_duration_s"),
        ("recipes.mini.seeds", [-1], "recipes.mini.seeds.0: -1: input should be greater than or"),
        ("recipes.mini.warmup_steps", 6000, "6000 are more than recipes.mini.steps"),
        ("recipes.mini.batch_size", 1, "recipes.mini.batch_size: 1 holds no wrong answer"),
        ("recipes.mini.learning_rate", float("nan"), "mini.learning_rate: nan: input should be a"),
        ("recipes.mini.weight_decay", float("inf"), "mini.weight_decay: inf: input should be a"),
        ("recipes.none", {}, "recipes.none.seeds: is missing"),
        ("recipes.none", GONE, "experiments.mini-flickr8k-zero-shot.recipe: unknown recipe 'none'"),
        ("recipes.mini", None, "recipes.mini: is empty; only none may be"),
        ("variants.full.alpha", 1.5, "alpha: 1.5: input should be less than or equal to 1"),
        ("variants.full.alpha", GONE, "variants.full.alpha: is missing; it weighs the loss"),
        ("variants.e2e.fusion", "gate", "'gate' joins two channels, and this variant has one"),
        ("variants.full.fusion", "product", "fusion: 'product'"),
        ("variants.e2e.long_texts", "chunk", "long_texts: 'chunk' needs a text channel"),
        ("variants.zero-shot.prompt_depth", 2, "prompt_depth: 2 needs prompts"),
        ("variants.full.pictures", "stretch", "pictures: 'stretch'"),
        ("recipes.mini.same_image", True, "recipes.mini.same_image"),
        ("variants.e2e.alpha", 0.1, "variants.e2e.alpha: weighs a loss between two channels"),
        ("variants.e2e.acoustic", None, "variants.e2e: needs a channel: text, acoustic or both"),
        ("variants.full.text", "captions", "full.text: 'captions': input should be 'asr' or 'cap"),
        ("variants.full.acoustic.padding_mask", "none", "stores nothing; set asr.states: all"),
        ("variants.full.acoustic.encoder", "wav2vec", "acoustic.encoder: 'wav2vec': input should"),
        (
            "variants.full.acoustic.encoder",
            "hubert",
            "full.states: must be one of `encoded` with data: mini-flickr8k, encoder: hubert, po",
        ),
        ("variants.full.acoustic.learn_layers", False, "'whisper' has one layer"),
        ("variants.full.acoustic.branch", "parallel", "'parallel' has no place for prompts"),
        ("variants.full.acoustic.feedforward_width", GONE, "feedforward_width: is missing"),
        (
            "variants.full.acoustic.keywords",
            8,
            "branch 'brewclip' says none; they are for cascaded",
        ),
        ("variants.full.acoustic.crop_s", 0.0, "crop_s: 0.0: input should be greater than 0"),
        (
            "encoded.mini-flickr8k",
            {"data": "mini-flickr8k", "encoder": "whisper_layers", "pool_frames": 1},
            "encoded.mini-flickr8k: a corpus has that name",
        ),
        (
            "encoded.layers",
            {"data": "flickr", "encoder": "whisper_layers", "pool_frames": 1},
            "encoded.layers.data: unknown corpus 'flickr'",
        ),
        (
            "encoded.heard",
            {"data": "mini-flickr8k", "encoder": "hubert", "pool_frames": 1},
            "name them under backbones.hubert",
        ),
        ("asr.audio_context", "half", "asr.audio_context: 'half': input should be 'full' or"),
        ("asr.precision", "int8", "asr.precision: 'int8' needs asr.engine: faster-whisper"),
        ("asr.states", "all", "asr.states: 'all' needs asr.audio_context: full"),
        ("runtime.ray_address", "head", "runtime.ray_address: 'head' is neither local, nor auto"),
        ("runtime.ray_address", "ray://head:10001", "that of a Ray client will not do"),
        ("asr.temperatures", [0.4, 0.0], "asr.temperatures: [0.4, 0.0] do not rise"),
        ("evaluate.recall_at", [5, 10], "evaluate.recall_at: [5, 10] lacks 1"),
        ("evaluate.recall_at", [1, 5, 5], "evaluate.recall_at: names 5 twice"),
        ("evaluate.confidence", 0.0, "evaluate.confidence: 0.0: input should be greater than 0"),
        ("evaluate.confidence", 1.0, "evaluate.confidence: 1.0: input should be less than 1"),
        ("evaluate.bootstrap_seed", -1, "evaluate.bootstrap_seed: -1: input should be greater"),
        ("analyse.hit_at", 0, "analyse.hit_at: 0: input should be greater than or equal to 1"),
        (
            "analyse.num_shown",
            21,
            "analyse.num_shown: 21: input should be less than or equal",
        ),
        ("analyse.min_lost", 1.0, "analyse.min_lost: 1.0: input should be less than 1"),
        ("analyse.attention_queries", -1, "analyse.attention_queries: -1: input should be greater"),
        ("validate.max_duration_s", 0.2, "max_duration_s: nothing lies between 0.3 and 0.2"),
        ("validate.median_duration_s", [60.0, 0.5], "median_duration_s: nothing lies between"),
    ],
)
def test_a_bad_value_names_the_key_and_the_choices(
    values: dict[str, Any], key: str, value: object, message: str
) -> None:
    put(values, key, value)
    with pytest.raises(BrewlineError, match=re.escape(message)):
        parse_params(values)


@pytest.mark.parametrize(
    ("option", "value", "was"),
    [("loss", "sigmoid", "info_nce"), ("learn_temperature", False, True)],
)
def test_a_start_has_what_the_recipe_trains(
    values: dict[str, Any], option: str, value: object, was: object
) -> None:
    """Else the tensors of the one would not be those of the other."""
    values["recipes"]["again"] = {**values["recipes"]["mini"]}
    put(values, "experiments.mini-flickr8k-full-of-lncoco.recipe", "again")
    parse_params(values)
    put(values, f"recipes.again.{option}", value)
    message = (
        f"mini-flickr8k-full-of-lncoco.init: 'mini-lncoco-full' was trained with {option}: {was}, "
        f"and recipes.again has {option}: {value}"
    )
    with pytest.raises(BrewlineError, match=re.escape(message)):
        parse_params(values)


def test_an_engine_that_is_not_installed_is_told_before_anything_runs(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(values, "runtime.engine", "ray")
    parse_params(values)
    monkeypatch.setattr(contradictions.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BrewlineError, match=r"runtime.engine: 'ray' needs Ray.*\[ray\]"):
        parse_params(values)


FULL = "experiments.mini-lncoco-full"
PROBE = "probes.mini-ravdess"
ELSEWHERE = "experiments.mini-flickr8k-full-of-lncoco"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            f"{FULL}.task",
            "retrievel",
            f"{FULL}.task: 'retrievel': input should be 'retrieval', 'emo",
        ),
        (f"{FULL}.data", "mini-lcoco", "unknown corpus 'mini-lcoco'; did you mean 'mini-lncoco'?"),
        (f"{FULL}.variant", "ful", "unknown variant 'ful'; did you mean 'full'? known: zero-shot"),
        (f"{FULL}.recipe", "minni", "unknown recipe 'minni'; did you mean 'mini'? known: none"),
        (f"{FULL}.init", "full", f"{FULL}.init: unknown experiment 'full'"),
        (f"{FULL}.init", "mini-lncoco-full", f"{FULL}.init: it starts from itself, by way of"),
        (f"{FULL}.init", "mini-flickr8k-full-of-lncoco", f"{FULL}.init: it starts from itself"),
        (f"{FULL}.init", "mini-lncoco-prompted", "is of variant 'prompted', not 'full'"),
        (f"{FULL}.states", "none", f"{FULL}.states: must be mini-lncoco, since variant 'full' has"),
        (
            "experiments.mini-lncoco-prompted.states",
            "mini-lncoco",
            "prompted.states: must be none, since variant 'prompted' has no acoustic channel",
        ),
        (f"{ELSEWHERE}.init", "none", "variant 'full' has parameters that nothing trains"),
        (
            "experiments.mini-lncoco-zero-shot.recipe",
            "mini",
            "variant 'zero-shot' has nothing to train; set recipe: none, or give it prompts",
        ),
        (
            "experiments.mini-lncoco-zero-shot.init",
            "mini-flickr8k-zero-shot",
            "init: of 'mini-flickr8k-zero-shot' nothing is trained",
        ),
        ("experiments.backbones", {}, "experiments.backbones.task: is missing"),
        (
            "experiments.mini-ravdess-full.recipe",
            "mini",
            "mini-ravdess-full.fine_tuning: is missing; it says which emotions are learned",
        ),
        (
            "experiments.mini-lncoco-full.fine_tuning",
            {"labels": "paper4", "protocol": "by_speaker", "speaker_folds": 4},
            "mini-lncoco-full.fine_tuning: is for task emotion with a recipe; take it out",
        ),
        (
            "tables.mini-lncoco.rows.other",
            "mini-ravdess-full",
            "rows.other: 'mini-ravdess-full' is of task emotion, which stands under probes",
        ),
        ("probed_corpora", ["mini-raves"], "probed_corpora: unknown corpus 'mini-raves'; did you"),
        ("probed_corpora", [], "probes.mini-ravdess.data: 'mini-ravdess' is not among probed_corp"),
        ("probed_corpora", ["mini-ravdess"] * 2, "probed_corpora: names mini-ravdess twice"),
        (
            "augmented_corpora",
            ["mini-raves"],
            "augmented_corpora: unknown corpus 'mini-raves'; did",
        ),
        ("augmented_corpora", ["mini-ravdess"] * 2, "augmented_corpora: names mini-ravdess twice"),
        (
            f"{PROBE}.data",
            "mini-lncoco",
            f"{PROBE}.data: 'mini-lncoco' is not among probed_corpora",
        ),
        (f"{PROBE}.rows.full", "mini-ravdess-ful", "unknown experiment 'mini-ravdess-ful'; did yo"),
        (
            f"{PROBE}.rows.full",
            "mini-lncoco-full",
            "'mini-lncoco-full' is of another task; add an experiment with task: emotion, data: "
            "mini-ravdess, recipe: none and init: mini-lncoco-full",
        ),
        (f"{PROBE}.rows.again", "mini-ravdess-full", "rows: names mini-ravdess-full twice"),
        (f"{PROBE}.rows.whisper", "mini-ravdess-full", "something else stands under that name"),
        (f"{PROBE}.labels", ["paper"], "labels.0: 'paper': input should be 'paper4', 'strict4'"),
        (f"{PROBE}.labels", ["all8", "all8"], f"{PROBE}.labels: names all8 twice"),
        (f"{PROBE}.protocols", [], f"{PROBE}.protocols: []: list should have at least 1 item"),
        (f"{PROBE}.speaker_folds", 1, "speaker_folds: 1: input should be greater than or equal"),
        (f"{PROBE}.seeds", [1, 1], f"{PROBE}.seeds: names 1 twice"),
        ("tables.mini-lncoco.data", "mini-flickr9k", "tables.mini-lncoco.data: unknown corpus"),
        (
            "tables.mini-lncoco.rows.other",
            "mini-lncoco-ful",
            "rows.other: unknown experiment 'mini-lncoco-ful'; did you mean 'mini-lncoco-full'?",
        ),
        (
            "tables.mini-lncoco.rows.other",
            "mini-flickr8k-full",
            "is measured on mini-flickr8k; to measure its models on mini-lncoco, add an experiment "
            "with data: mini-lncoco, recipe: none and init: mini-flickr8k-full",
        ),
        ("tables.mini-lncoco.rows.asr", "mini-lncoco-full", "word error rates stand under that"),
        ("tables.mini-lncoco.rows.again", "mini-lncoco-full", "rows: names mini-lncoco-full twice"),
        ("tables.mini-lncoco.rows", {}, "tables.mini-lncoco.rows: {}: dictionary should have at"),
        ("tables.mini-lncoco.baseline", "zero", "baseline: no row 'zero'; did you mean 'zero-sh"),
        ("tables.mini-lncoco.compare", [["full", "ful"]], "compare: no row 'ful'; did you mean"),
        ("tables.mini-lncoco.compare", [["full", "full"]], "compare: compares 'full' with itself"),
    ],
)
def test_experiments_and_tables_that_do_not_fit_are_told_why(
    values: dict[str, Any], key: str, value: object, message: str
) -> None:
    put(values, key, value)
    with pytest.raises(BrewlineError, match=re.escape(message)) as error:
        parse_params(values)
    assert error.value.kind == "settings"


@pytest.mark.parametrize("name", ["backbones", "none"])
def test_names_that_are_taken_are_refused(values: dict[str, Any], name: str) -> None:
    values["experiments"][name] = values["experiments"]["mini-lncoco-full"]
    with pytest.raises(BrewlineError, match=f"experiments.{name}: that name is taken"):
        parse_params(values)
    del values["experiments"][name]
    if name == "none":
        values["corpora"].append(name)
        values["sources"][name] = values["sources"]["mini-lncoco"]
        with pytest.raises(BrewlineError, match="corpora: 'none' is taken"):
            parse_params(values)


def test_an_experiment_cannot_start_from_seeds_that_are_not_there(values: dict[str, Any]) -> None:
    values["recipes"]["more"] = values["recipes"]["mini"] | {"seeds": [0, 1, 7]}
    values["experiments"]["mini-flickr8k-full"] |= {"recipe": "more", "init": "mini-lncoco-full"}
    with pytest.raises(BrewlineError, match="'mini-lncoco-full' has no seed 7, which"):
        parse_params(values)


def test_seeds_and_training_data_come_from_where_a_model_was_trained(
    values: dict[str, Any],
) -> None:
    values["recipes"]["mini"]["seeds"] = [4, 2]
    params = parse_params(values)
    assert params.seeds_of("mini-flickr8k-full-of-lncoco") == [4, 2]
    assert params.trained_on("mini-flickr8k-full-of-lncoco") == "mini-lncoco"
    assert params.seeds_of("mini-lncoco-zero-shot") is None
    assert params.trained_on("mini-lncoco-zero-shot") is None
    assert params.row_of("mini-lncoco-full") == ("mini-lncoco", "full")
    assert "mini-flickr8k-full-of-lncoco" not in params.trained_rows("mini-flickr8k")


def test_names_are_told_apart_by_disks_that_ignore_capitals(values: dict[str, Any]) -> None:
    values["tables"]["Mini-lncoco"] = values["tables"]["mini-lncoco"]
    message = r"tables\.Mini-lncoco: differs from 'mini-lncoco' in capitals"
    with pytest.raises(BrewlineError, match=message):
        parse_params(values)


def test_a_corpus_is_named_once(values: dict[str, Any]) -> None:
    values["corpora"].append("mini-lncoco")
    with pytest.raises(BrewlineError, match="corpora: names mini-lncoco twice"):
        parse_params(values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x00\xff", "params.yaml is no text in UTF-8"),
        (b"a\x00b", "params.yaml is not valid YAML"),
        (b"", "params.yaml is empty, not keys with"),
        (b"- 1\n", "params.yaml is a list, not keys with"),
        (b"corpora", "params.yaml is a str, not keys with"),
    ],
)
def test_a_file_that_holds_no_parameters_is_one_sentence(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(BrewlineError, match=message):
        load_params(path)


def test_an_unknown_corpus_lists_the_known_ones(values: dict[str, Any]) -> None:
    values["corpora"].append("mini-lcoco")
    with pytest.raises(BrewlineError, match="did you mean 'mini-lncoco'"):
        parse_params(values)


def test_an_unknown_reader_lists_the_known_ones(values: dict[str, Any]) -> None:
    values["sources"]["mini-ravdess"]["reader"] = "ravdes"
    with pytest.raises(
        BrewlineError, match=r"'ravdes'; did you mean 'ravdess'\? known: flickr8k, "
    ):
        parse_params(values)


@pytest.mark.parametrize(
    ("corpora", "watched", "told"),
    [
        (["here"], [], "watched: lacks here, which reads a.tar where it lies"),
        (["here"], ["here", "her"], "watched: 'her' is none of `corpora`; did you mean 'here'?"),
        (["here", "far"], ["here", "far"], "watched: no file of far lies on this machine"),
        (["here"], ["here", "here"], "watched: names here twice"),
        ([], [], None),
        (["here", "far"], ["here"], None),
    ],
)
def test_what_is_read_in_place_is_watched_and_what_is_far_is_not(
    values: dict[str, Any], corpora: list[str], watched: list[str], told: str | None
) -> None:
    for name, url in (("here", "/data/a.tar"), ("far", "https://host/a.tar")):
        file = {"url": url, "sha256": None, "in_place": name == "here"}
        values["sources"][name] = {"reader": "ravdess", "licence": "x", "files": {"a.tar": file}}
    values |= {"corpora": corpora, "watched": watched, "experiments": {}, "tables": {}}
    values |= {"probed_corpora": [], "probes": {}, "sound_tables": {}}
    if told is None:
        assert parse_params(values).watched == watched
        return
    with pytest.raises(BrewlineError) as caught:
        parse_params(values)
    assert told in str(caught.value)


def test_an_option_that_a_reader_does_not_take_is_an_error(values: dict[str, Any]) -> None:
    values["sources"]["mini-ravdess"]["subset"] = "coco"
    message = "mini-ravdess.subset: reader 'ravdess' does not take it; it takes dev_fraction, dev_s"
    with pytest.raises(BrewlineError, match=message):
        parse_params(values)


def merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Values with some keys changed; experiments and tables as a whole."""
    whole = ("experiments", "tables", "sound_tables", "probes")
    return values | {
        key: merge(values.get(key) or {}, change)
        if isinstance(change, dict) and key not in whole
        else change
        for key, change in changes.items()
    }


def examples(path: str) -> list[dict[str, Any]]:
    """The parameters that a page shows."""
    text = (PROJECT / path).read_text()
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S)]


def test_the_examples_of_the_guide_are_valid(values: dict[str, Any]) -> None:
    # Two add rows to the shipped tables, which `merge` would replace.
    source, imported, _, heard, siglip, _, emotion, _, flickr, own = examples("docs/guide.md")
    corpora: dict[str, Any] = {"corpora": ["flickr8k"], "probed_corpora": []}
    corpora |= {"tables": {}, "sound_tables": {}, "probes": {}}
    params = parse_params(merge(values, heard | corpora))
    assert params.variant_of("flickr8k-speechclip-p").acoustic.encoder == "hubert"  # type: ignore[union-attr]
    assert "SigLIP" in parse_params(merge(values, siglip)).backbones.clip.source
    recordings = parse_params(merge(values, source)).sources["lncoco"].recordings
    assert recordings and recordings.path_rule == "as_listed"
    assert len(parse_params(merge(values, imported)).sources["flickr8k"].transcripts) == 1
    params = parse_params(merge(values, emotion))
    assert params.probes["ravdess"].protocols[0] == "emobox"
    assert params.seeds_of("ravdess-full") == [0, 1, 2]
    params = parse_params(merge(values, flickr))
    assert params.experiments.keys() == {"flickr8k-zero-shot", "flickr8k-full"}
    params = parse_params(merge(values, own))
    assert params.sources["mine"].index == "index.csv"
    assert params.watched == ["mine"]
    assert params.experiments.keys() == {"mine-zero-shot", "mine-full"}
    nothing: dict[str, Any] = {"experiments": {}, "tables": {}, "probes": {}}
    assert not parse_params(merge(values, own | nothing)).measured_corpora


def test_a_row_is_one_line_and_its_name_in_a_table(values: dict[str, Any]) -> None:
    """The example of the guide; what DVC makes of it: `tests/pipeline/test_dvc.py`."""
    row = examples("docs/guide.md")[2]
    (experiment,) = row["experiments"]
    values["experiments"] |= row["experiments"]
    ((name, table),) = row["tables"].items()
    values["tables"][name]["rows"] |= table["rows"]
    params = parse_params(values)
    assert params.row_of(experiment) == (name, "prompted-captions")
    assert params.seeds_of(experiment) == [0, 1]


def test_the_example_of_the_readme_is_valid(values: dict[str, Any]) -> None:
    (paper,) = examples("README.md")
    params = parse_params(merge(values, paper))
    assert params.measured_corpora == ["flickr8k"]
    assert params.seeds_of("flickr8k-full") == [0, 1, 2]


def test_the_corpora_of_the_page_on_sounds_are_valid(values: dict[str, Any]) -> None:
    shown = [one for one in examples("docs/sounds.md") if "sources" in one]
    parsed = [parse_params(merge(values, one)).sources for one in shown]
    assert [one["mine"].index for one in parsed[:2]] == [None, "clips.csv"]
    (published,) = parsed[2:]
    assert published["audiocaps"].release == "v1" and published["audioset"].exclude


def test_every_reader_can_be_loaded() -> None:
    assert list(LOADED) == list(READER_OPTIONS)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(BrewlineError, match="run this from the project's folder"):
        load_params(tmp_path / "params.yaml")


def test_the_versions_are_read(tmp_path: Path) -> None:
    assert load_versions(PROJECT / "versions.yaml").train >= 1
    with pytest.raises(BrewlineError, match="run this from the project's folder"):
        load_versions(tmp_path / "versions.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("transcribe: 1\nshard: 1\n", "train: is missing"),
        (
            "transcribe: 1\nshard: 1\nlayers: 1\nencode: 1\ntrain: 1.5\nembed: 1\n",
            "train: 1.5: input should be a valid integer",
        ),
        (
            "transcribe: 0\nshard: 1\ntrain: 1\nembed: 1\n",
            "transcribe: 0: input should be greater than or",
        ),
        (
            "transcribe: 1\nshrad: 1\ntrain: 1\nembed: 1\n",
            "shrad: unknown key; did you mean 'shard'? known:",
        ),
        ("", "versions.yaml is empty"),
    ],
)
def test_a_bad_version_names_the_key_and_the_choices(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "versions.yaml"
    path.write_text(text)
    with pytest.raises(BrewlineError, match=re.escape(message)) as error:
        load_versions(path)
    assert error.value.kind == "settings"


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("asr", "batch_limit_s"),
        ("asr", "max_failure_rate"),
        ("validate", "decode_limit_s"),
        ("evaluate", "batch_size"),
    ],
)
def test_guards_are_in_no_section_that_makes_results_stale(
    values: dict[str, Any], section: str, key: str
) -> None:
    values[section][key] = 1.0
    with pytest.raises(BrewlineError, match=f"{section}.{key}: unknown key"):
        parse_params(values)


@pytest.mark.parametrize(
    ("parallel_stages", "device", "has_gpu", "expected"),
    [
        ("auto", "auto", False, 2),
        ("auto", "auto", True, 1),
        ("auto", "cpu", True, 2),
        (3, "auto", True, 3),
    ],
)
def test_a_gpu_is_kept_busy_by_one_stage(
    values: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    parallel_stages: int | str,
    device: str,
    has_gpu: bool,
    expected: int,
) -> None:
    monkeypatch.setattr("brewline.config.runtime.has_gpu", lambda: has_gpu)
    values["runtime"] |= {"parallel_stages": parallel_stages, "device": device}
    assert parse_params(values).runtime.num_parallel_stages == expected


TUNED = {
    "task": "emotion",
    "data": "mini-ravdess",
    "states": "mini-ravdess",
    "variant": "full",
    "recipe": "mini",
    "init": "mini-lncoco-full",
    "fine_tuning": {"labels": "paper4", "protocol": "by_speaker", "speaker_folds": 4},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": "paper4"}, None),
        ({"labels": "all8"}, None),
        (
            {"protocol": "emobox"},
            "is fine-tuned on paper4 by emobox (speaker_folds: 4), which",
        ),
        ({"speaker_folds": 3}, "is fine-tuned on paper4 by by_speaker (speaker_folds: 3), which"),
        ({"speaker_folds": 1}, "fine_tuning.speaker_folds: 1: input should be greater than or"),
    ],
)
def test_a_probe_measures_what_was_fine_tuned_under_its_own_protocol(
    values: dict[str, Any], change: dict[str, Any], message: str | None
) -> None:
    tuning = TUNED["fine_tuning"] | change  # type: ignore[operator]
    values["experiments"]["tuned"] = TUNED | {"fine_tuning": tuning}
    put(values, f"{PROBE}.rows.tuned", "tuned")
    if message is None:
        parse_params(values)
        return
    with pytest.raises(BrewlineError, match=re.escape(message)):
        parse_params(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"augmented_corpora": []}, "augment: 'mini-ravdess' is not among augmented_corpora"),
        (
            {"experiments.tuned.states": "mini-ravdess"},
            "tuned.states: must be mini-ravdess-augmented, since variant 'full' has an acoustic",
        ),
        (
            {"experiments.tuned.fine_tuning.augment": False},
            "tuned.states: must be mini-ravdess, since variant 'full' has an acoustic channel",
        ),
        (
            {"experiments.tuned.variant": "prompted", "experiments.tuned.states": "none"},
            "augment: changes what Whisper's last layer hears",
        ),
        (
            {"asr.states": "all", "asr.audio_context": "full"},
            "augmented_corpora: needs asr.states: valid",
        ),
    ],
)
def test_changed_recordings_are_learned_from_where_they_are_made(
    values: dict[str, Any], changes: dict[str, Any], message: str | None
) -> None:
    tuning = {**TUNED["fine_tuning"], "augment": True}  # type: ignore[dict-item]
    one = TUNED | {"fine_tuning": tuning, "states": "mini-ravdess-augmented"}
    values["experiments"]["tuned"] = one
    values["augmented_corpora"] = ["mini-ravdess"]
    for key, value in changes.items():
        put(values, key, value)
    if message is None:
        parse_params(values)
        return
    with pytest.raises(BrewlineError, match=re.escape(message)):
        parse_params(values)


def test_nothing_starts_from_the_models_of_folds(values: dict[str, Any]) -> None:
    values["experiments"]["tuned"] = TUNED
    values["experiments"]["more"] = TUNED | {"init": "tuned"}
    with pytest.raises(BrewlineError, match="'tuned' has a model for each fold, and none to start"):
        parse_params(values)


ACOUSTIC = {"encoder": "hubert", "branch": "cascaded", "layers": 1, "heads": 1, "dropout": 0.1}
ACOUSTIC |= {"pool_frames": 1, "padding_mask": "valid", "keywords": 8}


@pytest.mark.parametrize(
    ("changes", "variant", "message"),
    [
        ({"keywords": GONE}, {}, "acoustic.keywords: is missing"),
        ({"layers": 2}, {}, "'cascaded' has one, without feedforward_width"),
        ({"feedforward_width": 9}, {}, "'cascaded' has one, without feedforward_width"),
        ({"padding_mask": "none"}, {}, "which Whisper's last layer alone has; set valid"),
        ({}, {"text": "asr", "alpha": 0.1}, "'cascaded' is the text channel itself"),
        ({}, {"prompts": 4}, "'cascaded' has no place for prompts"),
    ],
)
def test_a_cascaded_branch_that_cannot_be_is_refused(
    values: dict[str, Any], changes: dict[str, Any], variant: dict[str, Any], message: str
) -> None:
    acoustic = {**ACOUSTIC, **changes}
    acoustic = {key: value for key, value in acoustic.items() if value is not GONE}
    values["variants"]["heard"] = {"prompts": 0, **variant, "acoustic": acoustic}
    with pytest.raises(BrewlineError, match=message):
        parse_params(values)
