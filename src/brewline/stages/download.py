"""Stage `download`: the files of a corpus, verified, in `data/raw/<corpus>/`."""

from pathlib import Path

from brewline.download import fetch
from brewline.errors import exits_cleanly
from brewline.files import atomic_path
from brewline.stages.arguments import corpus_argument


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus = corpus_argument(__doc__)
    source = params.sources[corpus]
    print(f"{corpus}: {len(source.files)} files, licence {source.licence}")
    with atomic_path(Path("data/raw") / corpus) as partial:
        for name, file in source.files.items():
            digest = fetch(file, partial / name)
            print(f"  {name}  sha256 {digest}")


if __name__ == "__main__":
    main()
