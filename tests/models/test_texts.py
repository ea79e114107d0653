"""Texts as rows of tokens: the golden layouts, and windows of a long text."""

import itertools
from dataclasses import replace

import open_clip
import pytest
from tiny_models import FULL, STATE_WIDTH, make_world, variant

from brewline.models.brewclip import BrewClip
from brewline.models.texts import TextLayout
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator

START, END = 49406, 49407
LAYOUT = TextLayout(open_clip.SimpleTokenizer(), 77)
SIGNS = ["!", "!;", "!$", "a", "dog!", "...!!!"]
# Of all kinds, so that whatever id stands at the cut: that of "!" is 0, as padding is.
LONG = [" ".join(SIGNS[(i + j) % len(SIGNS)] for j in range(140)) for i in range(len(SIGNS))]


def ids(text: str) -> list[int]:
    return open_clip.SimpleTokenizer().encode(text)


def test_three_words_after_four_prompts() -> None:
    words = ids("a red ball")
    assert len(words) == 3
    row = [START, 0, 0, 0, 0, *words, END]
    assert LAYOUT.rows("a red ball", 4, "truncate").tolist() == [row]
    assert LAYOUT.rows("a red ball", 4, "truncate", padded=True).tolist() == [row + [0] * 68]


def test_a_full_text_keeps_71_words_and_the_end() -> None:
    text = " ".join(f"word {number}" for number in range(40))
    (row,) = LAYOUT.rows(text, 4, "truncate").tolist()
    assert row == [START, 0, 0, 0, 0, *ids(text)[:71], END]
    assert len(row) == 77


def test_a_text_that_just_fits_is_not_cut() -> None:
    text = "dog " * 71
    assert LAYOUT.rows(text, 4, "truncate").tolist() == [[START, 0, 0, 0, 0, *ids(text), END]]
    assert len(LAYOUT.rows(text, 4, "chunk")) == 1


@pytest.mark.parametrize("text", ["", "a red ball", *LONG])
def test_without_prompts_a_row_is_that_of_the_tokeniser(text: str) -> None:
    (row,) = LAYOUT.rows(text, 0, "truncate", padded=True)
    assert row.tolist() == open_clip.SimpleTokenizer()([text])[0].tolist()


@pytest.mark.parametrize("text", LONG)
@pytest.mark.parametrize("num_prompts", [0, 1, 4])
def test_every_text_keeps_its_end_and_its_words(text: str, num_prompts: int) -> None:
    (row,) = LAYOUT.rows(text, num_prompts, "truncate").tolist()
    assert row.count(END) == 1 and row[-1] == END and len(row) == 77
    assert row[1 + num_prompts : -1] == ids(text)[: 75 - num_prompts]


@pytest.mark.parametrize("num_words", [0, 1, 71, 72, 80, 142, 400])
def test_windows_hold_every_word_and_overlap(num_words: int) -> None:
    parts = LAYOUT.windows(num_words, 4, "chunk")
    read = [word for part in parts for word in range(num_words)[part]]
    assert sorted(set(read)) == list(range(num_words))
    assert all(len(range(num_words)[part]) == min(71, num_words) for part in parts)
    for one, other in itertools.pairwise(parts):
        assert 18 <= one.stop - other.start < 71
    # Each shares 18 of 71 with the next one, so that every further one adds 53.
    assert len(parts) == 1 + max(0, -(-(num_words - 71) // 53))


def test_the_word_behind_the_context_is_found(backbone) -> None:
    """Of two texts that differ in their last word alone: 12 words fit beside two prompts."""
    said = "one two three four five six seven eight nine ten eleven twelve thirteen "
    (one,) = make_world(1, takes=1)
    texts = [said + "red", said + "blue"]
    found = {}
    for long_texts in ("truncate", "chunk"):
        switches = variant(acoustic=None, long_texts=long_texts)
        collator = Collator(input_transforms(backbone, switches), switches)
        world = [replace(one, transcript=text) for text in texts]
        inputs = collator.utterance_inputs(world)
        embeddings = BrewClip(backbone, switches).encode_utterances(inputs).embeddings
        found[long_texts] = (embeddings[0] @ embeddings[1]).item()
    assert found["truncate"] == pytest.approx(1, abs=1e-6)
    assert found["chunk"] < 0.999


def test_a_long_text_has_the_mean_of_its_windows_and_a_short_one_stays(backbone) -> None:
    switches = variant(long_texts="chunk")
    world = make_world(2, takes=1)
    long = " ".join(["dog", "cat", "red", "blue", "tree"] * 5)
    world = [world[0], replace(world[1], transcript=long), world[0]]
    model = BrewClip(backbone, switches, (STATE_WIDTH,))
    inputs = Collator(input_transforms(backbone, switches), switches).utterance_inputs(world)
    assert inputs.text_index is not None
    assert inputs.text_index.tolist() == [0, 1, 1, 1, 2]
    features = model.encode_text(inputs)
    plain = Collator(input_transforms(backbone, FULL), FULL)
    words = long.split()
    windows = [" ".join(words[start : start + 12]) for start in (0, 6, 13)]
    alone = [world[0].transcript, *windows]
    rows = [replace(world[0], transcript=text) for text in alone]
    expected = model.encode_text(plain.utterance_inputs(rows))
    assert (features[0] - expected[0]).abs().max() < 1e-5
    assert (features[1] - expected[1:].mean(dim=0)).abs().max() < 1e-5
    assert (features[2] - expected[0]).abs().max() < 1e-5
