"""Error rates by group against hand-made values, and the page that shows them."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from brewline.media.archives import MediaStore
from brewline.pages.word_diff import compare_words
from brewline.quality.expectations import Expectation
from brewline.quality.transcript_suite import expect_transcripts
from brewline.speech.assessment import assess, length_name
from brewline.speech.error_rates import Heard, Pair, align
from brewline.speech.page import transcription_page


def row(
    number: int, caption: str | None, duration_s: float = 3.0, **changes: Any
) -> dict[str, Any]:
    """A row of the manifest."""
    return {
        "utterance_id": f"u{number}",
        "split": "dev",
        "speaker_id": "ann",
        "caption": caption,
        "duration_s": duration_s,
        "audio_path": f"u{number}.wav",
    } | changes


def heard(number: int, text: str, **changes: Any) -> dict[str, Any]:
    """A row of the transcripts."""
    return {
        "utterance_id": f"u{number}",
        "split": "dev",
        "text": text,
        "language": "en",
        "avg_logprob": -0.3,
        "no_speech_prob": 0.0,
        "compression_ratio": 1.0,
        "temperature": 0.0,
        "num_windows": 1,
        "num_frames": 150,
        "status": "ok",
        "reason": None,
        "asr_model": "fake",
        "words": [{"word": "a", "start_s": 0.0, "end_s": 0.2, "probability": 0.5}],
    } | changes


MANIFEST = [
    row(0, "A dog runs."),
    row(1, "The colour of the cat, it's grey!", 12.0, speaker_id="bob"),
    row(2, "A dog sits", 12.0),
    row(3, None),
    row(4, "!"),
    row(5, "<b>one</b> two", 61.0, split="test"),
]
TRANSCRIPTS = [
    heard(0, "a dog runs"),
    # A spelling variant and a contraction are the same words.
    heard(1, "the color of the cat it is gray"),
    heard(2, "a fog sits down", temperature=0.4, reason="unsure"),
    heard(3, "anything"),
    heard(4, "anything"),
    heard(5, "", status="failed", reason="crash", avg_logprob=None, temperature=None),
]


def failing(rule: str) -> Expectation:
    return Expectation("transcripts", rule, "x", False, "5")


def test_rates_are_those_of_hand() -> None:
    found = assess(MANIFEST, TRANSCRIPTS, [])
    assert {name: rate.num_recordings for name, rate in found.splits.items()} == {
        "dev": 3,
        "test": 1,
    }
    dev = found.splits["dev"]
    # Of 3 + 8 + 3 words one is mistaken and one put in.
    assert (dev.num_words, dev.word_errors) == (14, 2)
    assert dev.wer == pytest.approx(2 / 14)
    # dog/fog is one letter, " down" five.
    assert dev.character_errors == 6
    assert found.splits["test"].wer == 1
    assert list(found.speakers) == ["ann", "bob"]
    assert found.speakers["bob"].word_errors == 0
    assert list(found.lengths) == ["2 to 5 s", "10 to 20 s", "over 60 s"]
    assert found.lengths["10 to 20 s"].word_errors == 2
    assert found.substitutions == [("dog", "fog", 1)]
    assert ("", "down", 1) in found.gaps
    assert [one.utterance_id for one in found.worst] == ["u5", "u2"]
    assert found.counts == {"ok": 5, "failed": 1}
    assert found.reasons == {"unsure": 1, "crash": 1}
    assert found.temperatures == {"0": 4, "0.4": 1}


def test_the_errors_of_each_recording_are_a_table_of_their_own() -> None:
    found = assess(MANIFEST, TRANSCRIPTS, [])
    assert [(one.utterance_id, one.num_words, one.word_errors) for one in found.errors] == [
        ("u0", 3, 0),
        ("u1", 8, 0),
        ("u2", 3, 2),
        ("u5", 2, 2),
    ]
    # Numbers, and no texts: there may be 600,000 of them.
    assert not isinstance(found.errors[0], Heard)
    assert "errors" not in found.as_json()


def test_rates_are_those_of_jiwer() -> None:
    import jiwer
    from whisper.normalizers import EnglishTextNormalizer

    normalise = EnglishTextNormalizer()
    dev = [0, 1, 2]
    said = [normalise(MANIFEST[n]["caption"]) for n in dev]
    texts = [normalise(TRANSCRIPTS[n]["text"]) for n in dev]
    rate = assess(MANIFEST, TRANSCRIPTS, []).splits["dev"]
    assert rate.wer == pytest.approx(jiwer.wer(said, texts))
    assert rate.cer == pytest.approx(jiwer.cer(said, texts))


def test_texts_belong_to_their_ids_and_not_to_their_places() -> None:
    shuffled = [TRANSCRIPTS[number] for number in (4, 2, 5, 0, 1, 3)]
    assert assess(MANIFEST, shuffled, []).as_json() == assess(MANIFEST, TRANSCRIPTS, []).as_json()
    # One has no text, and one text is of no utterance: the others are as they were.
    fewer = assess(MANIFEST, [*TRANSCRIPTS[1:], heard(99, "else")], [])
    assert fewer.splits["dev"].num_recordings == 2
    assert fewer.speakers["bob"].word_errors == 0


def compared(caption: str, text: str, language: str | None) -> Heard:
    (found,) = align([Pair("u", caption, text, language)])
    return found


@pytest.mark.parametrize("language", ["de", None])
@pytest.mark.parametrize(
    ("caption", "text", "errors"),
    [
        ("Das ist schön!", "das ist schon", 1),
        ("Das ist schön!", "das ist scho\u0308n", 0),
        # Vowels of Hindi are marks: neither are they nothing, nor do they end a word.
        ("दिन में", "दीन में", 1),
        ("दिन में", "दिन में।", 0),
        ("soft\u00adware", "software", 0),
    ],
)
def test_marks_are_heard_in_other_languages_than_english(
    caption: str, text: str, errors: int, language: str | None
) -> None:
    found = compared(caption, text, language)
    assert (found.num_words, found.word_errors) == (len(caption.split()), errors)
    *_, shown = compare_words(caption, text)
    assert shown == errors or "\u00ad" in caption


def test_only_english_has_the_english_normaliser() -> None:
    assert compared("the colour", "the color", "en").word_errors == 0
    assert compared("the colour", "the color", "nl").word_errors == 1


def test_the_small_letter_of_a_dotted_i_is_an_i_in_turkish() -> None:
    assert compared("İstanbul IRMAK", "istanbul \u0131rmak", "tr").word_errors == 0
    assert compared("IRMAK", "irmak", "tr").word_errors == 1


@pytest.mark.parametrize(
    ("caption", "text", "num_words", "errors"),
    [
        ("今日はいい天気です。", "今日は、いい天氣です", 9, 1),
        ("今天天气很好", "今天 天气很好。", 6, 0),
        # Of Thai the marks go with their signs.
        ("ที่นี่ดี", "ทีนี่ดี", 3, 1),
        ("iPhoneを2台", "iphone を 3台", 4, 1),
        ("안녕 하세요", "안녕 하세오", 2, 1),
    ],
)
def test_signs_are_words_where_the_script_has_no_spaces(
    caption: str, text: str, num_words: int, errors: int
) -> None:
    found = compared(caption, text, "ja")
    assert (found.num_words, found.word_errors) == (num_words, errors)
    # Spaces that the script does not have are no characters either.
    assert found.character_errors == errors
    said, heard, shown = compare_words(caption, text)
    assert shown == errors
    assert "".join(token.text + token.space for token in said) == caption
    assert len(said) == num_words
    assert all(len(token.text) < len(text) for token in heard)


@pytest.mark.parametrize(
    "text", ["7, 2, 9", "729", "7 2 9", "7-2-9", "Seven, two, nine.", "7. 2. 9."]
)
def test_digits_count_one_by_one_however_they_are_grouped(text: str) -> None:
    for caption in ("seven two nine", "729"):
        found = compared(caption, text, "en")
        assert (found.num_words, found.word_errors) == (3, 0)
    assert compared("seven two eight", text, "en").wer == pytest.approx(1 / 3)
    digits = text.replace("Seven, two, nine.", "729")
    assert compared("7 2 8", digits, "de").wer == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("zero zero seven", "007"),
        ("oh two oh seven nine", "020 79"),
        # Where Whisper's normaliser would write the 1 as a word in one of them.
        ("two one nine", "2, 1, 9"),
        ("two thousand", "2,000"),
        ("at five thirty", "at 05:30"),
        ("nought point five", "nought point five"),
    ],
)
def test_numbers_in_english_are_those_of_their_figures(caption: str, text: str) -> None:
    assert compared(caption, text, "en").word_errors == 0
    assert compared(text, caption, "en").word_errors == 0


@pytest.mark.parametrize("language", ["en", "de"])
def test_a_number_of_very_many_digits_is_one(language: str) -> None:
    """Whisper's English normaliser ends in an assertion there: Python refuses such numbers."""
    for number in ("7" * 10_000, "1." + "7" * 10_000, "$" + "7" * 10_000, "0" * 10_000):
        found = compared(number, number[:-1], language)
        assert found.num_words > 9_000
        assert found.word_errors == 1


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("sign", "[<( ")
def test_many_signs_that_are_no_words_take_no_time(sign: str, language: str) -> None:
    """For each of them the normalisers read the rest of the text, which is quadratic."""
    start = time.process_time()
    found = compared("a dog " + 20_000 * sign + " runs", "a dog runs", language)
    assert (found.num_words, found.word_errors) == (3, 0)
    assert time.process_time() - start < 3
    assert compared("a [laughs] dog (yes) [ runs", "a dog runs", language).word_errors == 0
    assert compared("a ) dog ] runs (", "a dog runs", language).word_errors == 0


def test_figures_of_other_scripts_are_figures() -> None:
    assert compared("\u0667 \u0662 \u0669", "729", "ar").word_errors == 0


def test_rates_do_not_depend_on_the_order_of_the_tables() -> None:
    turned = assess(MANIFEST, TRANSCRIPTS[::-1], [])
    assert turned.splits == assess(MANIFEST, TRANSCRIPTS, []).splits


def test_no_torch_is_needed() -> None:
    script = (
        "import sys\n"
        "from brewline.speech.error_rates import words_of\n"
        "assert words_of('Colours', 'en') == words_of('colors', 'en')\n"
        "assert words_of('Schön!', 'de') == ['schön']\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("duration_s", "name"),
    [(0.4, "0 to 2 s"), (2, "0 to 2 s"), (2.1, "2 to 5 s"), (99, "over 60 s")],
)
def test_lengths(duration_s: float, name: str) -> None:
    assert length_name(duration_s) == name


def frames(*tables: Sequence[dict[str, Any]]) -> list[Any]:
    import pandas

    return [pandas.DataFrame(table) for table in tables]


def test_what_must_hold_for_transcripts() -> None:
    texts, utterances = frames(TRANSCRIPTS, MANIFEST)
    outcomes = expect_transcripts(texts, utterances, max_failure_rate=0.2)
    assert [one.rule for one in outcomes if not one.success] == []
    outcomes = expect_transcripts(texts[:5], utterances, max_failure_rate=0.2)
    assert [one.rule for one in outcomes if not one.success] == ["all 6 good utterances have a row"]
    foreign = texts.replace({"utterance_id": {"u0": "other"}})
    outcomes = expect_transcripts(foreign, utterances, max_failure_rate=0.2)
    assert [one.rule for one in outcomes if not one.success] == [
        "all 6 good utterances have a row",
        "no row is of another utterance",
    ]
    outcomes = expect_transcripts(texts, utterances, max_failure_rate=0.1)
    failed = [one for one in outcomes if not one.success]
    assert [one.rule for one in failed] == ["no more than 10 % of the recordings failed"]
    assert failed[0].observed == "0.166667"
    for text in (".", "…", "_", "\n"):
        dotted = [TRANSCRIPTS[0] | {"text": text}, *TRANSCRIPTS[1:]]
        outcomes = expect_transcripts(*frames(dotted, MANIFEST), max_failure_rate=0.2)
        assert [one.rule for one in outcomes if not one.success] == [
            "a text is empty or has a word"
        ]
    for text in ("…\n犬", "हिन्दी", "7", ""):
        good = [TRANSCRIPTS[0] | {"text": text}, *TRANSCRIPTS[1:]]
        outcomes = expect_transcripts(*frames(good, MANIFEST), max_failure_rate=0.2)
        assert all(one.success for one in outcomes)
    imported = [row | {"avg_logprob": None, "status": "ok"} for row in TRANSCRIPTS]
    outcomes = expect_transcripts(*frames(imported, MANIFEST), max_failure_rate=0.1)
    assert all(one.success for one in outcomes)
    found = assess(MANIFEST, TRANSCRIPTS, failed)
    assert found.complaint("mine").startswith(
        "mine was not transcribed as expected: no more than 10 % of the recordings failed (observed"
    )


def test_the_page_shows_what_there_is_and_escapes_it(tmp_path: Path) -> None:
    (tmp_path / "u5.wav").write_bytes(b"RIFF....")
    store = MediaStore(tmp_path)
    found = assess(MANIFEST, TRANSCRIPTS, [failing("it is so")])
    page = transcription_page("mine", found, MANIFEST, TRANSCRIPTS, store)
    assert "data:audio/wav;base64," in page
    assert "<b>one</b>" not in page
    assert "&lt;b&gt;one" in page
    assert "0 of 1" in page
    assert "it is so" in page
    assert "://" not in page.replace("http://www.w3.org", "")
    assert page == transcription_page("mine", found, MANIFEST, TRANSCRIPTS, store)


def test_a_corpus_without_captions_has_a_page_too(tmp_path: Path) -> None:
    found = assess([row(0, None)], [heard(0, "a dog")], [])
    assert not found.splits
    page = transcription_page(
        "mine", found, [row(0, None)], [heard(0, "a dog")], MediaStore(tmp_path)
    )
    assert "word error rate" not in page
    assert "of 1 recordings recognised" in page
