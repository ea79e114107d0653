"""About how long a part takes, on two cores that do nothing else: counted from its parameters."""

from brewline.config.experiments import SOUND_TASKS
from brewline.models.names import model_names
from brewline.probing.ravdess import PROTOCOLS
from study.definition import Study

# Of a recording, all that is done before training: speech and picture made, looked at, recognised
# and packed. Narrations are four times as long as captions, and noisier.
_SECONDS_PER_RECORDING = {"flickr8k": 0.085, "lncoco": 0.4, "ravdess": 0.085, "videos": 0.15}
# Of a row of a batch, a picture and a text beside it or not; of sounds, frames are embedded once.
_SECONDS_PER_ROW, _SECONDS_PER_SOUND = 0.0055, 0.002
# Of a model that is measured, per recording of its corpus.
_SECONDS_PER_QUERY = 0.005
# Whatever starts: Python, the towers, DVC.
_SECONDS_PER_PART = 40
_RECORDINGS_PER_PICTURE = 5


def corpus_minutes(study: Study, corpus: str) -> float:
    """To generate a corpus, and to bring it to its shards."""
    layout = study.generate[corpus]["layout"]
    recordings = _num_recordings(study, corpus)
    return (_SECONDS_PER_PART + recordings * _SECONDS_PER_RECORDING[layout]) / 60


def experiment_minutes(study: Study, experiment: str) -> float:
    """To train the models of all seeds and folds, and to embed with them."""
    params = study.params
    one, num_models = params.experiments[experiment], len(model_names(params, experiment))
    if one.fine_tuning is not None:
        folds = PROTOCOLS.get(one.fine_tuning.protocol)
        num_models *= len(folds) if folds else one.fine_tuning.speaker_folds
    recipe = params.recipes[one.recipe]
    rows = num_models * recipe.steps * recipe.batch_size if recipe else 0
    queries = num_models * _num_recordings(study, one.data)
    per_row = _SECONDS_PER_SOUND if one.task in SOUND_TASKS else _SECONDS_PER_ROW
    seconds = rows * per_row + queries * _SECONDS_PER_QUERY
    return (_SECONDS_PER_PART + seconds) / 60


def _num_recordings(study: Study, corpus: str) -> int:
    size = study.generate[corpus]
    if size["layout"] == "ravdess":
        # Two statements twice, each emotion but the first in two intensities.
        return int(size["actors"] * (4 + 8 * (size["emotions"] - 1)))
    if size["layout"] == "videos":
        return sum(map(int, size["clips"].values()))
    pictures = sum(map(int, size["pictures"].values()))
    if size["layout"] == "flickr8k":
        return _RECORDINGS_PER_PICTURE * pictures
    return pictures + sum(map(int, size["told_twice"].values()))
