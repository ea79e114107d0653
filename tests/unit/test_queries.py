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
import yaml
from PIL import Image
from sounds import FORMATS, sound, wav_of_one_sample_a_second
from world import corrupted_recordings, encode_audio, picture, tone, tone_limits

from brewline.config.validate import ValidateParams
from brewline.core.errors import BrewlineError
from brewline.media.audio import decode, to_mono_16k
from brewline.quality.queries import (
    GuardedChecks,
    RefusedError,
    _answers,
    _Query,
    check_audio,
    check_image,
)

PROJECT = Path(__file__).parents[2]
LIMITS = ValidateParams(**tone_limits())


@pytest.fixture(scope="module")
def checks() -> GuardedChecks:
    return GuardedChecks(LIMITS, 60.0)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_heard_as_the_corpus_is(name: str, checks: GuardedChecks) -> None:
    expected = to_mono_16k(decode(sound(name)))
    assert not checks.is_picture(sound(name))
    np.testing.assert_allclose(checks.hear(sound(name)), expected, atol=1e-6)


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
def test_a_recording_is_refused_in_the_words_of_the_quarantine(
    name: str, checks: GuardedChecks
) -> None:
    content = BAD_RECORDINGS[name]
    fault = check_audio(content, LIMITS).fault
    assert fault
    with pytest.raises(RefusedError) as error:
        checks.hear(content)
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
def test_a_picture_is_refused_in_the_words_of_the_quarantine(
    content: bytes, checks: GuardedChecks
) -> None:
    fault = check_image(content, LIMITS).fault
    assert fault
    with pytest.raises(RefusedError) as error:
        checks.look(content)
    assert str(error.value) == f"the picture is refused (`{fault.reason}`): {fault.detail}"


def test_good_ones_pass(checks: GuardedChecks) -> None:
    assert checks.is_picture(picture(1))
    checks.look(picture(1))
    assert len(checks.hear(sound("opus"))) == 2 * 16_000


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
    # As its process does, whose memory cannot be looked at.
    answer = _answers(limits, is_sound=False)
    tracemalloc.start()
    fault = answer(_Query("recording", bytes(content)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fault == ("too_long", "it goes on after 20 s")
    # A block of samples, and not half an hour.
    assert peak < 250 << 20


def test_a_rate_that_no_recording_has_costs_nothing(checks: GuardedChecks) -> None:
    with pytest.raises(RefusedError, match="low_sample_rate"):
        checks.hear(wav_of_one_sample_a_second())


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
    assert done.stdout.split() == [str(len(to_mono_16k(decode(sound("wav")))))]


def test_a_query_that_hangs_the_decoder_does_not_hang_the_search(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "from brewline.media import decoders\n"
        "decoders._StoredSamples.blocks = lambda *_: time.sleep(3600)\n"
    )
    (tmp_path / "a.wav").write_bytes(sound("wav"))
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    params["runtime"]["inspect_decode_limit_s"] = 1.0
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    done = subprocess.run(
        [sys.executable, "-m", "brewline.cli", "search", "a.wav"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{PROJECT / 'src'}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    told = "a.wav: the recording is refused (`decoder_timeout`): not done after 1 s"
    assert (done.returncode, done.stderr) == (1, f"error: {told}\n")
