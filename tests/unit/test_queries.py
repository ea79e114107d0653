"""What comes from outside meets the checks of a corpus, and is refused in the same words."""

import io
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from sounds import FORMATS, sound, wav_of_one_sample_a_second
from world import corrupted_recordings, encode_audio, picture, tone, tone_limits

from brewline.config.validate import ValidateParams
from brewline.core.errors import BrewlineError
from brewline.media.audio import decode, to_mono_16k
from brewline.quality.queries import (
    GuardedChecks,
    RefusedError,
    check_audio,
    check_image,
    hear,
    look,
)

PROJECT = Path(__file__).parents[2]
LIMITS = ValidateParams(**tone_limits())


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_heard_as_the_corpus_is(name: str) -> None:
    expected = to_mono_16k(decode(sound(name)))
    np.testing.assert_allclose(hear(sound(name), LIMITS), expected, atol=1e-6)


def loud(level: float) -> bytes:
    square = np.sign(tone(1, 1.0)) * level
    return encode_audio(square.astype(np.float32), "WAV", "FLOAT")


BAD_RECORDINGS = {
    **corrupted_recordings(),
    "clipped": loud(32_767 / 32_768),
    "half": sound("aiff")[: len(sound("aiff")) // 2],
    "never closed": sound("opus")[: sound("opus").rindex(b"OggS")],
    "half a video": sound("mp4")[: len(sound("mp4")) // 2],
    "constant": encode_audio(np.full(16_000, 0.5, np.float32), "WAV", "PCM_16"),
    "low_sample_rate": encode_audio(tone(1, 4.0), "WAV", "PCM_16", rate=4000),
    "too_many_channels": encode_audio(np.stack([tone(1, 1.0)] * 3, axis=1), "WAV", "PCM_16"),
    "a picture": picture(1),
}


@pytest.mark.parametrize("name", BAD_RECORDINGS)
def test_a_recording_is_refused_in_the_words_of_the_quarantine(name: str) -> None:
    content = BAD_RECORDINGS[name]
    fault = check_audio(content, LIMITS).fault
    assert fault
    with pytest.raises(RefusedError) as error:
        hear(content, LIMITS)
    assert str(error.value) == f"the recording is refused (`{fault.reason}`): {fault.detail}"
    assert error.value.reason == fault.reason
    assert isinstance(error.value, BrewlineError)


def eps() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "EPS")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [picture(1)[:300], eps(), b"<html>", sound("wav"), picture(1, (8, 8)), b""]
)
def test_a_picture_is_refused_in_the_words_of_the_quarantine(content: bytes) -> None:
    fault = check_image(content, LIMITS).fault
    assert fault
    with pytest.raises(RefusedError) as error:
        look(content, LIMITS)
    assert str(error.value) == f"the picture is refused (`{fault.reason}`): {fault.detail}"


def test_good_ones_pass() -> None:
    look(picture(1), LIMITS)
    assert len(hear(sound("opus"), LIMITS)) == 2 * 16_000


def flac_of_silence(hours: float) -> bytes:
    """A few bytes a second."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 48_000, 2, "PCM_16", format="FLAC") as file:
        for _ in range(round(hours * 3600 / 60)):
            file.write(np.zeros((60 * 48_000, 2), np.int16))
    return buffer.getvalue()


def test_a_recording_is_decoded_no_further_than_it_may_be_long() -> None:
    limits = LIMITS.model_copy(update={"max_duration_s": 20.0})
    content = bytearray(flac_of_silence(0.5))
    assert len(content) < 1_000_000
    # It says not how long it is.
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    tracemalloc.start()
    with pytest.raises(RefusedError, match=r"`too_long`\): it goes on after 20 s"):
        hear(bytes(content), limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A block of samples, and not half an hour.
    assert peak < 250 << 20


def test_a_rate_that_no_recording_has_costs_nothing() -> None:
    with pytest.raises(RefusedError, match="low_sample_rate"):
        hear(wav_of_one_sample_a_second(), LIMITS)


def test_in_a_process_of_its_own_the_answers_are_the_same() -> None:
    checks = GuardedChecks(LIMITS, 60.0)
    np.testing.assert_array_equal(checks.hear(sound("opus")), hear(sound("opus"), LIMITS))
    checks.look(picture(1))
    for content in (BAD_RECORDINGS["half"], BAD_RECORDINGS["a picture"]):
        with pytest.raises(RefusedError) as here:
            hear(content, LIMITS)
        with pytest.raises(RefusedError) as there:
            checks.hear(content)
        assert (str(there.value), there.value.reason) == (str(here.value), here.value.reason)
    with pytest.raises(RefusedError, match="the picture is refused"):
        checks.look(sound("opus"))


@pytest.mark.parametrize(
    ("what", "reason"), [(signal.SIGSTOP, "decoder_timeout"), (signal.SIGKILL, "decoder_crash")]
)
def test_a_decoder_that_hangs_or_crashes_costs_its_own_query_alone(
    what: signal.Signals, reason: str
) -> None:
    checks = GuardedChecks(LIMITS, 5.0)
    checks.hear(sound("wav"))
    # As if a file had done it.
    os.kill(checks._worker._process.pid or 0, what)
    with pytest.raises(RefusedError) as error:
        checks.hear(sound("wav"))
    assert error.value.reason == reason
    assert len(checks.hear(sound("wav")))


def test_a_script_that_cannot_be_imported_may_ask(tmp_path: Path) -> None:
    """A process that `multiprocessing` spawns imports the script, which would run again in it."""
    (tmp_path / "a.wav").write_bytes(sound("wav"))
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "sys.path[:0] = sys.argv[1:]\n"
        "from test_queries import LIMITS\n"
        "from brewline.quality.queries import GuardedChecks\n"
        "checks = GuardedChecks(LIMITS, 60.0)\n"
        "print(len(checks.hear(open('a.wav', 'rb').read())))\n"
    )
    paths = [str(Path(__file__).parent), str(PROJECT / "tests")]
    done = subprocess.run(
        [sys.executable, script, *paths], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(len(hear(sound("wav"), LIMITS)))]
