"""The miniature world: which corpora are of it, and what to say where their numbers are shown."""

from collections.abc import Iterable

MINIATURE_PREFIX = "mini-"
MINIATURE_NOTICE = (
    "The corpora whose names begin with mini- are a miniature world: drawn pictures, synthetic "
    "voices and very small models. Their numbers show that the pipeline works. They say nothing "
    "about real recordings and must not stand beside published ones."
)


def is_miniature(corpus: str) -> bool:
    """Whether a corpus belongs to the miniature world."""
    return corpus.startswith(MINIATURE_PREFIX)


def miniature_notice(corpora: Iterable[str]) -> str:
    """What a page or a text says about these corpora: the notice, or nothing."""
    return MINIATURE_NOTICE if any(map(is_miniature, corpora)) else ""
