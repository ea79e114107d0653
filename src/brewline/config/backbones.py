"""Section `backbones`."""

from brewline.config.types import Section, Sha256


class BackboneParams(Section):
    """A frozen backbone.

    `source` of Whisper is a checkpoint (a path or URL), a folder of transformers or CTranslate2,
    the same on the Hub (`hf://<owner>/<name>[@<revision>]`), or `openai-whisper:<name>`; of CLIP, a
    folder in open_clip's format (which may be written `local-dir:<folder>`), the same on the Hub
    (`hf-hub:<owner>/<name>[@<revision>]`), or `open_clip:<architecture>/<pretrained tag>`; of the
    others, a folder in transformers' format or the same on the Hub. Files may be compressed with
    xz. `sha256` is over the file, or over the names and contents of those of a folder that are
    read.
    """

    name: str
    source: str
    sha256: Sha256 | None


class BackbonesParams(Section):
    """What models begin with; HuBERT, and AST and CLAP, where a variant hears with them."""

    whisper: BackboneParams
    clip: BackboneParams
    hubert: BackboneParams | None = None
    ast: BackboneParams | None = None
    clap: BackboneParams | None = None
