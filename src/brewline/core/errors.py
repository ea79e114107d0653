"""Errors that are the user's to mend."""

from typing import Literal

FailureKind = Literal["network", "busy", "time", "data", "memory", "settings", "crash"]


class BrewlineError(Exception):
    """Something outside the code is wrong; the message is one sentence that says what to do.

    Args:
        message: Names the bad value and, where there are any, the choices.
        kind: Decides whether another try can help (DVC's exit code never says).
    """

    def __init__(self, message: str, kind: FailureKind = "data") -> None:
        super().__init__(message)
        self.kind: FailureKind = kind
