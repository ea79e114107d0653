"""The cross-checks of `probes` and `probed_corpora`."""

from collections.abc import Iterator

from brewline.config.choices import suggest
from brewline.config.experiments import FineTuningParams
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
            tuning = params.experiments[experiment].fine_tuning
            if tuning is not None and not _measures(probe, tuning):
                yield (
                    f"{key}.rows.{row}: {experiment!r} is fine-tuned on {tuning.labels} by "
                    f"{tuning.protocol} (speaker_folds: {tuning.speaker_folds}), which this probe "
                    "does not measure; give both the same labels, protocols and speaker_folds"
                )
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


def _measures(probe: ProbeParams, tuning: FineTuningParams) -> bool:
    """Whether a probe has the problem that an experiment was fine-tuned on."""
    is_cut_alike = probe.speaker_folds == tuning.speaker_folds or tuning.protocol != "by_speaker"
    return tuning.labels in probe.labels and tuning.protocol in probe.protocols and is_cut_alike
