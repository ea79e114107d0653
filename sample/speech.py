"""Speech of the miniature world: espeak-ng voices, recording conditions, Opus files."""

import io
import random
import zlib
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from espeak import speak

SAMPLE_RATE_HZ = 16_000
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-us-nyc")
MALE = ("m1", "m2", "m3", "m4", "m6", "m7")
FEMALE = ("f1", "f2", "f3", "f4", "f5")


@dataclass(frozen=True)
class Voice:
    """One speaker as espeak-ng knows it: rate in words a minute, pitch and volume 0-99/200."""

    accent: str
    variant: str
    rate: int
    pitch: int
    volume: int = 100
    pitch_range: int = 50  # 50 is espeak's own; SSML prosody carries any other


@dataclass(frozen=True)
class Condition:
    """Where it was recorded: noise kind and SNR, hum, room, band limit."""

    noise: str = "none"  # none, white, pink, babble
    snr_db: float = 40.0
    reverb: float = 0.0  # share of the reflected sound
    hum: float = 0.0
    low_pass_hz: int = 0


def sample_voice(rng: random.Random, rates: tuple[int, int] = (140, 185)) -> Voice:
    """A speaker by chance."""
    female = rng.random() < 0.5
    pitch = rng.randint(45, 75) if female else rng.randint(25, 60)
    variant = rng.choice(FEMALE if female else MALE)
    return Voice(rng.choice(ACCENTS), variant, rng.randint(*rates), pitch)


def synthesise(text: str, voice: Voice) -> np.ndarray:
    """float32 [samples] at 16 kHz, of plain text or SSML."""
    if voice.pitch_range != 50:
        text = f'<prosody range="{voice.pitch_range}">{text}</prosody>'
    samples, rate = speak(
        text, f"{voice.accent}+{voice.variant}", voice.rate, voice.pitch, voice.volume
    )
    wave = samples / np.float32(32768)
    return soxr.resample(wave, rate, SAMPLE_RATE_HZ).astype(np.float32)


def degrade(
    wave: np.ndarray,
    condition: Condition,
    generator: np.random.Generator,
    babble: np.ndarray | None = None,
) -> np.ndarray:
    """The same speech as it would be heard under the condition, peak at most 0.9."""
    out = wave.astype(np.float32)
    if condition.reverb:
        out = _reverb(out, condition.reverb, generator)
    if condition.low_pass_hz:
        out = _low_pass(out, condition.low_pass_hz)
    if condition.noise != "none":
        noise = _noise(condition.noise, len(out), generator, babble)
        gain = _rms(out) / max(_rms(noise), 1e-6) * 10 ** (-condition.snr_db / 20)
        out = out + gain * noise
    if condition.hum:
        seconds = np.arange(len(out)) / SAMPLE_RATE_HZ
        hum = np.sin(2 * np.pi * 50 * seconds) + 0.5 * np.sin(2 * np.pi * 150 * seconds)
        out = out + condition.hum * _rms(out) * hum.astype(np.float32)
    return (out * min(1.0, 0.9 / max(float(np.abs(out).max()), 1e-6))).astype(np.float32)


def _rms(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(wave.astype(np.float64) ** 2)))


def _noise(
    kind: str, length: int, generator: np.random.Generator, babble: np.ndarray | None
) -> np.ndarray:
    if kind == "babble" and babble is not None:
        start = int(generator.integers(0, len(babble)))
        return np.take(babble, np.arange(start, start + length), mode="wrap")
    white = generator.standard_normal(length).astype(np.float32)
    if kind == "white":
        return white
    spectrum = np.fft.rfft(white)
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 10))
    return np.fft.irfft(spectrum, n=length).astype(np.float32)


def _reverb(wave: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    length = SAMPLE_RATE_HZ // 4
    decay = np.exp(-np.arange(length) / (SAMPLE_RATE_HZ * 0.06))
    response = generator.standard_normal(length) * decay
    response *= share / np.sqrt(np.sum(response**2))
    response[0] += 1.0
    size = len(wave) + length
    wet = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(response, size), size)
    return wet[: len(wave)].astype(np.float32)


def _low_pass(wave: np.ndarray, cutoff_hz: int) -> np.ndarray:
    spectrum = np.fft.rfft(wave)
    spectrum[np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE_HZ) > cutoff_hz] = 0
    return np.fft.irfft(spectrum, n=len(wave)).astype(np.float32)


def make_babble(waves: list[np.ndarray], seconds: float = 20.0) -> np.ndarray:
    """Several people talking at once, long enough to cut noise from."""
    length = int(seconds * SAMPLE_RATE_HZ)
    tracks = [np.resize(np.roll(wave, 977 * i), length) for i, wave in enumerate(waves)]
    return np.sum(tracks, axis=0).astype(np.float32)


def opus_bytes(wave: np.ndarray, compression_level: float = 0.99) -> bytes:
    """An Ogg Opus file of about 8-12 kb/s, the same bytes for the same wave."""
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        wave,
        SAMPLE_RATE_HZ,
        format="OGG",
        subtype="OPUS",
        compression_level=compression_level,
    )
    return _with_serial(buffer.getvalue(), serial=1)


def through_opus(wave: np.ndarray) -> np.ndarray:
    """The same speech as it comes back from such a file."""
    heard, _ = soundfile.read(io.BytesIO(opus_bytes(wave)), dtype="float32")
    return np.asarray(heard)


def _with_serial(ogg: bytes, serial: int) -> bytes:
    """The stream with a fixed serial number, where libsndfile put a random one."""
    out = bytearray(ogg)
    start = 0
    while start < len(out):
        segments = out[start + 26]
        end = start + 27 + segments + sum(out[start + 27 : start + 27 + segments])
        out[start + 14 : start + 18] = serial.to_bytes(4, "little")
        out[start + 22 : start + 26] = bytes(4)
        out[start + 22 : start + 26] = _ogg_crc(bytes(out[start:end])).to_bytes(4, "little")
        start = end
    return bytes(out)


def _ogg_crc(page: bytes) -> int:
    """CRC-32 as Ogg has it: zlib's, but from the highest bit, from zero and not inverted."""
    crc = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def wav_bytes(wave: np.ndarray, subtype: str = "PCM_16") -> bytes:
    """A WAV file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, SAMPLE_RATE_HZ, format="WAV", subtype=subtype)
    return buffer.getvalue()
