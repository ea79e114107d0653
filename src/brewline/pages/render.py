"""What our pages share: they open anywhere without a network, and equal data give equal bytes."""

import base64
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from brewline.media.archives import MediaStore

# Recordings in a page: so many bytes each and together.
_MAX_PLAYER_BYTES = 1 << 20
_MAX_PAGE_BYTES = 8 << 20
_AUDIO_TYPES = {b"OggS": "audio/ogg", b"RIFF": "audio/wav", b"fLaC": "audio/flac"}


def render(template: str, **values: Any) -> str:
    """Fills a template of ours; every value is escaped, and a missing one is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values).lstrip()


def data_uri(media_type: str, content: bytes) -> str:
    """The content as a URI that needs no network."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def audio_uri(content: bytes) -> str:
    """A recording as a URI that `<audio>` plays; its type comes from its first bytes."""
    return data_uri(_AUDIO_TYPES.get(content[:4], "audio/mpeg"), content)


def markup(svg: str) -> Any:
    """Marks an SVG that we made, and escaped, as fit for a page."""
    import markupsafe

    return markupsafe.Markup(svg)


class Players:
    """Recordings as parts of a page, as far as there is room."""

    def __init__(self, store: MediaStore, most_of_a_group: int) -> None:
        """Args are the recordings, and how many of a group are in the page."""
        self._store = store
        self._most_of_a_group = most_of_a_group
        self._num_by_group: Counter[str] = Counter()
        self._num_bytes = 0

    def player(self, audio_path: str, group: str = "") -> dict[str, str]:
        """A recording as a URI, or a note why there is none."""
        name = self._store.find(audio_path)
        if name is None:
            return note("no file")
        if self._num_by_group[group] == self._most_of_a_group:
            return note("not in this page")
        content = self._store.read(name)
        if not content:
            return note("empty")
        room = min(_MAX_PLAYER_BYTES, _MAX_PAGE_BYTES - self._num_bytes)
        if len(content) > room:
            return note(f"{len(content) / 1e6:.1f} MB, too large for this page")
        self._num_by_group[group] += 1
        self._num_bytes += len(content)
        return {"uri": audio_uri(content), "note": ""}


def note(text: str) -> dict[str, str]:
    """Stands for a player that is not there."""
    return {"uri": "", "note": text}


@dataclass(frozen=True)
class Token:
    """A word as written; `tag` says how it differs: mark (another word), del, ins, or ""."""

    text: str
    tag: Literal["", "mark", "del", "ins"] = ""


def _comparable(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())


def compare_words(
    caption: str | None, transcript: str
) -> tuple[list[Token], list[Token], int | None]:
    """Aligns a transcript with the caption word by word, as the word error rate does.

    Case and punctuation are shown, but do not count.

    Returns:
        The words of the caption, those of the transcript, and the number of words put in, left
        out or exchanged; no number where there is no caption.
    """
    import jiwer

    written, heard = (caption or "").split(), transcript.split()
    reference = [word for word in written if _comparable(word)]
    hypothesis = [word for word in heard if _comparable(word)]
    if not reference:
        return [], [Token(word) for word in heard], None
    aligned = jiwer.process_words(
        " ".join(map(_comparable, reference)), " ".join(map(_comparable, hypothesis))
    )
    left, right = [], []
    for chunk in aligned.alignments[0]:
        tags: tuple[Literal["", "mark", "del"], Literal["", "mark", "ins"]] = ("del", "ins")
        if chunk.type in ("equal", "substitute"):
            tags = ("", "") if chunk.type == "equal" else ("mark", "mark")
        words = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        left += [Token(word, tags[0]) for word in words]
        words = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        right += [Token(word, tags[1]) for word in words]
    return left, right, aligned.insertions + aligned.deletions + aligned.substitutions
