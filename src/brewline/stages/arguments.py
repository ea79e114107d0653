"""What the stages take on their command lines."""

import argparse

from brewline.config import Params, choose, load_params

_CALLED = {
    "corpora": "corpus",
    "watched": "corpus",
    "probed_corpora": "corpus",
    "encoded": "set",
    "augmented_corpora": "corpus",
    "experiments": "experiment",
    "external": "set",
    "tables": "table",
    "sound_tables": "table",
    "probes": "probe",
}


def named_argument(description: str | None, listed: str = "corpora") -> tuple[Params, str]:
    """Parses one name and reads `params.yaml`.

    Args:
        description: The stage's docstring.
        listed: The section of `params.yaml` that the name must be in.

    Raises:
        BrewlineError: it is not in there.
    """
    kind = _CALLED[listed]
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(kind, help=f"one of `{listed}` in params.yaml")
    arguments = parser.parse_args()
    params = load_params()
    return params, choose(kind, getattr(arguments, kind), list(getattr(params, listed)))


def corpus_and_utterance(description: str | None) -> tuple[Params, str, str | None]:
    """Parses `<corpus> [--explain=<utterance_id>]` and reads `params.yaml`.

    Raises:
        BrewlineError: no such corpus.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("corpus", help="one of `corpora` in params.yaml")
    parser.add_argument("--explain", metavar="ID", help="print every check of this utterance")
    arguments = parser.parse_args()
    params = load_params()
    return params, choose("corpus", arguments.corpus, params.corpora), arguments.explain
