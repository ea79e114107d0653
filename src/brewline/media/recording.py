"""What the readers of containers find in a file: sounds to be decoded, or why there are none."""

from dataclasses import dataclass
from typing import Final

# What may follow a recording without being part of it: padding, and tags (ID3v1, ID3v2, APEv2,
# Lyrics3).
_PADDING = b"\0 \t\r\n\x1a"
TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
# The head of an ID3v2 tag (id3.org, "ID3 tag version 2.4.0", section 3.1).
_ID3_HEAD_BYTES: Final = 10

# Files that follow each other in one; that more were joined is an accident or an attack.
MAX_JOINED = 256
# Frames, pages, boxes and places between them that are looked at in a file, which takes some
# seconds: five hours of the shortest frames, and of what is hostile a part of a large file.
MAX_PARTS = 1_000_000


class AudioError(Exception):
    """These bytes are not a recording that can be decoded; `reason` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Samples:
    """Where 16-bit samples lie in a file as they are, low byte first, channel beside channel.

    `num_frames` is how many samples each channel has.
    """

    start: int
    num_frames: int
    num_channels: int
    sample_rate_hz: int


@dataclass(frozen=True)
class Sound:
    """One sound of a file: bytes for a decoder, and what the container promises of it.

    `promised_s` is None where only the decoder knows; `share` is the bytes of sound that the
    container promises over those that are there. `has_end` is False where the container has an
    end mark and it is missing: cut off, or never closed.
    """

    content: bytes
    # PyAV's name of the format.
    demuxer: str
    # libsndfile decodes it; PyAV does where that cannot.
    by_libsndfile: bool = False
    # Nothing is to be decoded.
    samples: Samples | None = None
    promised_s: float | None = None
    # Nothing says how long it is: a stream that was written as it came.
    is_open: bool = False
    share: float = 1.0
    has_end: bool = True


def check_joined(number: int) -> None:
    """Refuses a file that consists of very many.

    Raises:
        AudioError: `damaged`.
    """
    if number > MAX_JOINED:
        raise AudioError("damaged", f"more than {MAX_JOINED} recordings are joined in it")


class Parts:
    """Counts the parts of a file while it is walked."""

    def __init__(self) -> None:
        self._number = 0

    def add_one(self) -> None:
        """Counts one more.

        Raises:
            AudioError: `damaged`: there are very many.
        """
        self._number += 1
        if self._number > MAX_PARTS:
            raise AudioError("damaged", f"it consists of more than {MAX_PARTS} parts")


def end_without_padding(content: bytes) -> int:
    """Where the content ends if padding is left out."""
    return len(content.rstrip(_PADDING))


def is_harmless(tail: bytes) -> bool:
    """Whether the bytes after a recording are padding or a tag."""
    return tail.startswith(TAGS) or not tail.strip(_PADDING)


def size_of_id3(content: bytes, position: int = 0) -> int:
    """The bytes of the ID3v2 tag at `position`; 0 where there is none."""
    head = content[position : position + _ID3_HEAD_BYTES]
    if not head.startswith(b"ID3") or len(head) < _ID3_HEAD_BYTES:
        return 0
    # Seven bits of each byte count; a footer repeats the head.
    size = sum((byte & 0x7F) << 7 * (3 - n) for n, byte in enumerate(head[6:]))
    has_footer = bool(head[5] & 0x10)
    return _ID3_HEAD_BYTES * (2 if has_footer else 1) + size
