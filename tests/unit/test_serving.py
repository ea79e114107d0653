"""A served model: the same answers as a search in the project, and no harm from strangers."""

import base64
import io
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_world
import search_world
import soundfile
from PIL import Image
from sounds import sound, wav_of_one_sample_a_second

from brewline.config import Params, load_params
from brewline.core.errors import BrewlineError
from brewline.registry import serving
from brewline.registry.serving import QueryError, Served, load_bundle, write_bundle

CORPUS, NUM_IMAGES = search_world.CORPUS, search_world.NUM_IMAGES
MODEL = Path("models") / search_world.FULL / "seed-0"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    search_world.make_world(root)
    return root


@pytest.fixture(scope="module")
def params(project: Path) -> Params:
    return load_params(project / "params.yaml")


@pytest.fixture(scope="module")
def bundle(project: Path, params: Params) -> Path:
    folder = project / "bundle"
    write_bundle(params, CORPUS, project / MODEL, folder, project)
    return folder


@pytest.fixture(scope="module")
def served(bundle: Path) -> Served:
    return load_bundle(bundle)


def packed(content: bytes) -> str:
    return base64.b64encode(content).decode()


def image(kind: str = "PNG", size: tuple[int, int] = (60, 40), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return buffer.getvalue()


def recording(duration_s: float, **options: Any) -> bytes:
    buffer = io.BytesIO()
    samples = np.zeros(round(16_000 * duration_s), np.float32) + options.pop("value", 0)
    soundfile.write(buffer, samples, 16_000, **{"format": "WAV", **options})
    return buffer.getvalue()


def test_answers_are_those_of_a_search_in_the_project(
    served: Served, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brewline.search.query import search

    monkeypatch.chdir(project)
    for kind, content, found in (
        ("audio", report_world.tone(3), "image_id"),
        ("image", report_world.drawing(2), "utterance_id"),
    ):
        (project / "query").write_bytes(content)
        answer = search(project / "query", load_params(), MODEL, top=3)
        (given,) = served.answer([{kind: packed(content)}], 3)
        assert given["ids"] == [getattr(hit, found) for hit in answer.hits]
        assert given["scores"] == pytest.approx([hit.score for hit in answer.hits], abs=1e-5)
        assert given.get("transcript") == answer.transcript


def test_top_k_0_asks_for_the_embedding(served: Served) -> None:
    records = [
        {"text": "a thing", "audio": None, "image": float("nan")},
        {"image": packed(image("JPEG"))},
        {"audio": packed(report_world.tone(1))},
    ]
    for answer in served.answer(records, 0):
        assert np.linalg.norm(answer["embedding"]) == pytest.approx(1, abs=1e-5)
        assert "ids" not in answer


def test_no_picture_is_answered_for_the_one_before_it(served: Served) -> None:
    pictures = [{"image": packed(report_world.drawing(number))} for number in (1, 2)]
    first, second = served.answer(pictures, 0)
    assert first != second
    assert served.answer(pictures[1:], 0)[0]["embedding"] == pytest.approx(second["embedding"])


def test_more_than_there_is_gives_all_there_is(served: Served) -> None:
    (answer,) = served.answer([{"text": "a thing"}], 1000)
    assert len(answer["ids"]) == NUM_IMAGES
    assert answer["scores"] == sorted(answer["scores"], reverse=True)


def test_a_phone_photo_and_its_upright_copy_get_the_same_answer(served: Served) -> None:
    with Image.open(io.BytesIO(report_world.drawing(2))) as upright:
        exif = Image.Exif()
        exif[274] = 6
        buffer = io.BytesIO()
        upright.transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", quality=95, exif=exif)
    queries = [{"image": packed(one)} for one in (report_world.drawing(2), buffer.getvalue())]
    first, second = (np.array(answer["embedding"]) for answer in served.answer(queries, 0))
    assert first @ second > 0.999


@pytest.mark.parametrize("name", ["m4a", "webm", "amr", "mp4", "wma", "aiff"])
def test_recordings_of_every_kind_are_heard(served: Served, name: str) -> None:
    assert len(served.answer([{"audio": packed(sound(name))}], 1)[0]["ids"]) == 1


BAD = {
    "nothing": ({}, "exactly one of audio, image and text; found none of them"),
    "two": ({"text": "a", "image": "b"}, "found image and text"),
    "a path": ({"audio": "/etc/passwd"}, "must be the bytes of a file in base64; paths"),
    "an address": ({"image": "https://example.org/a.png"}, "paths and addresses are not read"),
    "a file URI": ({"image": "file:///etc/passwd"}, "paths and addresses are not read"),
    "a number": ({"text": 5}, "text must be a string, not int"),
    "no words": ({"text": "  "}, "text is empty"),
    "many words": ({"text": "a " * 2000}, "text has 4000 characters, more than 2000"),
    "no bytes": ({"audio": ""}, "audio is empty"),
    "a picture to hear": ({"audio": packed(image())}, "the recording is refused (`not_audio`)"),
    "a recording to see": ({"image": packed(recording(1))}, "the picture is refused (`bad_image`)"),
    "a program to see": ({"image": packed(image("EPS"))}, "no known image format (JPEG, PNG"),
    "a cut picture": ({"image": packed(report_world.drawing(1)[:700])}, "(`bad_image`)"),
    "a cut recording": ({"audio": packed(report_world.tone(1)[:2000])}, "(`truncated`)"),
    "half a WAV": ({"audio": packed(sound("wav")[:32_000])}, "(`shorter_than_header`)"),
    "an unclosed OGG": (
        {"audio": packed(sound("opus")[: sound("opus").rindex(b"OggS")])},
        "without its end mark",
    ),
    "a clipped recording": (
        {"audio": packed(recording(1, value=32_767 / 32_768, subtype="FLOAT"))},
        "the recording is refused (`",
    ),
    "a long recording": (
        {"audio": packed(recording(401, format="OGG", subtype="OPUS"))},
        "(`too_long`)",
    ),
    "no samples": ({"audio": packed(recording(0))}, "(`too_short`): 0.000 s, under 0.3 s"),
    "no numbers": (
        {"audio": packed(recording(1, value=np.nan, subtype="FLOAT"))},
        "samples of 16000 are NaN or infinite",
    ),
    "a large picture": (
        {"image": packed(image(size=(16_000, 16_000), mode="1"))},
        "it has more than 250 million pixels",
    ),
    "a long picture": ({"image": packed(image(size=(8000, 40)))}, "(`extreme_shape`)"),
    "a large file": ({"audio": "A" * 28_000_000}, "audio is larger than 20 MB"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_query_is_one_sentence(served: Served, name: str) -> None:
    record, message = BAD[name]
    with pytest.raises(QueryError) as caught:
        served.answer([{"text": "a good one"}, record], 1)
    sentence = str(caught.value)
    assert sentence.startswith("Record 1: ") and sentence.endswith(".") and "\n" not in sentence
    assert message in sentence
    assert len(sentence) < 250


def test_a_header_that_promises_too_much_is_believed_before_it_is_decoded(served: Served) -> None:
    with pytest.raises(QueryError, match=r"low_sample_rate"):
        served.answer([{"audio": packed(wav_of_one_sample_a_second())}], 1)


@pytest.mark.parametrize(("count", "top_k"), [(0, 1), (33, 1), (1, -1)])
def test_a_bad_request_is_one_sentence(served: Served, count: int, top_k: int) -> None:
    with pytest.raises(QueryError, match=r"(Send 1 to 32 records|top_k must be 0 or more)"):
        served.answer([{"text": "a"}] * count, top_k)


def test_a_model_without_text_channel_says_so(project: Path, served: Served) -> None:
    card = served.embedder.card
    deaf = card.model_copy(
        update={"switches": card.switches.model_copy(update={"text": None}), "variant": "e2e"}
    )
    served.embedder.card = deaf
    try:
        with pytest.raises(QueryError, match=r"variant 'e2e' hears speech and reads no text\.$"):
            served.answer([{"text": "a"}], 1)
    finally:
        served.embedder.card = card


def test_a_bundle_names_no_caption(bundle: Path) -> None:
    assert b"thing number" not in (bundle / serving.GALLERY_FILE).read_bytes()


def test_backbones_are_resolved_by_hash(
    bundle: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(bundle, bare)
    shutil.rmtree(bare / serving.BACKBONES)
    monkeypatch.delenv(serving.BACKBONES_VARIABLE, raising=False)
    with pytest.raises(BrewlineError, match=r"whisper [0-9a-f]{64}.*set BREWLINE_BACKBONES"):
        load_bundle(bare)
    folder = tmp_path / "backbones"
    shutil.copytree(project / "models/backbones", folder)
    monkeypatch.setenv(serving.BACKBONES_VARIABLE, str(folder))
    assert len(load_bundle(bare).answer([{"text": "a thing"}], 2)[0]["ids"]) == 2
    (folder / "whisper.pt").write_bytes(b"another")
    with pytest.raises(BrewlineError, match=r"whisper.pt has the SHA-256 .* was trained on"):
        load_bundle(bare)
    (folder / "whisper.pt").unlink()
    with pytest.raises(BrewlineError, match=r"whisper.pt is missing; needed is clip"):
        load_bundle(bare)
    with pytest.raises(BrewlineError, match="is missing"):
        serving.add_backbones(bare, folder)


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrewlineError, match="no model that Brewline serves"):
        load_bundle(tmp_path)
    (tmp_path / "serving.json").write_text('{"format": 1}')
    with pytest.raises(BrewlineError, match=r"another version .* \(serving.json: format, c"):
        load_bundle(tmp_path)


def test_a_recording_that_holds_its_decoder_costs_its_own_query(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MAX_DECODE_S", 5.0)
    served = load_bundle(bundle)
    query = [{"audio": packed(report_world.tone(1))}]
    before = served.answer(query, 1)
    # As if a file had done it.
    os.kill(served._checks._worker._process.pid or 0, signal.SIGSTOP)
    with pytest.raises(QueryError, match=r"Record 0: .*`decoder_timeout`.* not done after 5 s"):
        served.answer(query, 1)
    assert served.answer(query, 1) == before
