"""What the things of the miniature world sound like: each kind that sounds has a sound of its own.

A sound is a call that is repeated: a tone with overtones, sliding and trembling, with breath in it.
"""

import random
from dataclasses import dataclass

import numpy as np
from speech import SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Call:
    """A call: its pitch, how far that slides (in octaves), and how long and how often it is heard.

    `breath` is the share of noise; a `tremble` of so many hertz makes it louder and quieter;
    `overtones` is by how much each is weaker than the one below.
    """

    pitch_hz: float
    slide: float = 0.0
    length_s: float = 0.3
    every_s: float = 0.5
    breath: float = 0.0
    tremble_hz: float = 0.0
    overtones: float = 0.5


CALLS = {
    "dog": Call(320, -0.6, 0.12, 0.3, breath=0.35),
    "cat": Call(620, 0.5, 0.45, 0.6, overtones=0.6),
    "horse": Call(900, -0.9, 0.55, 0.7, tremble_hz=14),
    "cow": Call(140, -0.2, 0.8, 0.95, overtones=0.75),
    "sheep": Call(380, 0.0, 0.5, 0.65, tremble_hz=9, overtones=0.7),
    "duck": Call(260, -0.1, 0.1, 0.2, breath=0.2, overtones=0.85),
    "bird": Call(2600, 0.5, 0.08, 0.16, overtones=0.1),
    "car": Call(430, 0.0, 0.35, 0.45, overtones=0.8),
    "truck": Call(75, 0.0, 2.0, 2.0, breath=0.25, tremble_hz=11, overtones=0.85),
    "boat": Call(105, 0.0, 1.1, 1.3, overtones=0.8),
    "kite": Call(210, 0.25, 2.0, 2.0, breath=0.8, overtones=0.4),
    "clock": Call(1200, 0.0, 0.03, 0.25, breath=0.4, overtones=0.2),
    "ball": Call(110, -1.0, 0.14, 0.42, overtones=0.3),
    "bottle": Call(3200, 0.0, 0.5, 0.6, overtones=0.2),
}

# The place that each of them is at home in.
AT_HOME = {
    "beach": "kite",
    "forest": "bird",
    "street": "truck",
    "meadow": "sheep",
    "mountains": "car",
    "desert": "horse",
    "lake": "duck",
    "farm": "cow",
    "park": "dog",
    "harbour": "boat",
    "kitchen": "bottle",
    "living room": "cat",
    "bedroom": "clock",
    "classroom": "ball",
}


def sound(kind: str, duration_s: float, rng: random.Random) -> np.ndarray:
    """float32 [samples] at 16 kHz; `rng` decides pitch, pace and loudness."""
    call = CALLS[kind]
    pitch_hz = call.pitch_hz * rng.uniform(0.93, 1.07)
    every_s = call.every_s * rng.uniform(0.9, 1.1)
    generator = np.random.default_rng(rng.getrandbits(32))
    wave = np.zeros(round(duration_s * SAMPLE_RATE_HZ), np.float32)
    for start in np.arange(0, len(wave), every_s * SAMPLE_RATE_HZ).astype(int):
        one = _call(call, pitch_hz, generator)[: len(wave) - start]
        wave[start : start + len(one)] += one
    return wave * np.float32(rng.uniform(0.25, 0.5) / max(float(np.abs(wave).max()), 1e-6))


def _call(call: Call, pitch_hz: float, generator: np.random.Generator) -> np.ndarray:
    num_samples = round(call.length_s * SAMPLE_RATE_HZ)
    time_s = np.arange(num_samples) / SAMPLE_RATE_HZ
    place = np.linspace(0, 1, num_samples)
    pitch = pitch_hz * 2 ** (call.slide * place)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ
    tone = np.zeros(num_samples)
    for overtone in range(1, 9):
        # None above half of the sample rate.
        heard = pitch * overtone < 0.45 * SAMPLE_RATE_HZ
        tone += call.overtones ** (overtone - 1) * np.sin(overtone * phase) * heard
    noise = generator.standard_normal(num_samples)
    wave = (1 - call.breath) * tone + call.breath * noise
    wave *= 1 + 0.7 * np.sin(2 * np.pi * call.tremble_hz * time_s)
    # It begins and ends within 10 ms.
    edge = np.minimum(place, 1 - place) * call.length_s / 0.01
    return (wave * np.minimum(edge, 1)).astype(np.float32)


def room(num_samples: int, rng: random.Random) -> np.ndarray:
    """What is heard where nothing sounds, [samples]: soft noise that swells and fades."""
    generator = np.random.default_rng(rng.getrandbits(32))
    noise = generator.standard_normal(num_samples)
    swell = 1 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.2, 0.5) * np.arange(num_samples) / 16_000)
    return (rng.uniform(0.004, 0.012) * swell * noise).astype(np.float32)
