"""Opens a file and judges it at once: what comes from outside the pipeline, and no corpus lists."""

from typing import NamedTuple

from brewline.config.validate import ValidateParams
from brewline.media.audio import AudioError
from brewline.quality.checks import AUDIO_CHECKS, IMAGE_CHECKS, Fault, first_fault
from brewline.quality.picture_facts import PictureError, read_picture_facts
from brewline.quality.recording_facts import read_recording_facts
from brewline.tables.facts import PictureFacts, RecordingFacts


class Finding(NamedTuple):
    """What was found out about a file; without `facts` it could not be opened."""

    fault: Fault | None
    facts: RecordingFacts | PictureFacts | None = None


def check_audio(content: bytes, limits: ValidateParams) -> Finding:
    """Decodes a recording to its end and checks it."""
    try:
        facts = read_recording_facts(content)
    except AudioError as error:
        return Finding(Fault(error.reason, error.detail))
    return Finding(first_fault(AUDIO_CHECKS, facts, limits), facts)


def check_image(content: bytes, limits: ValidateParams) -> Finding:
    """Opens a picture fully and checks it."""
    try:
        facts = read_picture_facts(content)
    except PictureError as error:
        return Finding(Fault("bad_image", str(error)))
    return Finding(first_fault(IMAGE_CHECKS, facts, limits), facts)
