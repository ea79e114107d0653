"""espeak-ng as a library: the system's, or else the one that the package espeakng-loader brings.

It gives the samples that the program `espeak-ng` of the same version writes
(tests/unit/test_claims.py holds the two against each other), without a process for each sentence.
The system's goes first: 1.51 is what the miniature Whisper was trained on, and equal to the byte
each time, which 1.52, the one of the package, is not for every voice.
"""

import _ctypes
import ctypes
import ctypes.util
import functools
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
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


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("unused", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


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
    chunks: list[np.ndarray] = []

    def take(samples: Any, count: int, _events: Any) -> int:
        if samples and count:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    # The library keeps no reference to it.
    callback, content = _Callback(take), text.encode()
    with _fresh_library() as (library, sample_rate_hz):
        library.espeak_SetSynthCallback(callback)
        _choose(library, voice)
        for parameter, value in ((_RATE, rate), (_VOLUME, volume), (_PITCH, pitch)):
            library.espeak_SetParameter(parameter, value, 0)
        size = ctypes.c_size_t(len(content) + 1)
        library.espeak_Synth(content, size, 0, 0, 0, _UTF8 | _SSML, None, None)
    return np.concatenate(chunks), sample_rate_hz


def _choose(library: Any, voice: str) -> None:
    """As the program does: a voice of that name, or else the best for such a language."""
    if library.espeak_SetVoiceByName(voice.encode()):
        wanted = _Voice(languages=voice.encode())
        if library.espeak_SetVoiceByProperties(ctypes.byref(wanted)):
            raise BrewlineError(f"espeak-ng has no voice {voice!r}; install all of its voices")


@contextmanager
def _fresh_library() -> Iterator[tuple[Any, int]]:
    """The library as it is in a new process, and its sample rate.

    What it said before would change what it says: its noise is drawn, and filters ring on.
    """
    name, voices = _place()
    library = ctypes.CDLL(name)
    try:
        # Of the C library, which the noise is drawn from: as a new process has it.
        ctypes.CDLL(None).srand(1)
        rate = library.espeak_Initialize(_SYNCHRONOUS, 0, voices and voices.encode(), 0)
        if rate <= 0:
            raise BrewlineError(f"espeak-ng ({name}) does not find its voices; install it anew")
        yield library, rate
        library.espeak_Terminate()
    finally:
        _ctypes.dlclose(library._handle)


@functools.cache
def _place() -> tuple[str, str | None]:
    """The library, and where its voices are, if it does not know that by itself."""
    name = ctypes.util.find_library("espeak-ng")
    if name is not None:
        return name, None
    if importlib.util.find_spec("espeakng_loader"):
        import espeakng_loader

        return str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path())
    raise BrewlineError(
        "speech is made by espeak-ng, which is not there; install it without root by "
        "`uv pip install '.[study]'`, or with root by `apt-get install espeak-ng`",
        "settings",
    )
