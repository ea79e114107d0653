"""Makes the parts of the study that are missing: `python -m study.parts [PART ...]`.

A part is a corpus (made, checked and recognised), a model (trained and measured, all seeds) or a
probe. It leaves one small file under `study/results/`, which is committed; whoever has the files
needs nothing else to draw the page. A part is missing where there is no file, or one that was made
of something else than the parameters and versions say now.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewline.config import load_versions
from brewline.config.experiments import SOUND_TASKS
from brewline.config.recipes import NONE
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json, write_text
from study.corpora import make_corpus
from study.definition import STUDY, Study, digest, load_study
from study.estimate import corpus_minutes, experiment_minutes
from study.outcomes import as_text, corpus_outcome, model_outcome, probe_outcome
from study.workspace import repro

CORPORA, MODELS, PROBES = "corpora", "models", "probes"
# Experiments that are parts by themselves; those of task `emotion` belong to their probe.
_MODEL_TASKS = ("retrieval", *SOUND_TASKS)


@dataclass(frozen=True)
class Part:
    """A part: what it is about (a corpus, an experiment or a probe), and which corpora it needs."""

    kind: str
    subject: str
    corpora: tuple[str, ...]

    @property
    def name(self) -> str:
        """As on the command line, and below `results/`."""
        return f"{self.kind}/{self.subject}"

    @property
    def targets(self) -> list[str]:
        """What DVC brings up to date for it."""
        stages = {CORPORA: ("assess", "shard"), MODELS: ("embed",), PROBES: ("probe",)}[self.kind]
        return [f"{stage}@{self.subject}" for stage in stages]

    def file(self, study: Study) -> Path:
        """What it leaves."""
        return study.results / f"{self.name}.json"


def list_parts(study: Study) -> list[Part]:
    """The parts, each after those that it starts from."""
    params = study.params
    models = [name for name, one in params.experiments.items() if one.task in _MODEL_TASKS]
    by_depth = sorted(models, key=lambda name: len(_chain(study, name)))
    return [
        *(Part(CORPORA, name, (name,)) for name in params.corpora),
        *(Part(MODELS, name, _corpora_of(study, [name])) for name in by_depth),
        *(
            Part(PROBES, name, _corpora_of(study, [*probe.rows.values()]))
            for name, probe in params.probes.items()
        ),
    ]


def _chain(study: Study, experiment: str) -> list[str]:
    """An experiment, the one that it starts from, and so on."""
    init = study.params.experiments[experiment].init
    return [experiment, *([] if init == NONE else _chain(study, init))]


def _corpora_of(study: Study, experiments: list[str]) -> tuple[str, ...]:
    chained = [name for one in experiments for name in _chain(study, one)]
    return tuple(dict.fromkeys(study.params.experiments[name].data for name in chained))


def facts_of(study: Study, part: Part) -> dict[str, Any]:
    """What a part is made of: its parameters, and the versions of its stages."""
    values, versions = study.values, load_versions().model_dump()
    if part.kind == CORPORA:
        sections = ("inspect", "asr", "shard")
        return {
            **study.generated(part.subject),
            "source": {k: v for k, v in values["sources"][part.subject].items() if k != "files"},
            **{name: values[name] for name in sections},
            "validate": values["validate"] | values["validate_of"].get(part.subject, {}),
            "whisper": values["backbones"]["whisper"],
            "versions": {name: versions[name] for name in ("inspect", "transcribe", "shard")},
        }
    found: dict[str, Any] = {
        "corpora": {
            name: digest(facts_of(study, Part(CORPORA, name, (name,)))) for name in part.corpora
        },
        "clip": values["backbones"]["clip"],
        "versions": {name: versions[name] for name in ("train", "embed")},
    }
    rows = [part.subject]
    if part.kind == PROBES:
        found["probe"] = values["probes"][part.subject]
        found["versions"]["layers"] = versions["layers"]
        rows = [*found["probe"]["rows"].values()]
    experiments = {name: values["experiments"][name] for row in rows for name in _chain(study, row)}
    for section, key in (("variants", "variant"), ("recipes", "recipe")):
        names = {one[key] for one in experiments.values()}
        found[section] = {name: values[section][name] for name in sorted(names)}
    states = {one["states"] for one in experiments.values()}
    if encoded := {name: one for name, one in values["encoded"].items() if name in states}:
        found["encoded"] = encoded
        found["versions"]["encode"] = versions["encode"]
    return found | {"experiments": experiments}


def is_finished(study: Study, part: Part) -> bool:
    """Whether a part left its file, and would be made of the same again."""
    file = part.file(study)
    return file.exists() and read_json(file)["made_of"] == facts_of(study, part)


def finished_outcomes(study: Study) -> dict[str, dict[str, Any]]:
    """What finished parts left, by kind and subject; of models and probes if their corpora did."""
    found: dict[str, dict[str, Any]] = {CORPORA: {}, MODELS: {}, PROBES: {}}
    for part in list_parts(study):
        if is_finished(study, part) and (
            part.kind == CORPORA or found[CORPORA].keys() >= {*part.corpora}
        ):
            found[part.kind][part.subject] = read_json(part.file(study))
    return found


def estimated_minutes(study: Study, part: Part) -> float:
    """About how long a part takes, on two cores that do nothing else."""
    if part.kind == CORPORA:
        return corpus_minutes(study, part.subject)
    subjects = [part.subject]
    if part.kind == PROBES:
        subjects = [*study.params.probes[part.subject].rows.values()]
    return sum(experiment_minutes(study, one) for one in subjects)


def make_part(study: Study, part: Part) -> None:
    """Makes a part, and writes its file.

    Raises:
        BrewlineError: something failed, which the next call goes on with.
    """
    for corpus in part.corpora:
        make_corpus(study, corpus)
    repro(study, part.targets)
    outcome = {CORPORA: corpus_outcome, MODELS: model_outcome, PROBES: probe_outcome}[part.kind]
    found = {"made_of": facts_of(study, part), **outcome(study, part.subject)}
    write_text(part.file(study), as_text(found))


def missing_parts(study: Study, wanted: list[str]) -> Iterator[Part]:
    """The parts that are missing, of those that are wanted; none named: of all.

    Raises:
        BrewlineError: there is no such part.
    """
    parts = list_parts(study)
    unknown = set(wanted) - {part.name for part in parts}
    if unknown:
        names = "\n  ".join(part.name for part in parts)
        raise BrewlineError(f"no part is called {', '.join(sorted(unknown))}; there are\n  {names}")
    for part in parts:
        if (not wanted or part.name in wanted) and not is_finished(study, part):
            yield part


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m study.parts", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="as in models/captions-full")
    parser.add_argument("--list", action="store_true", help="say what is missing, and make nothing")
    parser.add_argument("--folder", type=Path, default=STUDY, help="another study than study/")
    arguments = parser.parse_args()
    try:
        study = load_study(arguments.folder)
        waiting = list(missing_parts(study, arguments.parts))
        expected = [estimated_minutes(study, part) for part in waiting]
        count = f"{len(waiting)} of {len(list_parts(study))} parts are to be made"
        print(f"{count}, in about {sum(expected):.0f} minutes")
        began = time.monotonic()
        for number, part in enumerate(waiting):
            head = f"[{number + 1}/{len(waiting)}] {part.name}"
            print(f"{head}: about {expected[number]:.0f} minutes", flush=True)
            if not arguments.list:
                started = time.monotonic()
                make_part(study, part)
                took, so_far = ((time.monotonic() - one) / 60 for one in (started, began))
                left = sum(expected[number + 1 :])
                said = f"{took:.1f} minutes, {so_far:.1f} so far, about {left:.0f} are left"
                print(f"{head}: {said}", flush=True)
    except BrewlineError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted; run it again to continue", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
