"""Decoding by content, and the faults that a decoder alone would pass over."""

import numpy as np
import pytest
from world import SAMPLE_RATE_HZ, corrupted_recordings, encode_audio, tone

from brewline.audio import AudioError, decode, to_mono_16k


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        ("OGG", "OPUS"),
        ("OGG", "VORBIS"),
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("FLAC", "PCM_16"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_decodes_every_format_to_its_end(format: str, subtype: str) -> None:
    audio = decode(encode_audio(tone(5, 1.5), format, subtype))
    assert audio.duration_s == pytest.approx(1.5, abs=0.05)
    assert audio.promised_duration_s == pytest.approx(audio.duration_s, abs=1e-6)
    assert audio.has_end
    # The tone of number 5 is at 385 Hz, whatever the codec did to it.
    spectrum = np.abs(np.fft.rfft(audio.samples[:, 0]))
    hz = np.argmax(spectrum) * audio.sample_rate_hz / len(audio.samples)
    assert hz == pytest.approx(385, abs=2)


def test_ogg_of_every_length_up_to_a_page_boundary_is_called_cut() -> None:
    content = encode_audio(tone(1, 2.0))
    for length in range(60, len(content), 97):
        try:
            audio = decode(content[:length])
        except AudioError as error:
            assert error.reason in ("truncated", "damaged")
        else:
            assert not audio.has_end


def test_one_flipped_bit_in_an_ogg_page_is_damage() -> None:
    content = bytearray(encode_audio(tone(1, 2.0)))
    content[len(content) // 2] ^= 1
    with pytest.raises(AudioError) as error:
        decode(bytes(content))
    assert error.value.reason == "damaged"
    assert "checksum" in error.value.detail


def test_wav_that_promises_more_than_it_holds() -> None:
    audio = decode(corrupted_recordings()["shorter_than_header"])
    assert audio.promised_duration_s == pytest.approx(2.0)
    assert audio.duration_s == pytest.approx(1.0, abs=0.01)


def test_what_is_no_audio_says_how_it_starts() -> None:
    with pytest.raises(AudioError, match="<html>") as error:
        decode(corrupted_recordings()["not_audio"])
    assert error.value.reason == "not_audio"


def test_mono_16k_averages_channels_and_keeps_the_pitch() -> None:
    stereo = np.stack([tone(5, 1.0), np.zeros(SAMPLE_RATE_HZ, np.float32)], axis=1)
    audio = decode(encode_audio(stereo, "WAV", "PCM_16", rate=48_000))
    mono = to_mono_16k(audio)
    assert mono.dtype == np.float32
    assert len(mono) == pytest.approx(len(stereo) / 3, abs=2)
    assert np.abs(mono).max() == pytest.approx(0.15, abs=0.02)
