"""Makes the miniature world again: `python sample/build.py [corpora|whisper|clip|all]`.

Everything follows from seeds. Whoever rebuilds it needs the program espeak-ng; nobody else does.
"""

import argparse
import hashlib
import json
from pathlib import Path

import corpora
import train_clip
import train_whisper

HERE = Path(__file__).resolve().parent
SHIPPED = ("corpora", "weights")


def write_checksums() -> None:
    """SHA-256 and size of every shipped file, into `checksums.json`."""
    paths = sorted(p for part in SHIPPED for p in (HERE / part).rglob("*") if p.is_file())
    entries = {
        path.relative_to(HERE).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in paths
    }
    (HERE / "checksums.json").write_text(json.dumps(entries, indent=2) + "\n")


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
    write_checksums()
    print(f"wrote {', '.join(parts)} and checksums.json below {HERE}")


SHIPPED_PARTS = ("whisper", "clip", "corpora")

if __name__ == "__main__":
    main()
