"""The tokenizer that belongs to a checkpoint of Whisper."""

from whisper.model import ModelDimensions
from whisper.tokenizer import LANGUAGES, Tokenizer, get_tokenizer

from brewline.core.errors import BrewlineError

# What the vocabulary of a model for English has; others have more.
_ENGLISH_TOKENS = 51864
# What it has but for languages.
_NUM_OTHER_TOKENS = 51765


def tokenizer_for(dimensions: ModelDimensions, language: str) -> Tokenizer:
    """The tokenizer of a model, set to transcribe a language.

    Args:
        dimensions: Of the model.
        language: Its code.

    Raises:
        BrewlineError: the model does not know the language.
    """
    if not is_multilingual(dimensions) and language != "en":
        raise BrewlineError(
            f"the language is {language!r}, but this checkpoint knows English only: see "
            "asr.language, and the column `language` of the corpus",
            "settings",
        )
    num_languages = dimensions.n_vocab - _NUM_OTHER_TOKENS - int(is_multilingual(dimensions))
    if language not in [*LANGUAGES][:num_languages]:
        raise BrewlineError(
            f"this checkpoint of Whisper knows no language {language!r}: see asr.language, and the "
            "column `language` of the corpus",
            "settings",
        )
    return get_tokenizer(
        is_multilingual(dimensions),
        num_languages=num_languages,
        language=language,
        task="transcribe",
    )


def is_multilingual(dimensions: ModelDimensions) -> bool:
    """Whether a model knows other languages than English, as the library tells it by its tokens."""
    num_tokens: int = dimensions.n_vocab
    return num_tokens > _ENGLISH_TOKENS


def language_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """The tokens that stand for the languages of a multilingual model, by code."""
    return {
        code: tokenizer.to_language_token(code) for code in sorted(tokenizer.all_language_codes)
    }
