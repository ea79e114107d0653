"""`params.yaml` is read strictly, and its mistakes are explained."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from brewline.config import load_params, load_versions, parse_params
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
    assert "full" in params.retrieval_corpora["mini-lncoco"]


def test_a_misspelt_key_names_the_likely_one_and_the_known_ones(values: dict[str, Any]) -> None:
    values["train"]["alhpa"] = values["train"].pop("alpha")
    with pytest.raises(BrewlineError) as error:
        parse_params(values)
    assert "train.alhpa: unknown key; did you mean 'alpha'? known: seeds, steps" in str(error.value)
    assert "train.alpha: is missing" in str(error.value)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("train", "steps", "many", "train.steps: 'many': input should be a valid integer"),
        ("train", "alpha", 1.5, "train.alpha: 1.5: input should be less than or equal to 1"),
        ("asr", "audio_context", "half", "asr.audio_context: 'half': input should be 'full' or"),
        ("asr", "precision", "int8", "asr.precision: 'int8' needs asr.engine: faster-whisper"),
        ("asr", "states", "all", "asr.states: 'all' needs asr.audio_context: full"),
        ("asr", "temperatures", [0.4, 0.0], r"asr.temperatures: \[0.4, 0.0\] do not rise"),
        ("train", "seeds", [1, 1], "train.seeds: names 1 twice"),
        ("train", "seeds", [-1], r"train.seeds.0: -1: input should be greater than or equal to 0"),
        ("train", "warmup_steps", 61, "warmup_steps: 61 are more than train.steps, 60"),
        ("train", "batch_size", 1, "train.batch_size: 1 holds no wrong answer"),
        ("train", "learning_rate", float("nan"), "train.learning_rate: nan: input should be a fin"),
        ("train", "weight_decay", float("inf"), "train.weight_decay: inf: input should be a fin"),
        ("evaluate", "recall_at", [5, 10], r"evaluate.recall_at: \[5, 10\] lacks 1"),
        ("evaluate", "recall_at", [1, 5, 5], "evaluate.recall_at: names 5 twice"),
        ("evaluate", "confidence", 0.0, "evaluate.confidence: 0.0: input should be greater than 0"),
        ("evaluate", "confidence", 1.0, "evaluate.confidence: 1.0: input should be less than 1"),
        ("evaluate", "bootstrap_seed", -1, "evaluate.bootstrap_seed: -1: input should be greater"),
        ("acoustic", "padding_mask", "none", "asr.states: 'valid' stores nothing; set asr.states:"),
        ("validate", "max_duration_s", 0.2, "max_duration_s: nothing lies between 0.3 and 0.2"),
        (
            "validate",
            "median_duration_s",
            [60.0, 0.5],
            "median_duration_s: nothing lies be",
        ),
    ],
)
def test_a_bad_value_names_the_key_and_the_choices(
    values: dict[str, Any], section: str, key: str, value: object, message: str
) -> None:
    values[section][key] = value
    with pytest.raises(BrewlineError, match=message):
        parse_params(values)


def test_the_row_that_others_are_compared_with_is_not_trained(values: dict[str, Any]) -> None:
    values["variants"]["zero-shot"] |= {"trained": True, "prompts": 4}
    with pytest.raises(BrewlineError, match=r"variants\.zero-shot: is trained, but tables compare"):
        parse_params(values)


def test_names_are_told_apart_by_disks_that_ignore_capitals(values: dict[str, Any]) -> None:
    values["variants"]["Full"] = values["variants"]["full"]
    with pytest.raises(BrewlineError, match=r"variants\.Full: differs from 'full' in capitals"):
        parse_params(values)


def test_a_corpus_is_named_once(values: dict[str, Any]) -> None:
    values["corpora"].append("mini-lncoco")
    values["retrieval_corpora"]["mini-lncoco"].append("full")
    with pytest.raises(BrewlineError) as error:
        parse_params(values)
    assert "corpora: names mini-lncoco twice" in str(error.value)
    assert "retrieval_corpora.mini-lncoco: names full twice" in str(error.value)


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


def test_an_option_that_a_reader_does_not_take_is_an_error(values: dict[str, Any]) -> None:
    values["sources"]["mini-ravdess"]["subset"] = "coco"
    message = "mini-ravdess.subset: reader 'ravdess' does not take it; it takes dev_fraction, dev_s"
    with pytest.raises(BrewlineError, match=message):
        parse_params(values)


def merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Values with some keys changed; lists of models and corpora as a whole."""
    whole = ("retrieval_corpora", "models")
    return values | {
        key: merge(values.get(key, {}), change)
        if isinstance(change, dict) and key not in whole
        else change
        for key, change in changes.items()
    }


def test_the_examples_of_the_guide_are_valid(values: dict[str, Any]) -> None:
    guide = (PROJECT / "docs/guide.md").read_text()
    source, imported, flickr, own = (
        yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", guide, re.S)
    )
    recordings = parse_params(merge(values, source)).sources["lncoco"].recordings
    assert recordings and recordings.path_rule == "as_listed"
    assert len(parse_params(merge(values, imported)).sources["flickr8k"].transcripts) == 1
    params = parse_params(merge(values, flickr))
    assert params.models.all().keys() == {"flickr8k-zero-shot", "flickr8k-full"}
    params = parse_params(merge(values, own))
    assert params.sources["mine"].index == "index.csv"
    assert params.models.all().keys() == {"mine-zero-shot", "mine-full"}
    nothing = {"retrieval_corpora": {}, "models": {group: {} for group in values["models"]}}
    assert not parse_params(merge(values, own | nothing)).models.all()


def test_every_reader_can_be_loaded() -> None:
    assert list(LOADED) == list(READER_OPTIONS)


def test_a_model_in_the_wrong_list_is_told_the_right_one(values: dict[str, Any]) -> None:
    lists = values["models"]
    lists["text"]["mini-lncoco-full"] = lists["text_acoustic"].pop("mini-lncoco-full")
    with pytest.raises(BrewlineError, match=r"'full' belongs in models\.text_acoustic"):
        parse_params(values)


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
        ("transcribe: 1\nshard: 1\ntrain: 1.5\n", "train: 1.5: input should be a valid integer"),
        ("transcribe: 0\nshard: 1\ntrain: 1\n", "transcribe: 0: input should be greater than or"),
        ("transcribe: 1\nshrad: 1\ntrain: 1\n", "shrad: unknown key; did you mean 'shard'? known:"),
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
    [("asr", "batch_limit_s"), ("asr", "max_failure_rate"), ("validate", "decode_limit_s")],
)
def test_guards_are_in_no_section_that_makes_results_stale(
    values: dict[str, Any], section: str, key: str
) -> None:
    values[section][key] = 1.0
    with pytest.raises(BrewlineError, match=f"{section}.{key}: unknown key"):
        parse_params(values)
