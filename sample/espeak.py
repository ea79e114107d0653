"""espeak-ng as a library: the one of the package espeakng-loader, or else the system's.

It gives the samples that the program `espeak-ng` of the same version writes (tests/unit/
test_sample.py holds the two against each other), without a process for each sentence.
"""

import ctypes
import ctypes.util
import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from brewline.core.errors import BrewlineError

# Of espeak-ng's speak_lib.h.
_SYNCHRONOUS = 2
_RATE, _VOLUME, _PITCH = 1, 2, 3
_UTF8, _SSML = 0x01, 0x10
_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@dataclass(frozen=True)
class _Espeak:
    library: Any
    sample_rate_hz: int
    chunks: list[np.ndarray]
    # The library keeps no reference to it.
    callback: Callable[..., int]


def speak(text: str, voice: str, rate: int, pitch: int, volume: int) -> tuple[np.ndarray, int]:
    """Speech of plain text or SSML, without a pause behind it.

    Args:
        text: What is said.
        voice: As espeak-ng names it, with a variant: `en-us+f2`.
        rate: Words a minute.
        pitch: 0 to 99.
        volume: 0 to 200.

    Returns:
        int16 [samples], and their rate in Hz.

    Raises:
        BrewlineError: espeak-ng is not there, or does not know the voice.
    """
    espeak = _load()
    espeak.chunks.clear()
    # Set before each sentence: the library remembers what SSML changed in the last one.
    if espeak.library.espeak_SetVoiceByName(voice.encode()):
        raise BrewlineError(f"espeak-ng has no voice {voice!r}; install all of its voices")
    for parameter, value in ((_RATE, rate), (_VOLUME, volume), (_PITCH, pitch)):
        espeak.library.espeak_SetParameter(parameter, value, 0)
    content = text.encode()
    flags = _UTF8 | _SSML
    espeak.library.espeak_Synth(content, len(content) + 1, 0, 0, 0, flags, None, None)
    return np.concatenate(espeak.chunks), espeak.sample_rate_hz


@functools.cache
def _load() -> _Espeak:
    """Loads the library, once in a process."""
    if importlib.util.find_spec("espeakng_loader"):
        import espeakng_loader

        name, voices = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
    else:
        name, voices = ctypes.util.find_library("espeak-ng"), None
    if name is None:
        raise BrewlineError(
            "speech is made by espeak-ng, which is not there; install it without root by "
            "`uv pip install espeakng-loader`, or with root by `apt-get install espeak-ng`",
            "settings",
        )
    library = ctypes.CDLL(name)
    library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, voices and str(voices).encode(), 0)
    if rate <= 0:
        raise BrewlineError(f"espeak-ng ({name}) does not find its voices; install it anew")
    chunks: list[np.ndarray] = []

    def take(samples: Any, count: int, _events: Any) -> int:
        if samples and count:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    callback = _Callback(take)
    library.espeak_SetSynthCallback(callback)
    return _Espeak(library, rate, chunks, callback)
