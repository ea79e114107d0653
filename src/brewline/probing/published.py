"""What others report for RAVDESS: shown beside measurements of RAVDESS itself alone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A number in a table of somebody else's, as a fraction; not measured here."""

    system: str
    protocol: str
    labels: str
    accuracy: float
    source: str


_BREWCLIP = "BrewCLIP, table 3"
# The paper does not say which epoch; its code keeps the one that is best on the test.
PUBLISHED = (
    Published("BrewCLIP, linear probe", "paper", "paper4", 0.56, _BREWCLIP),
    Published("BrewCLIP, fine-tuned", "paper", "paper4", 0.78, _BREWCLIP),
    Published("pipeline alone, linear probe", "paper", "paper4", 0.33, _BREWCLIP),
    Published("pipeline alone, fine-tuned", "paper", "paper4", 0.33, _BREWCLIP),
    Published("Whisper large-v3, last layer", "emobox", "all8", 0.759, "EmoBox, intra-corpus"),
    Published("HuBERT large, last layer", "emobox", "all8", 0.703, "EmoBox, intra-corpus"),
    Published("WavLM large, last layer", "emobox", "all8", 0.722, "EmoBox, intra-corpus"),
)
