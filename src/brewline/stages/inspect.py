"""Stage `inspect`: opens every recording and picture once, and writes down what each one is."""

from pathlib import Path

from brewline.config import load_versions
from brewline.config.sources import SourceParams
from brewline.core.engines import open_engine
from brewline.core.files import fingerprint, move_folder, remove, stamps, work_dir
from brewline.core.programs import exits_cleanly
from brewline.corpora.readers import READERS
from brewline.media.archives import MediaStore
from brewline.media.file_runs import FileRuns
from brewline.quality.inspection import Kind, inspect_files, join_runs, list_files
from brewline.stages.arguments import named_argument


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus = named_argument(__doc__)
    source, runtime = params.sources[corpus], params.runtime
    raw = Path("data/raw") / corpus
    max_megapixels = params.validation.max_image_megapixels
    named_by = [params.inspect.model_dump(), max_megapixels, source.model_dump(), stamps(raw)]
    work = work_dir("inspect", fingerprint(load_versions().inspect, named_by, []))
    files = _list_files(raw, source, work / "files")
    with open_engine(runtime.engine, runtime.inspect_workers, runtime.ray_address) as engine:
        inspect_files(
            engine,
            raw,
            files,
            work / "rows",
            runtime.inspect_decode_limit_s,
            max_megapixels,
            params.inspect.speech_share,
        )
    join_runs(files, work / "rows", work / "facts")
    move_folder(work / "facts", Path("data/facts") / corpus)
    remove(work)
    numbers = (f"{runs.num_files} {kind}" for kind, runs in files.items())
    print(f"{corpus}: {', '.join(numbers)} inspected")


def _list_files(raw: Path, source: SourceParams, folder: Path) -> dict[Kind, FileRuns]:
    """In a function of its own: the corpus' listing is needed for this alone, and large."""
    store = MediaStore(raw)
    return list_files(store, READERS[source.reader](store, source), folder)


if __name__ == "__main__":
    main()
