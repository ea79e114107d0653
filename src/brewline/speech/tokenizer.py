"""The tokenizer that belongs to a checkpoint of Whisper."""

from whisper.model import ModelDimensions
from whisper.tokenizer import Tokenizer, get_tokenizer

from brewline.core.errors import BrewlineError


def tokenizer_for(dimensions: ModelDimensions, language: str) -> Tokenizer:
    """The tokenizer of a model, set to transcribe a language.

    Raises:
        BrewlineError: the model does not know the language.
    """
    # As the library tells it, from the number of tokens.
    is_multilingual = dimensions.n_vocab >= 51865
    if not is_multilingual and language.lower() not in ("en", "english"):
        raise BrewlineError(
            f"asr.language is {language!r}, but this checkpoint knows English only", "settings"
        )
    try:
        return get_tokenizer(
            is_multilingual,
            num_languages=dimensions.n_vocab - 51765 - int(is_multilingual),
            language=language,
            task="transcribe",
        )
    except ValueError:
        raise BrewlineError(
            f"asr.language: Whisper knows no language {language!r}", "settings"
        ) from None
