"""Stage `inspect`: opens every recording and picture once, and writes down what each one is."""

from collections import Counter
from pathlib import Path

from brewline.config import load_versions
from brewline.core.files import fingerprint, move_folder, remove, stamps, work_dir
from brewline.core.programs import exits_cleanly
from brewline.corpora.readers import READERS
from brewline.media.archives import MediaStore
from brewline.quality.inspection import files_of, inspect_files, join_runs
from brewline.stages.arguments import named_argument


@exits_cleanly
def main() -> None:
    """Runs the stage."""
    params, corpus = named_argument(__doc__)
    source, runtime = params.sources[corpus], params.runtime
    raw = Path("data/raw") / corpus
    store = MediaStore(raw)
    tasks = files_of(store, READERS[source.reader](store, source))
    max_megapixels = params.validation.max_image_megapixels
    named_by = [params.inspect.model_dump(), max_megapixels, source.model_dump(), stamps(raw)]
    work = work_dir("inspect", fingerprint(load_versions().inspect, named_by, []))
    inspect_files(
        store,
        tasks,
        work / "runs",
        runtime.inspect_workers,
        runtime.inspect_decode_limit_s,
        max_megapixels,
        params.inspect.speech_share,
    )
    join_runs(work / "runs", work / "facts")
    move_folder(work / "facts", Path("data/facts") / corpus)
    remove(work)
    kinds = Counter(task.kind for task in tasks)
    print(f"{corpus}: {kinds['recordings']} recordings, {kinds['pictures']} pictures inspected")


if __name__ == "__main__":
    main()
