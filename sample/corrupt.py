"""Recordings damaged in the ways in which real corpora are damaged."""

from collections.abc import Callable

import numpy as np
from speech import SAMPLE_RATE_HZ, opus_bytes, wav_bytes

Damage = Callable[[np.ndarray, np.random.Generator], bytes]

_ERROR_PAGE = b"""<!DOCTYPE html>
<html><head><title>404 Not Found</title></head>
<body><h1>Not Found</h1><p>The requested object was not found on this server.</p></body></html>
"""


def _empty_file(wave: np.ndarray, generator: np.random.Generator) -> bytes:
    return b""


def _error_page(wave: np.ndarray, generator: np.random.Generator) -> bytes:
    return _ERROR_PAGE


def _truncated(wave: np.ndarray, generator: np.random.Generator) -> bytes:
    """Ends inside a page: the end-of-stream page is missing."""
    whole = opus_bytes(wave)
    return whole[: int(len(whole) * generator.uniform(0.5, 0.6))]


def _garbage_inside(wave: np.ndarray, generator: np.random.Generator) -> bytes:
    """Five hundred bytes in the middle overwritten: a page no longer fits its checksum."""
    data = bytearray(opus_bytes(wave))
    middle = len(data) // 2
    data[middle : middle + 500] = generator.bytes(500)
    return bytes(data)


def _cut_wav(wave: np.ndarray, generator: np.random.Generator) -> bytes:
    """The header promises the whole recording, the file holds a fifth of it."""
    whole = wav_bytes(wave)
    return whole[: len(whole) // 5]


def _not_a_number(wave: np.ndarray, generator: np.random.Generator) -> bytes:
    """A float WAV of two seconds in which some samples are NaN or infinite."""
    broken = wave[: 2 * SAMPLE_RATE_HZ].copy()
    places = generator.choice(len(broken), 60, replace=False)
    broken[places[:40]] = np.nan
    broken[places[40:]] = np.inf
    return wav_bytes(broken, subtype="FLOAT")


def _silence(wave: np.ndarray, generator: np.random.Generator) -> bytes:
    return opus_bytes(np.zeros_like(wave))


def _too_short(wave: np.ndarray, generator: np.random.Generator) -> bytes:
    start = len(wave) // 2
    return opus_bytes(wave[start : start + SAMPLE_RATE_HZ // 20])


DAMAGES: dict[str, Damage] = {
    "empty_file": _empty_file,
    "error_page": _error_page,
    "truncated": _truncated,
    "garbage_inside": _garbage_inside,
    "cut_wav": _cut_wav,
    "not_a_number": _not_a_number,
    "silence": _silence,
    "too_short": _too_short,
}
