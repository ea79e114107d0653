"""The graph of `dvc.yaml`, read and never restated: which stages there are, and which are stale."""

import shlex
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from brewline.config import Params, choose, load_params
from brewline.core.errors import BrewlineError

Answer = TypeVar("Answer")

_MODULE = "brewline.stages."
# What the name in a stage's command is, where it is no corpus.
_OF_EXPERIMENTS = ("train", "embed")
_OF_TABLES = ("score", "analyse")
_OF_SOUND_TABLES = ("score_sounds",)
_OF_PROBES = ("probe",)
_OF_OTHERS = ("external",)
_OF_SETS = ("encode",)
# What `dvc status` says of a stage that is run every time.
_ALWAYS = "always changed"
# DVC keeps its lock while it looks at files or moves them, not while a stage runs.
DVC_WAIT_S = 600.0
_LOOK_EVERY_S = 1.0
DVC_IS_BUSY = (
    "another DVC process works in this folder; wait until it ends, or end it, then run this again"
)


@dataclass(frozen=True)
class Stage:
    """A stage as DVC sees it.

    `name` is what `dvc repro` calls it (`train@mini-lncoco-prompted`); `kind` its module in
    `brewline.stages`; `subject` what its command names: a corpus, an experiment, a table, a probe,
    a set of external vectors or None;
    `corpus` and `experiment` are those that it works for, or None; `rows` are the experiments that
    it compares; `upstream` are the names of the stages whose outputs it reads.
    One that `looks` at what lies outside is run every time; what it finds makes others stale.
    """

    name: str
    kind: str
    subject: str | None
    corpus: str | None
    experiment: str | None
    rows: frozenset[str]
    upstream: frozenset[str]
    looks: bool = False


def read_graph(project: Path, on_wait: Callable[[str], None] = print) -> list[Stage]:
    """Returns all stages, each after those that it depends on.

    Args:
        project: The folder of `dvc.yaml`.
        on_wait: Is told, once, that another DVC process is waited for.

    Raises:
        BrewlineError: DVC finds the graph invalid (the message is DVC's), or is busy for long.
    """
    import networkx
    from dvc.exceptions import DvcException

    params = load_params(project / "params.yaml")

    def read(repo: Any) -> list[Stage]:
        graph = repo.index.graph
        place = {stage: number for number, stage in enumerate(repo.index.stages)}
        order = networkx.lexicographical_topological_sort(graph.reverse(), key=place.get)
        return [_read(stage, params, graph.successors(stage)) for stage in order]

    try:
        return _ask_dvc(project, read, on_wait)
    except DvcException as error:
        raise BrewlineError(f"dvc.yaml: {error}", "settings") from None


def _ask_dvc(project: Path, ask: Callable[[Any], Answer], on_wait: Callable[[str], None]) -> Answer:
    """Asks DVC's repository; while another process holds DVC's lock, waits and asks again.

    Raises:
        BrewlineError: it is held for more than `DVC_WAIT_S`.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo

    end = time.monotonic() + DVC_WAIT_S
    is_told = False
    while True:
        try:
            with Repo(str(project)) as repo:
                return ask(repo)
        except LockError:
            if time.monotonic() > end:
                raise BrewlineError(DVC_IS_BUSY, "busy") from None
        if not is_told:
            on_wait(f"another DVC process works in {project}: waiting")
            is_told = True
        time.sleep(_LOOK_EVERY_S)


def _read(stage: Any, params: Params, upstream: Iterable[Any]) -> Stage:
    words = shlex.split(stage.cmd)
    place = next((i for i, word in enumerate(words) if word.startswith(_MODULE)), None)
    if place is None:
        raise BrewlineError(f"stage {stage.name} does not run a module of {_MODULE}*")
    subject = [*words[place + 1 :], None][0]
    kind = words[place].removeprefix(_MODULE)
    corpus, experiment, rows = subject, None, frozenset[str]()
    if subject and kind in _OF_EXPERIMENTS:
        corpus, experiment = params.experiments[subject].data, subject
    elif subject and kind in _OF_TABLES:
        corpus, rows = params.tables[subject].data, frozenset(params.tables[subject].rows.values())
    elif subject and kind in _OF_SOUND_TABLES:
        table = params.sound_tables[subject]
        corpus, rows = table.data, frozenset(table.rows.values())
    elif subject and kind in _OF_PROBES:
        corpus, rows = params.probes[subject].data, frozenset(params.probes[subject].rows.values())
    elif subject and kind in _OF_OTHERS:
        corpus = params.external[subject].data
    elif subject and kind in _OF_SETS:
        corpus = params.encoded[subject].data
    needed = frozenset(one.name for one in upstream)
    looks = stage.always_changed
    return Stage(stage.name, kind, subject, corpus, experiment, rows, needed, looks)


def changes(
    project: Path, stage: str | None = None, on_wait: Callable[[str], None] = print
) -> dict[str, list[str]]:
    """Says which stages are stale now, and why, in the words of `dvc status`.

    A stage whose inputs another stale stage is going to change is not among them, and neither is
    one that looks outside: that it is always run says nothing of what it will find.

    Args:
        project: The folder of `dvc.yaml`.
        stage: Looks at this stage alone.
        on_wait: Is told, once, that another DVC process is waited for.

    Returns:
        By the name of a stale stage, what changed: `params.yaml variants.full: modified`.

    Raises:
        BrewlineError: DVC finds the graph invalid (the message is DVC's), or is busy for long.
    """
    from dvc.exceptions import DvcException

    target = f"{(project / 'dvc.yaml').absolute()}:{stage}"

    def look(repo: Any) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = repo.status(targets=[target] if stage else None)
        return found

    try:
        status = _ask_dvc(project, look, on_wait)
    except DvcException as error:
        raise BrewlineError(f"dvc.yaml: {error}", "settings") from None
    # Seen from another folder, names carry the path of their file.
    why = {name.rpartition(":")[2]: list(_reasons(found)) for name, found in status.items()}
    return {name: reasons for name, reasons in why.items() if reasons}


def _reasons(entries: list[Any]) -> Iterable[str]:
    for entry in entries:
        if isinstance(entry, str):
            if entry != _ALWAYS:
                yield entry
            continue
        for changed in entry.values():
            for path, how in changed.items() if isinstance(changed, dict) else ():
                if isinstance(how, dict):
                    yield from (f"{path} {key}: {value}" for key, value in how.items())
                else:
                    yield f"{path}: {how}"


@dataclass(frozen=True)
class Plan:
    """What a run looks at, in order.

    `forced` are run even if nothing changed. `asked` are those that somebody waits for: without
    them the run has failed. Of the stages that all corpora and experiments share it does what it
    can.
    """

    stages: list[Stage]
    forced: frozenset[str]
    asked: frozenset[str]


def plan(
    stages: list[Stage],
    corpora: Collection[str],
    experiments: Collection[str],
    from_stage: str = "",
    force: bool = False,
) -> Plan:
    """Chooses the stages of a run.

    Args:
        stages: The whole graph, from `read_graph`.
        corpora: Keeps the stages of these, and those that belong to no corpus; none: all.
        experiments: Keeps the stages of these, and those that belong to none; none: all. What a
            chosen experiment starts from is chosen too, with all that it takes.
        from_stage: Runs this stage again: its name, or that of a kind (`train`). What comes
            after it runs if its results changed.
        force: Runs every chosen stage again.

    Raises:
        BrewlineError: an unknown corpus, experiment or stage.
    """
    for corpus in corpora:
        choose("corpus", corpus, sorted({s.corpus for s in stages if s.corpus}))
    for experiment in experiments:
        choose("experiment", experiment, sorted({s.experiment for s in stages if s.experiment}))
    names = {
        stage.name
        for stage in stages
        if (not corpora or stage.corpus in {None, *corpora})
        and (not experiments or stage.experiment in {None, *experiments})
    }
    names |= _started_from(stages, names)
    chosen = [stage for stage in stages if stage.name in names]
    forced: set[str] = {stage.name for stage in chosen} if force else set()
    if from_stage:
        known = [n for stage in stages for n in (stage.name, stage.name.split("@")[0], stage.kind)]
        choose("stage", from_stage, list(dict.fromkeys(known)))
        forced |= {
            stage.name
            for stage in chosen
            if from_stage in (stage.name, stage.name.split("@")[0], stage.kind)
        }
    return Plan(chosen, frozenset(forced), _asked(chosen, corpora, experiments))


def _asked(
    chosen: list[Stage], corpora: Collection[str], experiments: Collection[str]
) -> frozenset[str]:
    everything = not corpora and not experiments

    def is_asked(stage: Stage) -> bool:
        if everything or not stage.corpus:
            return everything
        # A table is asked for with any of its rows.
        return not experiments or not stage.rows or bool(stage.rows & {*experiments})

    return frozenset(stage.name for stage in chosen if is_asked(stage))


def _started_from(stages: list[Stage], names: set[str]) -> set[str]:
    """The trainings that chosen trainings start from, and everything before these."""
    by_name = {stage.name: stage for stage in stages}
    waiting = [
        name
        for stage in stages
        if stage.name in names and stage.kind == "train"
        for name in stage.upstream
        if by_name[name].kind == "train"
    ]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += by_name[name].upstream
    return found


def with_descendants(stages: list[Stage], names: set[str]) -> set[str]:
    """The stages of these names, and all that depend on them."""
    found = set(names)
    for stage in stages:
        if stage.upstream & found:
            found.add(stage.name)
    return found
