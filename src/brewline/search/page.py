"""What a search found as one page that opens anywhere without a network."""

from pathlib import Path
from typing import Protocol

from brewline.config import Params
from brewline.config.synthetic import synthetic_notice
from brewline.media.corpus_media import project_media
from brewline.pages.album import Album
from brewline.pages.render import audio_uri, render
from brewline.samples.shards import find_utterances
from brewline.search.answer import Answer

# By what was asked with, and what was found.
_TITLES = {
    ("recording", "pictures"): "Which picture does this recording describe?",
    ("text", "pictures"): "Which picture do these words describe?",
    ("photo", "recordings"): "Which recordings describe this picture?",
    ("recording", "clips"): "Which clips look like this sound?",
    ("text", "clips"): "Which clips sound like these words?",
    ("photo", "clips"): "Which clips sound like this picture?",
}


class _Media(Protocol):
    def audio(self, utterance_id: str) -> bytes:
        """A sound as a file."""

    def image(self, image_id: str) -> bytes:
        """A picture as a file."""


class _ClipMedia:
    """The sounds of the clips that were found, and the frame to show of each."""

    def __init__(self, answer: Answer) -> None:
        self._frames = {hit.image_id: hit.frame for hit in answer.hits}
        found = find_utterances(Path("data/shards") / answer.corpus, answer.split, self._frames)
        self._clips = {clip.utterance_id: clip for clip in found}

    def audio(self, utterance_id: str) -> bytes:
        """See `_Media`."""
        return self._clips[utterance_id].sound or b""

    def image(self, image_id: str) -> bytes:
        """See `_Media`."""
        frame = self._frames[image_id]
        assert frame is not None
        return self._clips[image_id].frames[frame].image


def search_page(params: Params, query: Path | str, answer: Answer) -> str:
    """The answer as a self-contained page with pictures and players.

    Reads recordings, pictures and clips from the project's corpus.

    Raises:
        BrewlineError: a file of the corpus is missing.
    """
    is_clips = answer.found == "clips"
    media: _Media = _ClipMedia(answer) if is_clips else project_media(answer.corpus)
    name, content = (query, b"") if isinstance(query, str) else (query.name, query.read_bytes())
    album = Album("picture-", media.image)
    asked = Album("query-", lambda _: content)
    hits = [
        {
            "hit": hit,
            "image": None if is_clips and hit.frame is None else album.picture(hit.image_id),
            "audio": audio_uri(media.audio(hit.utterance_id)) if hit.utterance_id else "",
        }
        for hit in answer.hits
    ]
    return render(
        "search.html.j2",
        answer=answer,
        title=_TITLES[answer.kind, answer.found],
        name=name,
        query_audio=audio_uri(content) if answer.kind == "recording" else "",
        query_image=asked.picture(name) if answer.kind == "photo" else None,
        hits=hits,
        images=[*asked.pictures.values(), *album.pictures.values()],
        synthetic_notice=synthetic_notice(params, [answer.corpus]),
    )
