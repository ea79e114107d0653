"""What a run is about, in MLflow's words: its name, tags, parameters and the names of metrics.

MLflow sorts names, so they are made to be sorted: the few that people choose by come first
(`dev/...`), the rest stands under a prefix, and what was measured on test comes last, under a
prefix that says what it is for.
"""

from collections.abc import Mapping
from typing import Any

from brewline.config import Params
from brewline.config.probes import ProbeParams
from brewline.evaluation.scores import SELECTION_METRIC
from brewline.models.card import flatten
from brewline.models.names import model_name

# By these models are chosen; the first is what everything is sorted by.
HEADLINE = (
    SELECTION_METRIC,
    "dev/speech_to_image/recall_at_1",
    "dev/image_to_speech/any_hit_recall_at_1",
)
# In front of every metric of test: sorted last, and chosen by by nobody.
REPORT_ONLY = "z_report_only"
MORE = "more"
TRAINING = "training"
TRANSCRIPTION = "transcription"
GENERATED = (
    "A generated corpus: these numbers show that the pipeline works. They say nothing "
    "about real recordings and must not stand beside published ones."
)


def metric_in_mlflow(name: str) -> str:
    """What a metric of `history.jsonl` or `models.json` is called in MLflow."""
    if name in HEADLINE:
        return name
    if name.startswith("test/"):
        return f"{REPORT_ONLY}/{name}"
    if name.startswith("dev/"):
        return f"{MORE}/{name}"
    if name.startswith("asr/"):
        return f"{TRANSCRIPTION}/{name.removeprefix('asr/')}"
    return name if "/" in name else f"{TRAINING}/{name}"


def model_facts(params: Params, card: Mapping[str, Any]) -> dict[str, Any]:
    """What a run of a model is about: its card, and whether a program made its corpus."""
    source = params.sources.get(card["corpus"])
    return {**card, "synthetic": source is not None and source.synthetic}


def transcription_facts(params: Params, corpus: str, whisper: str, manifest: str) -> dict[str, Any]:
    """What a run of stage `transcribe` is about: its settings, and the hashes of what it reads."""
    return {
        "corpus": corpus,
        "synthetic": params.sources[corpus].synthetic,
        "asr": params.asr.model_dump(),
        "backbones": {"whisper": whisper},
        "data": {"manifest": manifest},
    }


def probe_facts(params: Params, name: str, probe: ProbeParams) -> dict[str, Any]:
    """What a run of stage `probe` is about: its settings."""
    return {
        "probe": name,
        "corpus": probe.data,
        "synthetic": params.sources[probe.data].synthetic,
        "settings": probe.model_dump(),
        "backbones": {},
    }


def external_facts(params: Params, name: str) -> dict[str, Any]:
    """What a run of vectors that others computed is about: where they are from."""
    one = params.external[name]
    return {
        "external": name,
        "corpus": one.data,
        "synthetic": params.sources[one.data].synthetic,
        "settings": one.model_dump(),
        "backbones": {},
    }


def probe_metric_in_mlflow(feature: str, metric: str) -> str:
    """What a number in `metrics/probe/<probe>.json` is called in MLflow, which knows no plus.

    All are of speakers who are held out, and nothing is chosen by them.
    """
    return f"{REPORT_ONLY}/{feature.replace('+', ' and ')}/{metric}"


def _is_model(facts: Mapping[str, Any]) -> bool:
    return "experiment" in facts


def run_name(facts: Mapping[str, Any]) -> str:
    """What a run is called: `full on mini-lncoco, seed 0`."""
    corpus = facts["corpus"]
    if "probe" in facts:
        return f"emotions heard in {corpus}, probe {facts['probe']}"
    if "external" in facts:
        return f"{facts['external']} on {corpus}, computed by others"
    if not _is_model(facts):
        return f"transcription of {corpus}"
    seed = "frozen" if facts["seed"] is None else f"seed {facts['seed']}"
    if facts.get("fine_tuned"):
        seed += f", fold {facts['fine_tuned']['fold']}"
    # Experiments are named after their corpus by habit, not by rule.
    return f"{facts['experiment'].removeprefix(f'{corpus}-')} on {corpus}, {seed}"


def model_key(facts: Mapping[str, Any]) -> str:
    """What `models.json` calls a model."""
    return f"{facts['experiment']}/{model_name(facts['seed'])}"


def facts_tags(facts: Mapping[str, Any]) -> dict[str, str]:
    """The tags that say what a run is about; equal for another try at the same."""
    tags = {"kind": "transcription"}
    for kind in ("probe", "external"):
        if kind in facts:
            tags = {"kind": kind, kind: facts[kind]}
    if _is_model(facts):
        tags = {"kind": "model", "seed": str(facts["seed"])}
        tags |= {name: facts[name] for name in ("experiment", "task", "variant")}
        tags |= {"trained_on": facts["trained_on"]} if facts["trained_on"] else {}
        tags |= {"init": facts["init"]["experiment"]} if facts["init"] else {}
        tags |= {"fold": str(facts["fine_tuned"]["fold"])} if facts.get("fine_tuned") else {}
    return tags | {
        "corpus": facts["corpus"],
        **{f"data.{name}": str(digest) for name, digest in (facts.get("data") or {}).items()},
    }


def facts_params(facts: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a run: `variant.*`, `recipe.*` and so on, as they stand in `params.yaml`."""
    sections = {
        "variant": facts.get("switches"),
        "recipe": facts.get("recipe"),
        "fine_tuned": facts.get("fine_tuned"),
        "asr": facts.get("asr"),
        "probe": facts.get("settings") if "probe" in facts else None,
        "external": facts.get("settings") if "external" in facts else None,
        "backbones": facts["backbones"],
    }
    params = {
        f"{section}.{name}": str(value)
        for section, values in sections.items()
        for name, value in flatten(values or {})
        if value is not None
    }
    # Of a model that is yet to be trained the number is not known, and MLflow takes no second one.
    number = facts.get("num_trained_parameters")
    if number or (number == 0 and facts.get("seed") is None):
        params["num_trained_parameters"] = str(number)
    return params
