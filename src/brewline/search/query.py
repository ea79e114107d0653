"""Search a corpus of the project with a trained model, by a recording, a photo or words.

The vectors of the corpus are kept under `work/search/`, by the content of the model and of what it
reads.
"""

from pathlib import Path

from brewline.config import Params
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json
from brewline.models.card import load_card
from brewline.models.names import model_names
from brewline.quality.queries import GuardedChecks, RefusedError
from brewline.search.answer import Answer, Question


def default_model(params: Params, models_dir: Path = Path("models")) -> Path:
    """The trained model of speech that is best on dev, of the first corpus that has one.

    Corpora are those of the tables, in their order. What reads captions instead of listening is
    left out.

    Raises:
        BrewlineError: nothing has been trained yet.
    """
    from brewline.evaluation.scores import SELECTION_METRIC

    def score(folder: Path) -> float:
        return float(read_json(folder / "model.json")["dev"].get(SELECTION_METRIC, 0.0))

    for corpus in params.measured_corpora:
        folders = [
            models_dir / experiment / name
            for experiment in params.trained_rows(corpus)
            for name in model_names(params, experiment)
        ]
        made = [folder for folder in folders if (folder / "model.json").exists()]
        if made:
            return max(made, key=score)
    raise BrewlineError(f"{models_dir} holds no trained model; run `dvc repro`")


def search(
    query: Path | str, params: Params, model_dir: Path | None, split: str = "test", top: int = 5
) -> Answer:
    """Ranks a corpus for a recording, a photo or words.

    A model of speech finds pictures, and recordings for a photo; one of sounds finds clips. It runs
    in the project's folder: backbones, shards and states are read from their places there.

    Args:
        query: A recording or a picture, in any format that the corpora may have; or words.
        params: How speech is recognised, and pictures are made small.
        model_dir: A model's folder; None chooses with `default_model`.
        split: Which split of the model's corpus is searched.
        top: How many hits are returned.

    Raises:
        BrewlineError: the query is neither, it fails a check, or a file of the project is missing.
    """
    content = query if isinstance(query, str) else _content_of(query)
    # That of the default is none.
    hears_sounds = model_dir is not None and load_card(model_dir).switches.sound is not None
    question = (
        Question(text=content)
        if isinstance(content, str)
        else _checked(content, Path(query).name, params, hears_sounds)
    )
    model_dir = model_dir or default_model(params)
    # Imported late: a mistake above is named before torch is loaded.
    if hears_sounds:
        from brewline.search.clip_search import ClipSearch

        return ClipSearch(params, model_dir).answer(question, split, top)
    from brewline.search.speech_search import SpeechSearch

    return SpeechSearch(params, model_dir).answer(question, split, top)


def _content_of(query: Path) -> bytes:
    try:
        return query.read_bytes()
    except OSError as error:
        raise BrewlineError(f"{query} cannot be read: {error.strerror}") from None


def _checked(content: bytes, name: str, params: Params, is_sound: bool) -> Question:
    """A recording or a picture, once it has passed the checks."""
    checks = GuardedChecks(params.validation, params.runtime.inspect_decode_limit_s, is_sound)
    try:
        if not checks.is_picture(content):
            return Question(waveform=checks.hear(content))
        checks.look(content)
    except RefusedError as error:
        if error.reason in ("not_audio", "empty_file"):
            raise BrewlineError(
                f"{name} is neither a recording nor a picture; docs/guide.md lists what is read: "
                f"{error}"
            ) from None
        raise BrewlineError(f"{name}: {error}") from None
    return Question(photo=content)
