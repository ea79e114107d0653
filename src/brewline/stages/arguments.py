"""What the stages take on their command lines."""

import argparse

from brewline.config import Params, choose, load_params


def corpus_argument(description: str | None, listed: str = "corpora") -> tuple[Params, str]:
    """Parses `<corpus>` and reads `params.yaml`.

    Args:
        description: The stage's docstring.
        listed: The list of `params.yaml` that the corpus must be in.

    Raises:
        BrewlineError: no such corpus.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("corpus", help=f"one of `{listed}` in params.yaml")
    arguments = parser.parse_args()
    params = load_params()
    return params, choose("corpus", arguments.corpus, list(getattr(params, listed)))


def corpus_and_utterance(description: str | None) -> tuple[Params, str, str | None]:
    """Parses `<corpus> [--explain <utterance_id>]` and reads `params.yaml`.

    Raises:
        BrewlineError: no such corpus.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("corpus", help="one of `corpora` in params.yaml")
    parser.add_argument("--explain", metavar="ID", help="print every check of this utterance")
    arguments = parser.parse_args()
    params = load_params()
    return params, choose("corpus", arguments.corpus, params.corpora), arguments.explain


def model_argument(description: str | None) -> tuple[Params, str, str]:
    """Parses `<corpus> <variant>` and reads `params.yaml`.

    Raises:
        BrewlineError: no such corpus or variant.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("corpus", help="one of `retrieval_corpora` in params.yaml")
    parser.add_argument("variant", help="one of `variants` in params.yaml")
    arguments = parser.parse_args()
    params = load_params()
    corpus = choose("corpus", arguments.corpus, list(params.retrieval_corpora))
    return params, corpus, choose("variant", arguments.variant, list(params.variants))
