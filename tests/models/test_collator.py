from dataclasses import replace

import pytest
import torch
from tiny_models import E2E, IMAGE_SIZE, PROMPTED, make_world, variant

from brewline.core.errors import BrewlineError
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator
from brewline.samples.decoded_pictures import DecodedPictures
from brewline.samples.iteration import prefetch

CAPTIONS = variant(acoustic=None, text="caption")


def collator(backbone, switches, decoded=None):
    return Collator(input_transforms(backbone, switches), switches, decoded)


def test_the_switch_chooses_transcript_or_caption(backbone):
    world = make_world(1, takes=1)
    words = {
        switches.text: collator(backbone, switches).utterance_inputs(world).token_ids[0].tolist()
        for switches in (PROMPTED, CAPTIONS)
    }
    for source, text in (("asr", world[0].transcript), ("caption", world[0].caption)):
        plain = [i for i in backbone.tokenizer([text])[0].tolist() if i]
        assert words[source] == [plain[0], 0, 0, *plain[1:]]


def test_a_failed_transcript_is_an_empty_text(backbone):
    world = [replace(make_world(1)[0], transcript="")]
    inputs = collator(backbone, PROMPTED).utterance_inputs(world)
    assert inputs.token_ids.tolist() == [[49406, 0, 0, 49407]]


@pytest.mark.parametrize(
    ("switches", "change", "message"),
    [
        (CAPTIONS, {"caption": None}, "'u0-0' has no caption"),
        (E2E, {"states": None}, "'u0-0' came without encoder states"),
        (PROMPTED, {"image": None}, "'u0-0' has no image"),
        (PROMPTED, {"image_id": None}, "'u0-0' has no image"),
        (PROMPTED, {"image": b"JFIF"}, "image of utterance 'u0-0' is damaged"),
    ],
)
def test_what_is_missing_is_named(backbone, switches, change, message):
    world = [replace(make_world(1)[0], **change)]
    with pytest.raises(BrewlineError, match=message):
        collator(backbone, switches).collate(world)


def test_a_cut_image_is_damaged(backbone):
    utterance = make_world(1)[0]
    cut = replace(utterance, image=utterance.image[: len(utterance.image) // 2])
    with pytest.raises(BrewlineError, match="damaged"):
        collator(backbone, PROMPTED).collate([cut])


@pytest.mark.parametrize("pictures", ["own", "multicrop"])
def test_images_are_decoded_once_whoever_asks_for_them(backbone, tmp_path, monkeypatch, pictures):
    world = make_world(3, takes=1)
    switches = variant(acoustic=None, pictures=pictures)
    plain = collator(backbone, switches).collate(world)
    made = []
    for _ in range(2):
        # As in two processes: they share the file alone.
        maker = collator(backbone, switches, DecodedPictures(tmp_path / "shared", IMAGE_SIZE, 1))
        decode = maker._decode
        monkeypatch.setattr(maker, "_decode", lambda u, d=decode: (made.append(u), d(u))[1])
        for _ in range(2):
            found = maker.collate(world).pictures
            assert torch.equal(found.pixels, plain.pictures.pixels)
            assert len(found.pixels) == 3 or pictures == "multicrop"
    assert len(made) == 3


def test_results_come_in_order_and_errors_come_through():
    numbers = iter(range(5))
    results = prefetch(lambda: 1 / (3 - next(numbers)))
    assert [next(results) for _ in range(3)] == [1 / 3, 1 / 2, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
