"""A name out of those that are known, or an error that says which one may be meant."""

import difflib

from brewline.core.errors import BrewlineError


def choose(kind: str, name: str, known: list[str]) -> str:
    """Returns `name` if it is one of `known`.

    Raises:
        BrewlineError: naming the known ones, and the likely one.
    """
    if name in known:
        return name
    raise BrewlineError(f"unknown {kind} {name!r}{suggest(name, known)}", "settings")


def suggest(name: str, known: list[str]) -> str:
    """The end of a sentence about an unknown name: the likely one, and all that are known."""
    close = difflib.get_close_matches(name, known, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{guess} known: {', '.join(known) or 'none'}"
