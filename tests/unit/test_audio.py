"""Decoding by content, and the faults that a decoder alone would pass over."""

import io
import struct

import av
import numpy as np
import pytest
import soundfile
import sounds
from sounds import DURATION_S, FORMATS, sound
from world import SAMPLE_RATE_HZ, corrupted_recordings, encode_audio, tone

from brewline.media.audio import Audio, AudioError, decode, open_recording, to_mono_16k
from brewline.media.chunks import chunk_sounds
from brewline.media.decoders import open_stream
from brewline.media.ogg import page_checksum
from brewline.media.recording import Samples, Sound

# What is missing before it is said, as in params.yaml.
MISMATCH_S = 0.1


def pitch_hz(samples: np.ndarray, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples))
    return float(np.argmax(spectrum) * rate_hz / len(samples))


def is_whole(audio: Audio) -> bool:
    """Whether the checks of a corpus would find nothing missing."""
    return audio.has_end and audio.promised_duration_s - audio.duration_s <= MISMATCH_S


def is_called_cut(content: bytes) -> bool:
    try:
        return not is_whole(decode(content))
    except AudioError as error:
        assert error.reason in ("truncated", "damaged", "not_audio", "no_audio_track")
        return True


@pytest.mark.parametrize("name", FORMATS)
def test_decodes_every_format_to_its_end(name: str) -> None:
    audio = decode(sound(name))
    # Codecs add silence at both ends, up to two frames of AAC.
    assert audio.duration_s == pytest.approx(DURATION_S, abs=0.13)
    assert audio.promised_duration_s == pytest.approx(audio.duration_s, abs=0.02)
    assert audio.has_end
    # The tone of number 5 is at 385 Hz, whatever the codec did to it.
    assert pitch_hz(audio.samples[:, 0], audio.sample_rate_hz) == pytest.approx(385, abs=2)
    assert np.abs(audio.samples).max() == pytest.approx(0.3, abs=0.2)


# MPEG audio layer II at one bit rate, ADTS, AMR and MPEG-TS say not how many frames they have: a
# cut shows where it is inside of a frame, or of a packet of 188 bytes.
CUT_BETWEEN_FRAMES = {"mp2": 576, "adts": None, "amr": 32, "mpegts": 188}


@pytest.mark.parametrize("name", FORMATS)
def test_half_of_a_recording_is_never_whole(name: str) -> None:
    content = sound(name)
    missed = []
    for length in range(200, len(content) - len(content) // 10, len(content) // 37):
        if not is_called_cut(content[:length]):
            missed.append(length)
    if name in CUT_BETWEEN_FRAMES:
        assert len(missed) <= 2
    else:
        assert not missed


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "caf-alac"])
def test_two_files_joined_are_heard_one_after_the_other(name: str) -> None:
    joined = sound(name) + sound(name, number=25)
    audio = decode(joined)
    assert is_whole(audio)
    assert audio.duration_s == pytest.approx(2 * DURATION_S, abs=0.25)
    half = len(audio.samples) // 2
    margin = audio.sample_rate_hz // 5
    rate_hz, samples = audio.sample_rate_hz, audio.samples[:, 0]
    assert pitch_hz(samples[margin : half - margin], rate_hz) == pytest.approx(385, abs=3)
    assert pitch_hz(samples[half + margin : -margin], rate_hz) == pytest.approx(1125, abs=3)


def test_joined_files_of_a_writer_that_counts_wrong_are_called_cut() -> None:
    """The ALAC of libsndfile is a byte longer than it says: where the second begins is unknown."""
    assert is_called_cut(sound("caf-alac") * 2)


@pytest.mark.parametrize(
    ("first", "second"),
    [("opus", "vorbis"), ("mp3", "mp2"), ("wav", "mp3"), ("wav", "flac"), ("vorbis", "wav")],
)
def test_joined_files_of_two_kinds_are_heard_whole_or_refused(first: str, second: str) -> None:
    joined = sound(first) + sound(second)
    try:
        audio = decode(joined)
    except AudioError as error:
        assert error.reason in ("mixed_formats", "damaged")
    else:
        assert not is_whole(audio) or audio.duration_s > 1.9 * DURATION_S


def test_another_rate_or_other_channels_in_the_middle_are_named() -> None:
    mono = encode_audio(tone(1, 1.0), "WAV", "PCM_16")
    stereo = encode_audio(np.stack([tone(1, 1.0)] * 2, axis=1), "WAV", "PCM_16")
    with pytest.raises(AudioError, match="16000 Hz and 2 channels after 16000 Hz and 1") as error:
        decode(mono + stereo)
    assert error.value.reason == "mixed_formats"
    fast = encode_audio(tone(1, 1.0), "FLAC", "PCM_16", rate=8000)
    with pytest.raises(AudioError, match="8000 Hz and 1 channels after 16000 Hz and 1"):
        decode(encode_audio(tone(1, 1.0), "FLAC", "PCM_16") + fast)


@pytest.mark.parametrize("name", ["wav", "flac", "amr", "opus", "m4a", "webm", "flv"])
def test_a_file_of_very_many_files_is_refused_in_no_time(name: str) -> None:
    short = sound(name, 0.05)
    with pytest.raises(AudioError, match="more than 256 recordings are joined"):
        decode(short * 300)


ID3V2 = b"ID3\x03\0\0\0\0\x01\x02" + bytes(130)
TAILS = {"a newline": b"\n", "padding": bytes(700), "ID3v1": b"TAG" + b"x" * 125,
         "APE": b"APETAGEX" + bytes(40)}  # fmt: skip


_MP3_FRAME = b"\xff\xfb\x90\x64" + bytes(413)
_ADTS_FRAME = bytes.fromhex("fff1504000fffc")


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"\x1a\x45\xdf\xa3\x80", b"\xec\x80"),  # Matroska: what is void
        (b"\x1a\x45\xdf\xa3\x80", b"\x1f\x43\xb6\x75\xff"),  # clusters of no known size
        (b"\0\0\0\x0cftypM4A ", b"\0\0\0\x08free"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), (24).to_bytes(8, "little") + bytes(16)),
        (b"RIFF\x04\0\0\0AVI ", b"RIFF\0\0\0\0"),
        (b"FLV\x01\x04\0\0\0\x09\0\0\0\0", b"\x08" + bytes(14)),
        (b"RIFF\xff\xff\xff\xffWAVE", b"abcd\0\0\0\0"),
        (b"FORM\xff\xff\xff\xffAIFF", b"abcd\0\0\0\0"),
        (
            b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0" + bytes(24),
            b"x" * 16 + (24).to_bytes(8, "little"),
        ),
        (b"#!AMR\n", b"\x7c"),  # frames without data
        (b"", b"#!AMR\n" + b"\x7c" * 20),  # files of them, joined
        (b"", _ADTS_FRAME),
        (_ADTS_FRAME * 10, b"\xff"),  # where a frame might begin
        (_MP3_FRAME * 10, b"\xff"),
        (_MP3_FRAME * 10, b"ID3\x04\0\0\0\0\0\0"),
    ],
)
def test_a_file_of_very_many_parts_is_refused_in_no_time(
    head: bytes, part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the real limit, some 20 MB of these took half a minute.
    monkeypatch.setattr("brewline.media.recording.MAX_PARTS", 1000)
    with pytest.raises(AudioError, match="more than 1000 parts") as refused:
        decode(head + part * 1100)
    assert refused.value.reason == "damaged"


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("name", FORMATS)
def test_what_may_follow_a_recording_hurts_nobody(name: str, tail: str) -> None:
    audio, alone = decode(sound(name) + TAILS[tail]), decode(sound(name))
    assert is_whole(audio)
    assert audio.duration_s == alone.duration_s


@pytest.mark.parametrize("name", ["mp3", "flac", "opus", "wav", "adts"])
def test_a_tag_may_come_first(name: str) -> None:
    audio, alone = decode(ID3V2 + sound(name)), decode(sound(name))
    np.testing.assert_array_equal(audio.samples, alone.samples)


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


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 0])
def test_wav_of_a_streaming_writer_is_as_long_as_it_is(size: int) -> None:
    wav = wav_with_size(size)
    for whole in (wav, wav[:4] + struct.pack("<I", size) + wav[8:]):
        audio = decode(whole)
        assert audio.promised_duration_s == audio.duration_s == 2.0


@pytest.mark.parametrize("name", ["rf64", "aiff", "au"])
def test_other_streams_of_unknown_size_are_as_long_as_they_are(name: str) -> None:
    content = bytearray(sound(name))
    if name == "rf64":
        content[28:36] = bytes(8)
    elif name == "au":
        content[8:12] = b"\xff" * 4
        assert decode(bytes(content)).duration_s == DURATION_S
        content[8:12] = bytes(4)
    else:
        at = content.index(b"SSND") + 4
        content[at : at + 4] = bytes(4)
    audio = decode(bytes(content))
    assert audio.promised_duration_s == audio.duration_s == DURATION_S


def test_a_wav_without_samples_is_empty_and_no_stream() -> None:
    empty = encode_audio(np.zeros(0, np.float32), "WAV", "PCM_16")
    note = b"LIST" + struct.pack("<I", 8) + b"INFOabcd"
    for content in (empty, empty + note):
        assert decode(content).duration_s == decode(content).promised_duration_s == 0


def test_samples_that_a_wav_does_not_count_are_missed() -> None:
    """As if its writer had been stopped before the size was written for the last time."""
    audio = decode(wav_with_size(32_000))
    assert audio.duration_s == 1.0
    assert audio.promised_duration_s == pytest.approx(2.0)


def test_a_chunk_after_an_odd_number_of_bytes_needs_no_padding() -> None:
    wav = encode_audio(np.zeros(8001, np.float32), "WAV", "PCM_U8")
    wav = wav[: wav.index(b"data") + 8 + 8001]
    for padding in (b"", b"\0"):
        audio = decode(wav + padding + b"LIST" + struct.pack("<I", 4) + b"INFO")
        assert audio.promised_duration_s == audio.duration_s == 8001 / SAMPLE_RATE_HZ


@pytest.mark.parametrize("name", ["wav", "rf64", "aiff", "w64", "caf", "au", "m4a", "webm"])
def test_a_file_that_ends_before_its_sound_is_cut(name: str) -> None:
    for length in (20, 24):
        with pytest.raises(AudioError) as error:
            decode(sound(name)[:length])
        assert error.value.reason in ("truncated", "damaged")


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


def test_flac_that_is_longer_than_it_says_is_heard_whole() -> None:
    flac = bytearray(sound("flac"))
    flac[22:26] = (SAMPLE_RATE_HZ).to_bytes(4, "big")
    audio = decode(bytes(flac))
    assert audio.duration_s == DURATION_S
    assert is_whole(audio)


def headless_mp3() -> bytes:
    """Frames of 36 ms with varying bit rates; the first, which has the length, is left out."""
    mp3 = sound("mp3")
    # 64 kbit/s at 16 kHz: 72 * 64,000 / 16,000 bytes.
    assert mp3[2] >> 4 == 8
    return mp3[288:]


def test_mp3_with_varying_bit_rates_is_whole_without_its_length() -> None:
    headless = headless_mp3()
    for content in (headless, ID3V2 + headless + b"TAG" + bytes(125)):
        audio = decode(content)
        assert is_whole(audio)
        assert audio.duration_s == pytest.approx(DURATION_S, abs=0.15)


@pytest.mark.parametrize("junk", [bytes(1000), b"junk" * 300, "half a frame"])
@pytest.mark.parametrize("with_header", [True, False])
def test_what_comes_before_the_first_frame_of_an_mp3_is_skipped(
    junk: bytes | str, with_header: bool
) -> None:
    mp3 = sound("mp3") if with_header else headless_mp3()
    before = headless_mp3()[200:288] if isinstance(junk, str) else junk
    audio = decode(before + mp3)
    assert is_whole(audio)
    assert audio.duration_s == pytest.approx(DURATION_S, abs=0.15)


def test_what_is_lost_in_the_middle_of_an_mp3_is_missed() -> None:
    mp3 = sound("mp3")
    middle = len(mp3) // 2
    for hole in (bytes(600), b"\xaa" * 600):
        damaged = mp3[:middle] + hole + mp3[middle + 600 :]
        assert is_called_cut(damaged)
    # A tag between two files is nothing that was lost.
    assert is_whole(decode(mp3 + ID3V2 + mp3))
    assert is_whole(decode(mp3 + b"TAG" + b"x" * 125 + mp3))


def test_mp3_in_a_wav_is_heard_whole_and_its_cut_is_seen() -> None:
    frames = headless_mp3()
    head = b"WAVEfmt " + struct.pack("<IHHIIHHHHIHHH", 30, 0x55, 1, 16_000, 8_000, 1, 0, 12, 1, 2,
                                     288, 1, 0)  # fmt: skip
    body = head + b"data" + struct.pack("<I", len(frames)) + frames
    wav = b"RIFF" + struct.pack("<I", len(body)) + body
    audio = decode(wav)
    assert is_whole(audio)
    assert audio.duration_s == pytest.approx(DURATION_S, abs=0.15)
    cut = decode(wav[: len(wav) // 2])
    assert cut.promised_duration_s > 1.5 * cut.duration_s


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
    assert is_whole(audio)
    assert audio.duration_s == pytest.approx(2.0, abs=0.2)


def pages(content: bytes) -> list[bytes]:
    """The pages of an Ogg file without `OggS` in its data."""
    return [b"OggS" + page for page in content.split(b"OggS")[1:]]


def test_a_page_that_is_missing_in_an_ogg_is_damage() -> None:
    parts = pages(encode_audio(tone(1, 6.0)))
    assert len(parts) > 5
    assert decode(b"".join(parts)).duration_s == pytest.approx(6.0, abs=0.01)
    with pytest.raises(AudioError, match="pages are missing before Ogg page 3") as error:
        decode(b"".join(parts[:3] + parts[4:]))
    assert error.value.reason == "damaged"


def test_an_ogg_in_which_another_stream_lies_is_heard_whole() -> None:
    """A stream of something else beside the sound, as videos and their skeletons have it."""
    parts = pages(sound("vorbis"))

    def page(flags: int, number: int, body: bytes) -> bytes:
        raw = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, 0, 77, number, 0, 1)
        raw += bytes([len(body)]) + body
        return raw[:22] + struct.pack("<I", page_checksum(raw)) + raw[26:]

    beside = [page(2, 0, b"fishead\0" + bytes(56)), page(4, 1, b"")]
    audio = decode(b"".join([parts[0], beside[0], *parts[1:-1], beside[1], parts[-1]]))
    assert is_whole(audio)
    assert audio.duration_s == pytest.approx(DURATION_S, abs=0.03)
    with pytest.raises(AudioError) as error:
        decode(b"".join(beside))
    assert error.value.reason == "no_audio_track"


def test_an_ogg_that_was_never_closed_says_so_in_every_part_of_a_chain() -> None:
    parts = pages(encode_audio(tone(1, 6.0)))
    assert not decode(b"".join(parts[:-1])).has_end
    assert not decode(b"".join(parts[:-1] + parts)).has_end


@pytest.mark.parametrize("name", ["mp4", "mkv"])
def test_pictures_that_go_on_after_the_sound_are_no_fault(name: str) -> None:
    content = sound(name)
    with av.open(io.BytesIO(content)) as container:
        assert container.streams.video
        assert container.duration >= 1e6 * (DURATION_S + 0.9)
    assert is_whole(decode(content))


def test_a_video_without_a_sound_track_says_so() -> None:
    with pytest.raises(AudioError) as error:
        decode(sounds.silent_video())
    assert error.value.reason == "no_audio_track"


def test_a_webm_that_lost_its_end_at_a_border_is_called_cut() -> None:
    """A stream without sizes, cut where a part ends, is whole; one that says its length is not."""
    content = sound("webm")
    assert b"\x1f\x43\xb6\x75" in content
    # The size of the segment, in eight bytes, made unknown.
    at = content.index(b"\x18\x53\x80\x67") + 4
    for length in range(len(content) // 2, len(content) // 2 + 400, 7):
        open_sized = content[:at] + b"\x01" + b"\xff" * 7 + content[at + 8 : length]
        assert is_called_cut(open_sized)


def test_an_mp4_without_its_index_is_cut() -> None:
    content = sound("m4a")
    at = content.index(b"moov") - 4
    with pytest.raises(AudioError, match="index of the MP4 is missing") as error:
        decode(content[:at])
    assert error.value.reason == "truncated"


def test_playlists_and_texts_that_name_other_files_are_not_followed(tmp_path) -> None:
    """FFmpeg knows formats that are lists of files and addresses."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(sound("wav"))
    for text in (
        f"ffconcat version 1.0\nfile '{secret}'\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{secret}\n#EXT-X-ENDLIST\n",
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 1 RTP/AVP 0\na={secret}\n",
    ):
        with pytest.raises(AudioError) as error:
            decode(text.encode())
        assert error.value.reason == "not_audio"


def test_damage_in_the_middle_of_a_compressed_stream_is_said() -> None:
    content = bytearray(sound("m4a"))
    at = content.index(b"mdat") + 3000
    content[at : at + 3000] = bytes(np.random.default_rng(1).integers(0, 256, 3000, np.uint8))
    assert is_called_cut(bytes(content))


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "m4a", "amr", "alac", "ogg-flac"])
def test_integers_and_floats_of_a_recording_are_the_same(name: str) -> None:
    with open_recording(sound(name)) as recording:
        floats = np.concatenate(list(recording.blocks("float32")))
    with open_recording(sound(name)) as recording:
        integers = np.concatenate(list(recording.blocks("int16")))
    assert (integers.dtype, floats.dtype) == (np.int16, np.float32)
    np.testing.assert_allclose(integers / 32_768, floats, atol=1.1 / 32_768)


@pytest.mark.parametrize("name", ["flac", "opus", "m4a", "webm", "mp3"])
def test_blocks_are_bounded_and_lose_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = sound(name) * 2
    whole = decode(content)
    monkeypatch.setattr("brewline.media.decoders._BLOCK_SAMPLES", 3000)
    with open_recording(content) as recording:
        blocks = list(recording.blocks("float32"))
    assert max(map(len, blocks)) <= 3000 + 2048
    np.testing.assert_array_equal(np.concatenate(blocks), whole.samples)
    assert recording.promised_duration_s == pytest.approx(whole.promised_duration_s)


def test_both_channels_of_a_stereo_file_are_kept_apart() -> None:
    left, right = tone(5, 1.0), tone(25, 1.0)
    stereo = np.stack([left, right], axis=1)
    for format, subtype in (("FLAC", "PCM_16"), ("WAV", "PCM_16"), ("OGG", "VORBIS")):
        audio = decode(encode_audio(stereo, format, subtype))
        assert pitch_hz(audio.samples[:, 0], SAMPLE_RATE_HZ) == pytest.approx(385, abs=3)
        assert pitch_hz(audio.samples[:, 1], SAMPLE_RATE_HZ) == pytest.approx(1125, abs=3)


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


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("cut", [0, 1, 3, 1001])
def test_plain_samples_are_those_that_libsndfile_reads(channels: int, cut: int) -> None:
    """They need no decoder; cut within a sample of all channels, the part of it is left out."""
    rng = np.random.default_rng(channels)
    samples = rng.integers(-32768, 32768, (3000, channels), dtype=np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 22_050, format="WAV", subtype="PCM_16")
    content = buffer.getvalue()[: len(buffer.getvalue()) - cut]
    (sound,) = chunk_sounds(content) or []
    assert sound.samples
    expected, rate_hz = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    found = decode(content)
    np.testing.assert_array_equal(found.samples, expected)
    assert found.sample_rate_hz == rate_hz
    assert found.promised_duration_s == pytest.approx(3000 / 22_050, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("floats", struct.pack("<HHIIHH", 3, 1, 8000, 32_000, 4, 32)),
        ("no channels", struct.pack("<HHIIHH", 1, 0, 8000, 16_000, 2, 16)),
        ("no rate", struct.pack("<HHIIHH", 1, 1, 0, 16_000, 2, 16)),
        ("24 bits", struct.pack("<HHIIHH", 1, 1, 8000, 24_000, 3, 24)),
        ("samples apart", struct.pack("<HHIIHH", 1, 1, 8000, 32_000, 4, 16)),
        ("cut", struct.pack("<HHII", 1, 1, 8000, 16_000)),
    ],
)
def test_samples_that_are_not_plain_are_left_to_libsndfile(name: str, head: bytes) -> None:
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", 400)
    content = b"RIFF" + struct.pack("<I", len(body) + 400) + body + bytes(400)
    (sound,) = chunk_sounds(content) or []
    assert sound.samples is None, name


def test_plain_samples_end_where_the_file_does() -> None:
    """A header may count more than lies before whatever was joined to the file."""
    content = bytes(44) + np.arange(10, dtype="<i2").tobytes() + b"\0"
    sound = Sound(content, "wav", by_libsndfile=True, samples=Samples(44, 1000, 1, 16_000))
    stream = open_stream(sound)
    heard = np.concatenate(list(stream.blocks("int16")))
    assert heard.ravel().tolist() == list(range(10))
    assert stream.promised_duration_s == 10 / 16_000


def test_what_a_damaged_header_asks_for_is_its_own_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg calls it a lack of memory; a lack of ours blames no recording."""
    sound = Sound(b"", "mov", by_libsndfile=False)

    def refuse(*_: object, **__: object) -> None:
        raise refused

    monkeypatch.setattr("av.open", refuse)
    refused: MemoryError = av.error.MemoryError(12, "Cannot allocate memory")
    with pytest.raises(AudioError, match="Cannot allocate memory"):
        open_stream(sound)
    refused = MemoryError()
    with pytest.raises(MemoryError):
        open_stream(sound)
