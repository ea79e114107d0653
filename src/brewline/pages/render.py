"""What our pages share: they open anywhere without a network, and equal data give equal bytes."""

import base64
from pathlib import Path
from typing import Any

_TEMPLATES = Path(__file__).parent / "templates"
# By where a file says what it is, and how.
_AUDIO_TYPES = {
    (0, b"OggS"): "audio/ogg",
    (0, b"RIFF"): "audio/wav",
    (0, b"fLaC"): "audio/flac",
    (0, b"\x1a\x45\xdf\xa3"): "audio/webm",
    (0, b"FORM"): "audio/aiff",
    (0, b"#!AM"): "audio/amr",
    (4, b"ftyp"): "audio/mp4",
}


def render(template: str, **values: Any) -> str:
    """Fills a template of ours; every value is escaped, and a missing one is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values).lstrip()


def render_markdown(template: str, **values: Any) -> str:
    """Fills a template of Markdown: nothing is escaped, so no value may come from the data."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)


def template_text(name: str) -> str:
    """A template, or what is included in one, as it is written."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def data_uri(media_type: str, content: bytes) -> str:
    """The content as a URI that needs no network."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def audio_uri(content: bytes) -> str:
    """A recording as a URI that `<audio>` plays; its type comes from its first bytes."""
    types = (kind for (at, mark), kind in _AUDIO_TYPES.items() if content.startswith(mark, at))
    return data_uri(next(types, "audio/mpeg"), content)


def markup(svg: str) -> Any:
    """Marks an SVG that we made, and escaped, as fit for a page."""
    import markupsafe

    return markupsafe.Markup(svg)


def percent(fraction: float) -> str:
    """A fraction in per cent without idle zeros: 0.95 is `95`."""
    return f"{100 * fraction:g}"
