"""What a search found as one page that opens anywhere without a network."""

from pathlib import Path

from brewline.config import Params
from brewline.config.synthetic import synthetic_notice
from brewline.media.corpus_media import project_media
from brewline.pages.album import Album
from brewline.pages.render import audio_uri, render
from brewline.search.query import Answer


def search_page(params: Params, query: Path, answer: Answer) -> str:
    """The answer as a self-contained page with pictures and players.

    Reads the recordings and pictures from the project's corpus.

    Raises:
        BrewlineError: a file of the corpus is missing.
    """
    media = project_media(answer.corpus)
    content = query.read_bytes()
    album = Album("picture-", media.image)
    asked = Album("query-", lambda _: content)
    hits = [
        {
            "hit": hit,
            "image": album.picture(hit.image_id),
            "audio": audio_uri(media.audio(hit.utterance_id)) if hit.utterance_id else "",
        }
        for hit in answer.hits
    ]
    is_photo = answer.kind == "photo"
    query_image = asked.picture(query.name) if is_photo else None
    return render(
        "search.html.j2",
        answer=answer,
        name=query.name,
        query_audio="" if is_photo else audio_uri(content),
        query_image=query_image,
        hits=hits,
        images=[*asked.pictures.values(), *album.pictures.values()],
        synthetic_notice=synthetic_notice(params, [answer.corpus]),
    )
