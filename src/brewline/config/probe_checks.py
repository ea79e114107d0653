"""The cross-checks of `probes` and `probed_corpora`."""

from collections.abc import Iterator

from brewline.config.choices import suggest
from brewline.config.probes import ProbeParams
from brewline.config.schema import Params

# Stand beside the rows of a probe in `metrics/probe/`.
_TAKEN_ROWS = ("majority", "whisper")


def bad_probes(params: Params) -> Iterator[str]:
    """Probes that refer to what is not there."""
    for corpus in params.probed_corpora:
        if corpus not in params.corpora:
            hint = suggest(corpus, params.corpora)
            yield f"probed_corpora: unknown corpus {corpus!r}{hint}"
    for name, probe in params.probes.items():
        key = f"probes.{name}"
        if probe.data not in params.probed_corpora:
            hint = suggest(probe.data, params.probed_corpora)
            yield f"{key}.data: {probe.data!r} is not among probed_corpora{hint}"
            continue
        yield from _bad_rows(params, key, probe)


def _bad_rows(params: Params, key: str, probe: ProbeParams) -> Iterator[str]:
    emotional = {name: one for name, one in params.experiments.items() if one.task == "emotion"}
    here = [name for name, one in emotional.items() if one.data == probe.data]
    for row, experiment in probe.rows.items():
        if row in _TAKEN_ROWS:
            yield f"{key}.rows.{row}: something else stands under that name; call it otherwise"
        if experiment in here:
            continue
        if experiment in emotional:
            data = emotional[experiment].data
            yield f"{key}.rows.{row}: {experiment!r} embeds {data}, and this probe {probe.data}"
        elif experiment in params.experiments:
            yield (
                f"{key}.rows.{row}: {experiment!r} is of another task; add an experiment with "
                f"task: emotion, data: {probe.data}, recipe: none and init: {experiment}"
            )
        else:
            yield f"{key}.rows.{row}: unknown experiment {experiment!r}{suggest(experiment, here)}"
