"""Recordings in every format that is read, made by the decoders' own libraries."""

import io
import tempfile
import wave
from functools import cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from world import SAMPLE_RATE_HZ, encode_audio, tone

DURATION_S = 2.0
NUMBER = 5


class Encoding(NamedTuple):
    """How PyAV writes a format; `options` are those of the container."""

    format: str
    codec: str
    rate_hz: int = SAMPLE_RATE_HZ
    bit_rate: int = 0
    options: tuple[tuple[str, str], ...] = ()
    # Seconds of pictures beside the sound.
    video_s: float = 0.0
    layout: str = "mono"


LIBSNDFILE = {
    "wav": ("WAV", "PCM_16"),
    "wav-float": ("WAV", "FLOAT"),
    "wav-adpcm": ("WAV", "IMA_ADPCM"),
    "rf64": ("RF64", "PCM_24"),
    "aiff": ("AIFF", "PCM_16"),
    "aiff-adpcm": ("AIFF", "IMA_ADPCM"),
    "au": ("AU", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "caf-alac": ("CAF", "ALAC_16"),
    "nist": ("NIST", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
_FRAGMENTS = (("movflags", "frag_keyframe+empty_moov+default_base_moof"),)
PYAV = {
    "m4a": Encoding("ipod", "aac"),
    "m4a-faststart": Encoding("ipod", "aac", options=(("movflags", "faststart"),)),
    "m4a-fragments": Encoding("mp4", "aac", options=_FRAGMENTS),
    "m4a-stereo": Encoding("ipod", "aac", 44_100, layout="stereo"),
    "alac": Encoding("ipod", "alac"),
    "3gp": Encoding("3gp", "libopencore_amrnb", 8_000, 12_200),
    "mp4": Encoding("mp4", "aac", video_s=DURATION_S + 1),
    "webm": Encoding("webm", "libopus", 48_000),
    "webm-live": Encoding("webm", "libopus", 48_000, options=(("live", "1"),)),
    "mkv": Encoding("matroska", "aac", video_s=DURATION_S + 1),
    "mka-flac": Encoding("matroska", "flac"),
    "ogg-flac": Encoding("ogg", "flac"),
    "adts": Encoding("adts", "aac"),
    "amr": Encoding("amr", "libopencore_amrnb", 8_000, 12_200),
    "wma": Encoding("asf", "wmav2", bit_rate=32_000),
    "avi": Encoding("avi", "mp3", video_s=DURATION_S),
    "flv": Encoding("flv", "aac", 44_100),
    "mpegts": Encoding("mpegts", "aac"),
    "mp2": Encoding("mp2", "mp2"),
    "wav-mp3": Encoding("wav", "libmp3lame"),
}
FORMATS = (*LIBSNDFILE, *PYAV)


@cache
def sound(name: str, duration_s: float = DURATION_S, number: int = NUMBER) -> bytes:
    """A tone in a format of `FORMATS`."""
    samples = tone(number, duration_s)
    if name in LIBSNDFILE:
        return encode_audio(samples, *LIBSNDFILE[name])
    return encode_av(samples, PYAV[name])


def encode_av(samples: np.ndarray, encoding: Encoding) -> bytes:
    """Packs mono samples at 16 kHz, (num_samples,), as FFmpeg does."""
    # Into a file: some formats are written twice.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sound")
        with av.open(
            str(path), "w", format=encoding.format, container_options=dict(encoding.options)
        ) as container:
            _write(container, samples, encoding)
        return path.read_bytes()


def _write(container: av.container.OutputContainer, samples: np.ndarray, how: Encoding) -> None:
    stream = container.add_stream(how.codec, rate=how.rate_hz, layout=how.layout)
    assert isinstance(stream, av.AudioStream)
    if how.bit_rate:
        stream.bit_rate = how.bit_rate
    video = container.add_stream("mpeg4", rate=10) if how.video_s else None
    if video:
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
    stream.codec_context.open()
    resampler = av.AudioResampler(
        stream.codec_context.format, how.layout, how.rate_hz, stream.codec_context.frame_size or 512
    )
    whole = av.AudioFrame.from_ndarray(
        np.round(samples * 32_767).astype(np.int16).reshape(1, -1), "s16", "mono"
    )
    whole.sample_rate, whole.pts = SAMPLE_RATE_HZ, 0
    for frame in (*resampler.resample(whole), *resampler.resample(None), None):
        container.mux(stream.encode(frame))
    if video:
        for _ in range(round(10 * how.video_s)):
            container.mux(
                video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24"))
            )
        container.mux(video.encode(None))


def silent_video() -> bytes:
    """A video without a sound track."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        video = container.add_stream("mpeg4", rate=10)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for _ in range(10):
            container.mux(
                video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24"))
            )
        container.mux(video.encode(None))
    return buffer.getvalue()


def wav_of_one_sample_a_second() -> bytes:
    """A million bytes that, believed, would be eleven days."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(1)
        file.writeframes(bytes(1_000_000))
    return buffer.getvalue()
