"""Servers of this machine are asked directly, whatever proxy stands before the network."""

import os

_LOOPBACK = ("127.0.0.1", "localhost")


def ask_loopback_directly() -> None:
    """Excepts this machine from `http_proxy` and `ALL_PROXY`, for this process and its children.

    A proxy elsewhere asks its own machine, where no server of ours is.
    """
    for name in ("NO_PROXY", "no_proxy"):
        known = [one for one in os.environ.get(name, "").split(",") if one]
        os.environ[name] = ",".join(dict.fromkeys([*known, *_LOOPBACK]))
