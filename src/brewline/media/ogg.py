"""Ogg (RFC 3533): its pages are checked one by one, and streams that follow each other are split.

Decoders skip damaged pages and play what is left without a word, and libsndfile stops at the end
of the first stream of a chain.
"""

import struct
import zlib
from dataclasses import dataclass, field

from brewline.media.recording import AudioError, Parts, Sound, check_joined, is_harmless

_HEADER = struct.Struct("<4sBBqIIIB")
_FIRST_OF_STREAM, _LAST_OF_STREAM = 2, 4
# The first packet of a stream names its codec; libsndfile decodes the first two.
_LIBSNDFILE_CODECS = (b"OpusHead", b"\x01vorbis")
_AUDIO_CODECS = (*_LIBSNDFILE_CODECS, b"\x7fFLAC", b"Speex   ", b"PCM     ")
# Ogg's checksum runs over the bits of a byte from the highest; zlib's from the lowest.
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class _Link:
    """A part of a chain: the streams that begin together, and where it lies in the file."""

    start: int
    end: int = 0
    # By serial number: the beginning of the first packet, where the pages are, the number of the
    # next one, and whether the stream has ended.
    codecs: dict[int, bytes] = field(default_factory=dict)
    pages: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    next_page: dict[int, int] = field(default_factory=dict)
    ended: dict[int, bool] = field(default_factory=dict)
    # A page came that begins no stream.
    has_body: bool = False


def page_checksum(page: bytes) -> int:
    """CRC-32 of an Ogg page whose checksum field is zero (RFC 3533, section 6)."""
    # zlib starts from all ones and inverts the result; both are undone here.
    reversed_crc = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reversed_crc:032b}"[::-1], 2)


def ogg_sounds(content: bytes) -> list[Sound]:
    """The sounds of a chain of Ogg streams, in their order.

    Raises:
        AudioError: `damaged`, `truncated`, or `no_audio_track`.
    """
    links = _links(content)
    check_joined(len(links))
    sounds = []
    for link in links:
        audio = [
            serial for serial, packet in link.codecs.items() if packet.startswith(_AUDIO_CODECS)
        ]
        if not audio:
            raise AudioError("no_audio_track", "an Ogg stream in it holds no sound")
        track = audio[0]
        part = content[link.start : link.end]
        if len(link.codecs) > 1:
            # Pictures, or what describes them, lie between.
            part = b"".join(content[start:end] for start, end in link.pages[track])
        sounds.append(
            Sound(
                content=part,
                demuxer="ogg",
                by_libsndfile=link.codecs[track].startswith(_LIBSNDFILE_CODECS),
                has_end=link.ended[track],
            )
        )
    return sounds


def _links(content: bytes) -> list[_Link]:
    """Walks the pages (RFC 3533, sections 4 and 6)."""
    links: list[_Link] = []
    position = page = 0
    parts = Parts()
    while position < len(content):
        parts.add_one()
        if content[position : position + 4] != b"OggS":
            # After an end mark there may be a newline or a tag.
            if links and all(links[-1].ended.values()) and is_harmless(content[position:]):
                break
            raise AudioError("damaged", f"no Ogg page where page {page} should begin")
        end, flags, serial, number, body = _checked_page(content, position, page)
        if flags & _FIRST_OF_STREAM:
            if not links or links[-1].has_body:
                links.append(_Link(position))
            links[-1].codecs[serial] = content[body : min(end, body + 8)]
            links[-1].next_page[serial] = number
            links[-1].pages[serial] = []
        elif links:
            links[-1].has_body = True
        if not links or serial not in links[-1].codecs:
            raise AudioError("damaged", f"Ogg page {page} belongs to a stream without a beginning")
        link = links[-1]
        if number != link.next_page[serial]:
            raise AudioError("damaged", f"pages are missing before Ogg page {page}")
        link.pages[serial].append((position, end))
        link.next_page[serial] = (number + 1) % (1 << 32)
        link.ended[serial] = bool(flags & _LAST_OF_STREAM)
        position = link.end = end
        page += 1
    return links


def _checked_page(content: bytes, position: int, page: int) -> tuple[int, int, int, int, int]:
    """Where the page at `position` ends, its flags, serial, number, and where its body begins."""
    head = content[position : position + _HEADER.size]
    if len(head) < _HEADER.size:
        raise AudioError("truncated", f"the file ends inside the head of Ogg page {page}")
    _, _, flags, _, serial, number, checksum, num_segments = _HEADER.unpack(head)
    body = position + _HEADER.size + num_segments
    end = body + sum(content[position + _HEADER.size : body])
    if end > len(content):
        raise AudioError("truncated", f"Ogg page {page} needs {end - len(content)} bytes more")
    if (
        page_checksum(content[position : position + 22] + bytes(4) + content[position + 26 : end])
        != checksum
    ):
        raise AudioError("damaged", f"Ogg page {page} fails its checksum")
    return end, flags, serial, number, body
