"""The picture track of a video in numbers."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brewline.media.video import Seen, middle_times, open_video
from brewline.tables.facts import VideoFacts

# Looked at, evenly over the video.
_NUM_LOOKS = 8
_PARTS = 32


def read_video_facts(content: bytes) -> VideoFacts:
    """Looks at some of the pictures of a video.

    Raises:
        VideoError: it has none; see `brewline.media.video`.
    """
    with open_video(content) as video:
        seen = list(video.seen_at(middle_times(video.duration_s, _NUM_LOOKS)))
        first = seen[0]
        parts = [_parts(one) for one in seen]
        return VideoFacts(
            duration_s=video.duration_s,
            frames_per_s=video.frames_per_s,
            width_px=first.image.width,
            height_px=first.image.height,
            rotation=first.rotation,
            num_asked=_NUM_LOOKS,
            num_found=sum(not one.is_over for one in seen),
            picture_change=max(float(np.abs(a - b).max()) for a, b in pairwise(parts)),
        )


def _parts(seen: Seen) -> NDArray[np.float32]:
    """The greys of 32 x 32 parts of a picture, from 0 to 255."""
    small = seen.image.convert("L").resize((_PARTS, _PARTS), Image.Resampling.BOX)
    return np.asarray(small, np.float32)
