"""Decoding by content, and the faults that a decoder alone would pass over."""

import io
import struct

import numpy as np
import pytest
import soundfile
from world import SAMPLE_RATE_HZ, corrupted_recordings, encode_audio, tone

from brewline.media.audio import AudioError, decode, to_mono_16k


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


def wav_with_size(size: int) -> bytes:
    """Two seconds of WAV whose `data` chunk claims another size."""
    wav = encode_audio(tone(2, 2.0), "WAV", "PCM_16")
    at = wav.index(b"data") + 4
    return wav[:at] + struct.pack("<I", size) + wav[at + 4 :]


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_wav_of_a_streaming_writer_is_as_long_as_it_is(size: int) -> None:
    audio = decode(wav_with_size(size))
    assert audio.promised_duration_s == audio.duration_s == 2.0


@pytest.mark.parametrize(
    ("format", "subtype"),
    [("WAV", "PCM_24"), ("WAV", "DOUBLE"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16"),
     ("WAV", "ULAW")],
)  # fmt: skip
def test_wav_in_all_its_kinds(format: str, subtype: str) -> None:
    content = encode_audio(tone(5, 1.5), format, subtype)
    audio = decode(content)
    assert audio.promised_duration_s == audio.duration_s == 1.5
    cut = decode(content[: len(content) // 2])
    assert cut.promised_duration_s == 1.5
    assert cut.duration_s < 0.8


def test_a_wrong_byte_rate_in_a_wav_header_hurts_nobody() -> None:
    wav = bytearray(encode_audio(tone(2, 2.0), "WAV", "PCM_16"))
    wav[28:32] = struct.pack("<I", 1)
    assert decode(bytes(wav)).promised_duration_s == 2.0


def test_flac_that_does_not_say_how_long_it_is() -> None:
    flac = bytearray(encode_audio(tone(2, 2.0), "FLAC", "PCM_16"))
    # STREAMINFO has 36 bits for the number of samples; zero means unknown.
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)
    audio = decode(bytes(flac))
    assert audio.promised_duration_s == audio.duration_s == 2.0
    # All ones promise 36 hours; no memory is taken for them.
    flac[21] |= 0x0F
    flac[22:26] = bytes([0xFF] * 4)
    audio = decode(bytes(flac))
    assert audio.duration_s == 2.0
    assert audio.promised_duration_s > 1_000_000


def test_opus_leaves_out_what_its_encoder_put_before_the_start() -> None:
    audio = decode(encode_audio(tone(5, 2.0)))
    assert audio.duration_s == pytest.approx(2.0, abs=1e-3)


def test_mp3_without_its_length_promises_all_of_its_frames() -> None:
    """Frames of 36 ms; the first has the length, and those after it have varying bit rates."""
    mp3 = encode_audio(tone(1, 2.0), "MP3", "MPEG_LAYER_III")
    assert decode(mp3).promised_duration_s == pytest.approx(2.0)
    # 64 kbit/s at 16 kHz: 72 * 64,000 / 16,000 bytes.
    assert mp3[2] >> 4 == 8
    headless = mp3[288:]
    audio = decode(headless)
    assert audio.promised_duration_s == pytest.approx(2.0, abs=0.15)
    assert audio.duration_s < 1.0
    with_tags = b"ID3\x03\0\0\0\0\x01\x02" + bytes(130) + headless + b"TAG" + bytes(125)
    assert decode(with_tags).promised_duration_s == audio.promised_duration_s


def test_mp3_with_one_bit_rate_is_whole_without_its_length() -> None:
    buffer = io.BytesIO()
    soundfile.write(
        buffer, tone(1, 2.0), SAMPLE_RATE_HZ, format="MP3", bitrate_mode="CONSTANT",
        compression_level=0.5,
    )  # fmt: skip
    mp3 = buffer.getvalue()
    # 80 kbit/s: 72 * 80,000 / 16,000 bytes.
    assert mp3[2] >> 4 == 9
    assert b"Info" in mp3[:360]
    audio = decode(mp3[360:])
    assert audio.duration_s == pytest.approx(audio.promised_duration_s, abs=1e-6)
    assert audio.duration_s == pytest.approx(2.0, abs=0.2)


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
