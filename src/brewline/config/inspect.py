"""Section `inspect`."""

from brewline.config.types import Section


class InspectParams(Section):
    """What is found out about recordings beyond what decoding them shows."""

    # How much of each is speech; takes longer than decoding.
    speech_share: bool
