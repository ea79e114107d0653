"""Makes the miniature world again: `python sample/build.py [PART]`; `--help` names the parts.

Everything follows from seeds. Whoever rebuilds it needs the program espeak-ng; nobody else does.
"""

import argparse
import hashlib
import json
from pathlib import Path

import corpora
import numpy as np
import speech
import train_clip
import train_whisper
import videos

HERE = Path(__file__).resolve().parent
SHIPPED = ("corpora", "weights")
# Something to search with at once: a new voice, in words that the miniature Whisper knows.
SENTENCE = "A small orange cat and a purple truck on the street in the evening."
RECORDING = HERE / "recording.ogg"


def write_checksums() -> None:
    """SHA-256 and size of every shipped file, into `checksums.json`."""
    paths = sorted(p for part in SHIPPED for p in (HERE / part).rglob("*") if p.is_file())
    paths.append(RECORDING)
    entries = {
        path.relative_to(HERE).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in paths
    }
    (HERE / "checksums.json").write_text(json.dumps(entries, indent=2) + "\n")


def write_recording() -> None:
    """The recording of `SENTENCE`."""
    wave = speech.synthesise(SENTENCE, speech.Voice("en-us", "m1", rate=150, pitch=40))
    room = speech.Condition(noise="pink", snr_db=30)
    RECORDING.write_bytes(speech.opus_bytes(speech.degrade(wave, room, np.random.default_rng(0))))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", default="all", choices=(*SHIPPED_PARTS, "all"))
    parser.add_argument(
        "--scratch",
        type=Path,
        default=HERE.parent / "work" / "sample",
        help="where the training material goes (about 1.5 GB)",
    )
    arguments = parser.parse_args()
    parts = SHIPPED_PARTS if arguments.part == "all" else (arguments.part,)
    if "whisper" in parts:
        scratch = arguments.scratch / "speech"
        train_whisper.build(HERE / "weights", scratch, train_whisper.Recipe())
    if "clip" in parts:
        scratch = arguments.scratch / "pictures"
        train_clip.build(HERE / "weights", scratch, train_clip.Recipe())
    if "corpora" in parts:
        corpora.build(HERE / "corpora")
    if "videos" in parts:
        videos.build_videos(HERE / "corpora" / "mini-videos", videos.Filmed())
    if "recording" in parts:
        write_recording()
    write_checksums()
    print(f"wrote {', '.join(parts)} and checksums.json below {HERE}")


SHIPPED_PARTS = ("whisper", "clip", "corpora", "videos", "recording")

if __name__ == "__main__":
    main()
