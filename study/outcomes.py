"""What a finished part leaves: numbers by query, from which every metric and interval follows.

Queries have no names in it: utterances stand in the order of their ids, pictures too. `asked` is a
digest of these and of their word errors, so that models are compared on the same queries alone. Of
clips there are no words; `asked` is a digest of them and of how many captions each has.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brewline.config.experiments import SOUND_TASKS
from brewline.evaluation.outputs import IMAGE_TO_SPEECH, SPEECH_TO_IMAGE
from brewline.evaluation.scores import SELECTION_METRIC, score_retrieval
from brewline.evaluation.sound_scores import (
    IMAGE_METRIC,
    TEXT_METRIC,
    rank_sounds,
    right_times,
)
from brewline.evaluation.sound_vectors import load_sound_vectors
from brewline.evaluation.texts import read_word_errors
from brewline.evaluation.vectors import load_vectors
from brewline.models.card import load_card
from brewline.models.names import model_folder, model_names
from brewline.probing.inputs import POOLINGS, WHISPER, weighted_name
from brewline.probing.outputs import RUNS, read_rows
from brewline.speech.error_rates import Errors
from brewline.tables.manifest import holds_clips
from brewline.tables.parquet import read_table
from study.definition import Study, digest

_SPLIT = "test"
_SHOWN_OF_WHISPER = [weighted_name(pooling) for pooling in POOLINGS]


def corpus_outcome(study: Study, corpus: str) -> dict[str, Any]:
    """How large a corpus is, what was dropped, and how each utterance of test was heard."""
    project = study.workspace
    path = project / f"data/manifest/{corpus}.parquet"
    manifest = list(read_table(path))
    quarantine = read_table(project / f"data/quarantine/{corpus}.parquet")
    splits = sorted({row["split"] for row in manifest})
    by_split = {split: [one for one in manifest if one["split"] == split] for split in splits}
    found = {
        "num_utterances": {split: len(rows) for split, rows in by_split.items()},
        "num_images": {
            split: len({row["image_id"] for row in rows} - {None})
            for split, rows in by_split.items()
        },
        "hours": round(sum(row["duration_s"] for row in manifest) / 3600, 2),
        "quarantined": Counter(row["reason"] for row in quarantine),
    }
    tested = by_split.get(_SPLIT, [])
    if holds_clips(path):
        # In the order of the manifest, which shards and vectors have too.
        counts = [len(one["captions"] or []) for one in tested]
        asked = digest([[_name(one) for one in tested], counts])
        return found | {
            "num_images": {},
            "wer": {},
            "test": {"asked": asked, "num_captions": counts},
        }
    errors = read_word_errors(corpus, project)
    wer = {
        split: round(_rate([errors[_name(row)] for row in rows]), 4)
        for split, rows in by_split.items()
    }
    return found | {"wer": wer, "test": _heard(sorted(tested, key=_name), errors)}


def _heard(tested: Sequence[Any], errors: Mapping[str, Errors]) -> dict[str, Any]:
    """How each utterance of test was heard, and which picture it belongs to."""
    images = sorted({one["image_id"] for one in tested if one["image_id"]})
    place = {name: number for number, name in enumerate(images)}
    heard = [errors[_name(one)] for one in tested]
    return {
        "asked": _asked(errors, [_name(one) for one in tested], images),
        "image": [place[one["image_id"]] for one in tested] if images else [],
        "num_words": [one.num_words for one in heard],
        "word_errors": [one.word_errors for one in heard],
    }


def _name(row: Any) -> str:
    return str(row["utterance_id"])


def _asked(errors: Mapping[str, Errors], utterances: list[str], images: list[str]) -> str:
    """A digest of the queries, and of how they were heard: speech may be made anew elsewhere."""
    heard = [[one, errors[one].num_words, errors[one].word_errors] for one in utterances]
    return digest([heard, images])


def _rate(heard: Sequence[Errors]) -> float:
    return sum(one.word_errors for one in heard) / max(1, sum(one.num_words for one in heard))


def model_outcome(study: Study, experiment: str) -> dict[str, Any]:
    """The ranks of right answers on test, of the models of all seeds."""
    project, one = study.workspace, study.params.experiments[experiment]
    if one.task in SOUND_TASKS:
        return _of_clips(study, experiment)
    found: dict[str, Any] = {"data": one.data, "models": {}}
    errors = read_word_errors(one.data, project)
    for name in model_names(study.params, experiment):
        card = load_card(model_folder(experiment, name, project))
        split = load_vectors(_vectors(study, experiment, name))[_SPLIT]
        scores = score_retrieval(split, _SPLIT, ())
        utterances, images = sorted(split.utterance_ids), sorted(split.image_ids)
        found["asked"] = _asked(errors, utterances, images)
        found["models"][name] = {
            "best_step": card.best_step,
            "dev_mean_recall_at_1": card.dev.get(SELECTION_METRIC),
            SPEECH_TO_IMAGE: [scores.rank_of[one] for one in utterances],
            IMAGE_TO_SPEECH: [scores.rank_of_image[one] for one in images],
        }
    return found


def _vectors(study: Study, experiment: str, name: str) -> Path:
    folder = study.workspace / "data/embeddings" / study.params.experiments[experiment].data
    return folder / experiment / f"{name}.safetensors"


def _of_clips(study: Study, experiment: str) -> dict[str, Any]:
    """The same of clips: of each query the best rank of a right answer, in the order of clips.

    `time` has, of whole clips and of their segments, for each clip that can be asked for the right
    time: how often it was, how often it picked it, and how often chance does.
    """
    one = study.params.experiments[experiment]
    selected = IMAGE_METRIC if one.task == "audio_image" else TEXT_METRIC
    found: dict[str, Any] = {"data": one.data, "models": {}}
    for name in model_names(study.params, experiment):
        card = load_card(model_folder(experiment, name, study.workspace))
        split = load_sound_vectors(_vectors(study, experiment, name))[_SPLIT]
        counts = np.bincount(split.caption_clips, minlength=len(split.clip_ids)).tolist()
        found["asked"] = digest([split.clip_ids, counts])
        times = dict(right_times(split))
        found["models"][name] = {
            "best_step": card.best_step,
            "dev_mean_recall_at_1": card.dev.get(f"dev/{selected}"),
            **{direction: ranks.best.tolist() for direction, ranks, _ in rank_sounds(split)},
            "time": {
                kind: {
                    "asked": times[f"{kind}_accuracy"].counts.tolist(),
                    "right": times[f"{kind}_accuracy"].sums.tolist(),
                    "chance": times[f"{kind}_chance"].sums.round(4).tolist(),
                }
                for kind in ("clip", "segment")
                if f"{kind}_accuracy" in times
            },
        }
    return found


def probe_outcome(study: Study, probe: str) -> dict[str, Any]:
    """How many recordings of each speaker each run told right, by feature and problem."""
    speakers: dict[str, dict[str, int]] = {}
    features: dict[str, dict[str, dict[str, list[int]]]] = {}
    for row in read_rows(study.workspace / f"reports/emotion/{probe}/{RUNS}.csv"):
        # Of Whisper's layers their learned sums stand for all.
        if row["feature"].startswith(f"{WHISPER}/") and row["feature"] not in _SHOWN_OF_WHISPER:
            continue
        problem = f"{row['protocol']}/{row['labels']}"
        speakers.setdefault(problem, {})[row["speaker"]] = int(row["num_recordings"])
        runs = features.setdefault(row["feature"], {}).setdefault(problem, {})
        runs.setdefault(row["run"], []).append(int(row["num_right"]))
    return {"data": study.params.probes[probe].data, "recordings": speakers, "right": features}


def as_text(found: Any) -> str:
    """JSON with a line for each entry, and lists on one: small, and readable in a diff."""
    return _lines(found, "") + "\n"


def _lines(value: Any, indent: str) -> str:
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    inner = f"{indent} "
    parts = [f"{inner}{json.dumps(key)}: {_lines(one, inner)}" for key, one in value.items()]
    return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
