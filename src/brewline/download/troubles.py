"""What went wrong on the way, said in our words and without a secret."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from brewline.core.errors import BrewlineError

# Statuses that may be another one a little later.
PASSING_STATUSES = (408, 429, 500, 502, 503, 504)
# A disk, or what a user may fill of it, is full.
_DISK = (errno.ENOSPC, errno.EDQUOT)


def shown(url: str) -> str:
    """A URL as it may be printed and kept: without user, password, signature and fragment."""
    parts = urlsplit(url)
    if not parts.scheme:
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turns what a library raises of its own into a failure of the network.

    Such errors belong to packages below the library, which change without notice and cannot be
    named here. Our own errors, and a full disk, pass.

    Raises:
        BrewlineError: of kind `network`.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, BrewlineError) or getattr(error, "errno", None) in _DISK:
            raise
        text = f"{shown(url)}: {type(error).__name__}: {error}; run it again to continue"
        raise BrewlineError(text, "network") from error
