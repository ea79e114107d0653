"""What went wrong on the way, said without a secret."""

from urllib.parse import urlsplit, urlunsplit

# Statuses that may be another one a little later.
PASSING_STATUSES = (408, 429, 500, 502, 503, 504)


def shown(url: str) -> str:
    """A URL as it may be printed and kept: without user, password, signature and fragment."""
    parts = urlsplit(url)
    if not parts.scheme:
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
