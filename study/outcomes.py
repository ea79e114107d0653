"""What a finished part leaves: numbers by query, from which every metric and interval follows.

Queries have no names in it: utterances stand in the order of their ids, pictures too. `asked` is a
digest of these and of their word errors, so that models are compared on the same queries alone.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from brewline.evaluation.outputs import IMAGE_TO_SPEECH, SPEECH_TO_IMAGE
from brewline.evaluation.scores import SELECTION_METRIC, score_retrieval
from brewline.evaluation.texts import read_word_errors
from brewline.evaluation.vectors import load_vectors
from brewline.models.card import load_card
from brewline.models.names import model_folder, model_names
from brewline.probing.inputs import POOLINGS, WHISPER, weighted_name
from brewline.probing.outputs import RUNS, read_rows
from brewline.speech.error_rates import Errors
from brewline.tables.parquet import read_table
from study.definition import Study, digest

_SPLIT = "test"
_SHOWN_OF_WHISPER = [weighted_name(pooling) for pooling in POOLINGS]


def corpus_outcome(study: Study, corpus: str) -> dict[str, Any]:
    """How large a corpus is, what was dropped, and how each utterance of test was heard."""
    project = study.workspace
    manifest = list(read_table(project / f"data/manifest/{corpus}.parquet"))
    quarantine = read_table(project / f"data/quarantine/{corpus}.parquet")
    errors = read_word_errors(corpus, project)
    splits = sorted({row["split"] for row in manifest})
    tested = sorted((one for one in manifest if one["split"] == _SPLIT), key=_name)
    images = sorted({one["image_id"] for one in tested if one["image_id"]})
    place = {name: number for number, name in enumerate(images)}
    heard = [errors[_name(one)] for one in tested]
    by_split = {split: [one for one in manifest if one["split"] == split] for split in splits}
    return {
        "num_utterances": {split: len(rows) for split, rows in by_split.items()},
        "num_images": {
            split: len({row["image_id"] for row in rows} - {None})
            for split, rows in by_split.items()
        },
        "hours": round(sum(row["duration_s"] for row in manifest) / 3600, 2),
        "quarantined": Counter(row["reason"] for row in quarantine),
        "wer": {
            split: round(_rate([errors[_name(row)] for row in rows]), 4)
            for split, rows in by_split.items()
        },
        "test": {
            "asked": _asked(errors, [_name(one) for one in tested], images),
            "image": [place[one["image_id"]] for one in tested] if images else [],
            "num_words": [one.num_words for one in heard],
            "word_errors": [one.word_errors for one in heard],
        },
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
    project, data = study.workspace, study.params.experiments[experiment].data
    found: dict[str, Any] = {"data": data, "models": {}}
    errors = read_word_errors(data, project)
    for name in model_names(study.params, experiment):
        card = load_card(model_folder(experiment, name, project))
        path = project / f"data/embeddings/{data}/{experiment}/{name}.safetensors"
        split = load_vectors(path)[_SPLIT]
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
