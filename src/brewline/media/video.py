"""The picture track of a video: what is seen at given times, upright.

Times are counted from the beginning of the sound, which is what a clip is. A picture is seen until
the next one comes, at whatever rate they do. Only those parts of a video are decoded that a wanted
picture needs: from the last one before it that stands by itself.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import av
from PIL import Image

from brewline.media.multimedia import multimedia_sounds
from brewline.media.recording import AudioError

# How long a last picture is seen of which nobody says how long it is.
_LAST_S = 1.0
_TURNS = {90: "ROTATE_90", 180: "ROTATE_180", 270: "ROTATE_270"}


class VideoError(Exception):
    """These bytes hold no pictures that can be decoded; `reason` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Seen(NamedTuple):
    """A picture of a video, upright, by how many degrees it was turned, and whether it is over.

    One that `is_over` is the last one, at a time when the pictures had ended.
    """

    image: Image.Image
    rotation: int
    is_over: bool


class Video:
    """An open video."""

    def __init__(self, container: Any, track: av.VideoStream) -> None:
        self._container, self._track = container, track
        sounds = container.streams.audio
        begins = [stream for stream in [*sounds, track] if stream.start_time is not None]
        self._start_s = float(begins[0].start_time * begins[0].time_base) if begins else 0.0
        self.frames_per_s = float(track.average_rate or 0)
        # Of the sound or of the pictures, whichever ends later.
        self.duration_s = (container.duration or 0) / av.time_base or self._found_duration_s()

    def _found_duration_s(self) -> float:
        """Where the last packet begins: a stream that was written as it came says nothing."""
        shown = [float(one.pts * one.time_base) for one in self._container.demux() if one.pts]
        self._container.seek(0)
        return max(max(shown, default=0.0) - self._start_s, 0.0)

    def seen_at(self, times_s: Sequence[float]) -> Iterator[Seen]:
        """What is seen at each of some times, which rise.

        Raises:
            VideoError: `damaged`: not one picture can be decoded, or decoding fails.
        """
        try:
            yield from self._seen_at(times_s)
        except (VideoError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - PyAV raises whatever it stumbles over
            raise _damaged(error) from None

    def _seen_at(self, times_s: Sequence[float]) -> Iterator[Seen]:
        frames = _Frames(self._container, self._track)
        for time_s in times_s:
            frame, is_over = frames.at(time_s + self._start_s)
            yield Seen(*_upright(frame), is_over)


class _Frames:
    """The frames of a track, decoded as far as they are asked for."""

    def __init__(self, container: Any, track: av.VideoStream) -> None:
        self._track = track
        self._packets = (one for one in container.demux(track) if one.size)
        self._unit_s = float(track.time_base or 0)
        # Read and not decoded yet: whether they are needed shows later.
        self._waiting: list[Any] = []
        # Decoded: the last one that was wanted, and those after it.
        self._frames: list[Any] = []
        self._is_at_end = False

    def at(self, time_s: float) -> tuple[Any, bool]:
        """The frame that is seen at a time, or the one nearest to it, and whether it is over.

        Raises:
            VideoError: there is none.
        """
        while not self._is_at_end and not self._reaches(time_s):
            self._read_on(time_s)
        if not self._frames:
            raise VideoError("no_picture", "no picture of it can be decoded")
        before = [place for place, one in enumerate(self._frames) if self._time_s(one) <= time_s]
        place = before[-1] if before else 0
        del self._frames[:place]
        frame = self._frames[0]
        if len(self._frames) > 1:
            return frame, False
        lasts_s = max((frame.duration or 0) * self._unit_s, _LAST_S)
        return frame, time_s > self._time_s(frame) + lasts_s

    def _reaches(self, time_s: float) -> bool:
        return bool(self._frames) and self._time_s(self._frames[-1]) > time_s

    def _read_on(self, time_s: float) -> None:
        """Reads a packet, and decodes what is sure to be needed for the picture of a time."""
        packet = next(self._packets, None)
        if packet is None:
            self._is_at_end = True
            self._decode([None])
            return
        shown = packet.pts if packet.pts is not None else packet.dts
        if packet.is_keyframe and shown is not None and shown * self._unit_s <= time_s:
            # What was read before it is seen before it.
            if self._frames or self._waiting:
                self._track.codec_context.flush_buffers()
            self._waiting.clear()
            self._frames.clear()
        self._waiting.append(packet)
        read = packet.dts if packet.dts is not None else packet.pts
        # Packets come in the order of decoding, each before it is seen.
        if read is None or read * self._unit_s > time_s:
            self._decode([])

    def _decode(self, more: list[Any]) -> None:
        packets, self._waiting = [*self._waiting, *more], []
        for packet in packets:
            try:
                self._frames += self._track.codec_context.decode(packet)
            except av.InvalidDataError:
                # One of them; what stands by itself comes again.
                continue

    def _time_s(self, frame: Any) -> float:
        shown = frame.pts if frame.pts is not None else frame.dts
        return (shown or 0) * self._unit_s


@contextmanager
def open_video(content: bytes) -> Iterator[Video]:
    """Opens a whole file that holds pictures in time.

    Raises:
        VideoError: `no_picture_track`, `unsupported_codec`, or `damaged`.
    """
    try:
        sounds = multimedia_sounds(content)
    except AudioError as error:
        raise VideoError(error.reason, error.detail) from None
    if not sounds:
        raise VideoError("no_picture_track", "the file is no video")
    try:
        container = av.open(
            io.BytesIO(sounds[0].content), "r", format=sounds[0].demuxer, metadata_errors="ignore"
        )
    except Exception as error:  # noqa: BLE001 - PyAV raises whatever it stumbles over
        raise _damaged(error) from None
    with container:
        # A picture of the cover is no track of pictures.
        cover = av.stream.Disposition.attached_pic
        tracks = [one for one in container.streams.video if not one.disposition & cover]
        if not tracks:
            raise VideoError("no_picture_track", "the file holds no moving pictures")
        yield Video(container, tracks[0])


def _damaged(error: Exception) -> VideoError:
    words = error.strerror if isinstance(error, av.FFmpegError) else None
    return VideoError("damaged_picture", f"the decoder says: {words or type(error).__name__}")


def _upright(frame: Any) -> tuple[Image.Image, int]:
    """The picture as it is to be seen, and by how many degrees it was turned anticlockwise."""
    image: Image.Image = frame.to_image()
    shape = frame.sample_aspect_ratio if hasattr(frame, "sample_aspect_ratio") else None
    if shape and shape != 1:
        image = image.resize((max(1, round(image.width * shape)), image.height))
    rotation = round(frame.rotation / 90) * 90 % 360
    if rotation in _TURNS:
        image = image.transpose(Image.Transpose[_TURNS[rotation]])
    return image, rotation


def middle_times(duration_s: float, count: int) -> list[float]:
    """The middles of so many equal parts of a time, in seconds."""
    return [(number + 0.5) * duration_s / count for number in range(count)]
